//! A partition of persisted elements: on its way into storage, and there.

use std::sync::Arc;

use super::{StateValue, StorageLevel, StorageMemory, spill::Blocks, state_segment::encoded, storage::Reserved};
use crate::error::Result;

/// Of so many elements the size of one is looked at.
const SAMPLED: usize = 64;

/// What is kept of a partition.
pub(super) enum Kept<T> {
    /// Nobody has asked for it yet.
    NotComputed,
    Elements {
        items: Arc<Vec<T>>,
        _reserved: Reserved,
    },
    Blocks(Arc<Blocks>),
    /// There was no room for it.
    NoRoom,
}

/// A partition on its way into storage.
pub(super) enum Keeping<T> {
    Elements {
        items: Vec<T>,
        reserved: Reserved,
        sampled_bytes: u64,
        buffer: Vec<u8>,
    },
    Blocks(Blocks),
    /// Taken apart, between two forms.
    Nothing,
}

impl<T: StateValue> Keeping<T> {
    pub(super) fn begin(level: StorageLevel, memory: &Arc<StorageMemory>) -> Result<Self> {
        Ok(match level {
            StorageLevel::MemoryOnly | StorageLevel::MemoryAndDisk => Self::Elements {
                items: Vec::new(),
                reserved: Reserved::nothing(memory),
                sampled_bytes: 0,
                buffer: Vec::new(),
            },
            StorageLevel::MemoryOnlySer | StorageLevel::MemoryAndDiskSer => Self::Blocks(Blocks::in_memory(memory)),
            StorageLevel::DiskOnly => Self::Blocks(Blocks::on_disk()?),
        })
    }

    /// Takes an element; `false`: there is no room in memory any more, and the element is in all the same.
    pub(super) fn add(&mut self, item: T) -> Result<bool> {
        match self {
            Self::Elements { items, reserved, sampled_bytes, buffer } => {
                let sample = items.len() % SAMPLED == 0;
                if sample {
                    buffer.clear();
                    *buffer = encoded(&item, std::mem::take(buffer))?;
                    *sampled_bytes += buffer.len() as u64;
                }
                items.push(item);
                let samples = items.len().div_ceil(SAMPLED) as u64;
                let average = size_of::<T>() as u64 + *sampled_bytes / samples.max(1);
                Ok(!sample || reserved.reach(average * (items.len() + SAMPLED) as u64))
            }
            Self::Blocks(blocks) => blocks.add(&item),
            Self::Nothing => Ok(true),
        }
    }

    /// Goes on in a file.
    pub(super) fn spill(&mut self) -> Result<()> {
        let blocks = match std::mem::replace(self, Self::Nothing) {
            Self::Elements { items, .. } => {
                let mut blocks = Blocks::on_disk()?;
                for item in &items {
                    blocks.add(item)?;
                }
                blocks
            }
            Self::Blocks(blocks) => blocks.spill()?,
            Self::Nothing => return Ok(()),
        };
        *self = Self::Blocks(blocks);
        Ok(())
    }

    pub(super) fn end(self, level: StorageLevel) -> Result<Kept<T>> {
        Ok(match self {
            Self::Elements { items, reserved, .. } => Kept::Elements { items: Arc::new(items), _reserved: reserved },
            Self::Blocks(mut blocks) => match blocks.close()? {
                true => Kept::Blocks(Arc::new(blocks)),
                false if level.uses_disk() => Kept::Blocks(Arc::new(blocks.spill()?)),
                false => Kept::NoRoom,
            },
            Self::Nothing => Kept::NoRoom,
        })
    }
}
