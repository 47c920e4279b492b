//! Serialized elements in blocks, in memory or in a file without a name, each with a checksum.

use std::{fs::File, io::Write, ops::ControlFlow, os::unix::fs::FileExt, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_64;

use super::storage::{Reserved, StorageMemory};
use crate::{
    error::{Error, Result},
    types::{Flow, Stop, Task},
};

/// A block is closed when it is this long.
const BLOCK_BYTES: usize = 64 * 1024;

/// A block's place in the order is its place in the index.
#[derive(Debug, Clone, Copy)]
struct Entry {
    length: usize,
    elements: u32,
    checksum: u64,
}

#[derive(Debug)]
enum Place {
    Memory { blocks: Vec<Vec<u8>>, bytes: u64, reserved: Reserved },
    Disk { file: File },
}

/// The elements of one partition, serialized.
#[derive(Debug)]
pub(super) struct Blocks {
    index: Vec<Entry>,
    place: Place,
    /// The block that is being filled.
    block: Vec<u8>,
    elements: u32,
}

impl Blocks {
    pub(super) fn in_memory(memory: &Arc<StorageMemory>) -> Self {
        let place = Place::Memory { blocks: Vec::new(), bytes: 0, reserved: Reserved::nothing(memory) };
        Self { index: Vec::new(), place, block: Vec::new(), elements: 0 }
    }

    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if no file can be made.
    pub(super) fn on_disk() -> Result<Self> {
        let file = tempfile::tempfile().map_err(|error| failed("cannot make a file for persisted elements", error))?;
        Ok(Self { index: Vec::new(), place: Place::Disk { file }, block: Vec::new(), elements: 0 })
    }

    /// Adds an element; `false`: there is no room in memory, and the element is in all the same.
    ///
    /// # Errors
    /// [`Transform`](crate::ErrorKind::Transform) if it cannot be serialized; [`Unavailable`](crate::ErrorKind::Unavailable) if
    /// the file cannot be written.
    pub(super) fn add(&mut self, item: &impl Serialize) -> Result<bool> {
        let cannot = |error| Error::transform("an element cannot be serialized").caused_by(error);
        self.block = postcard::to_extend(item, std::mem::take(&mut self.block)).map_err(cannot)?;
        self.elements += 1;
        if self.block.len() >= BLOCK_BYTES || self.elements == u32::MAX { self.close() } else { Ok(true) }
    }

    /// Puts the block that is being filled to the others.
    pub(super) fn close(&mut self) -> Result<bool> {
        if self.elements == 0 {
            return Ok(true);
        }
        let (block, elements) = (std::mem::take(&mut self.block), std::mem::take(&mut self.elements));
        self.index.push(Entry { length: block.len(), elements, checksum: xxh3_64(&block) });
        match &mut self.place {
            Place::Memory { blocks, bytes, reserved } => {
                *bytes += block.len() as u64;
                blocks.push(block);
                Ok(reserved.reach(*bytes))
            }
            Place::Disk { file } => {
                file.write_all(&block).map_err(|error| failed("cannot write persisted elements", error))?;
                self.block = block;
                self.block.clear();
                Ok(true)
            }
        }
    }

    /// The same in a file.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if it cannot be written.
    pub(super) fn spill(self) -> Result<Self> {
        let Place::Memory { blocks, .. } = self.place else { return Ok(self) };
        let on_disk = Self::on_disk()?;
        if let Place::Disk { file } = &on_disk.place {
            let mut file = file;
            for block in blocks {
                file.write_all(&block).map_err(|error| failed("cannot write persisted elements", error))?;
            }
        }
        Ok(Self { index: self.index, place: on_disk.place, block: self.block, elements: self.elements })
    }

    /// Gives every element to `each`, in order. All blocks must be [closed](Self::close).
    pub(super) fn each<T: DeserializeOwned>(&self, task: &Task, each: &mut dyn FnMut(T) -> Flow) -> Flow {
        let (mut at, mut buffer) = (0_u64, Vec::new());
        for (number, entry) in self.index.iter().enumerate() {
            if task.is_cancelled() {
                break;
            }
            let block = match &self.place {
                Place::Memory { blocks, .. } => blocks.get(number).map_or(&[][..], Vec::as_slice),
                Place::Disk { file } => {
                    buffer.resize(entry.length, 0);
                    if let Err(error) = file.read_exact_at(&mut buffer, at) {
                        return stop(failed("cannot read persisted elements", error));
                    }
                    at += entry.length as u64;
                    buffer.as_slice()
                }
            };
            if xxh3_64(block) != entry.checksum {
                return stop(Error::corrupt(format!(
                    "persisted elements are damaged: a checksum is wrong block={number}"
                )));
            }
            let mut rest = block;
            for _ in 0..entry.elements {
                let (item, after) = match postcard::take_from_bytes(rest) {
                    Ok(taken) => taken,
                    Err(error) => {
                        let text = "a persisted element cannot be read as what it was written";
                        return stop(Error::transform(text).caused_by(error));
                    }
                };
                rest = after;
                each(item)?;
            }
        }
        ControlFlow::Continue(())
    }
}

fn stop(error: Error) -> Flow {
    ControlFlow::Break(Stop::Failed(error))
}

/// A full disk passes: the batch is dropped and tried again.
fn failed(what: &str, error: std::io::Error) -> Error {
    Error::unavailable(format!("{what} folder={}", std::env::temp_dir().display())).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::ErrorKind,
        types::{BatchInfo, BatchTime},
    };

    fn task() -> Task {
        Task::new(BatchInfo { batch_seq: 1, batch_time: BatchTime::from_ms(0), ranges: Arc::new([]) })
    }

    fn read(blocks: &Blocks) -> Result<Vec<String>, Stop> {
        let mut items = Vec::new();
        let mut push = |item| {
            items.push(item);
            ControlFlow::Continue(())
        };
        match blocks.each(&task(), &mut push) {
            ControlFlow::Continue(()) => Ok(items),
            ControlFlow::Break(stop) => Err(stop),
        }
    }

    #[test]
    fn a_flipped_byte_on_disk_is_found() {
        let mut blocks = Blocks::on_disk().unwrap();
        let items: Vec<String> = (0..20_000).map(|n| format!("element {n}")).collect();
        for item in &items {
            assert!(blocks.add(item).unwrap());
        }
        blocks.close().unwrap();
        assert!(blocks.index.len() > 2);
        assert_eq!(read(&blocks).unwrap(), items);
        let Place::Disk { file } = &blocks.place else { panic!("it is on disk") };
        let mut byte = [0];
        for at in [0, 7, 70_000, 150_001] {
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            let Stop::Failed(error) = read(&blocks).unwrap_err() else { panic!("it was not found") };
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            file.write_all_at(&byte, at).unwrap();
        }
        file.set_len(100_000).unwrap();
        let Stop::Failed(error) = read(&blocks).unwrap_err() else { panic!("it was not found") };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }

    #[test]
    fn what_has_no_room_in_memory_goes_on_in_a_file() {
        let memory = Arc::new(StorageMemory::new(100_000));
        let mut blocks = Blocks::in_memory(&memory);
        let items: Vec<String> = (0..20_000).map(|n| format!("element {n}")).collect();
        for item in &items {
            if !blocks.add(item).unwrap() {
                assert!(matches!(blocks.place, Place::Memory { .. }));
                blocks = blocks.spill().unwrap();
                assert_eq!(memory.used(), 0);
            }
        }
        blocks.close().unwrap();
        assert!(matches!(blocks.place, Place::Disk { .. }));
        assert_eq!(read(&blocks).unwrap(), items);
    }
}
