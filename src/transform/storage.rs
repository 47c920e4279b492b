//! Where persisted elements are kept: Spark's storage levels, and the memory that all of a job's persisted elements share.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::config::MEMORY_MAX_DEFAULT;

/// Persisted elements have so much of the memory budget: as much as one batch.
pub(crate) const STORAGE_SHARE: u64 = 4;
/// Memory is asked for in steps, in bytes.
const STEP_BYTES: u64 = 256 * 1024;

/// Where [persisted](super::DStream::persist) elements are kept. Spark: `StorageLevel`, whose names the constants have.
///
/// | Level | Kept as | What has no room in memory |
/// |---|---|---|
/// | `MEMORY_ONLY` | elements | is computed again by each action |
/// | `MEMORY_ONLY_SER` | their bytes | is computed again by each action |
/// | `MEMORY_AND_DISK` | elements | goes to disk, as bytes |
/// | `MEMORY_AND_DISK_SER` | their bytes | goes to disk |
/// | `DISK_ONLY` | | all of it goes to disk |
///
/// Spark's levels that end in `_2` keep a copy on a second machine, for the case that the first one dies. Here there is one
/// process, and what it loses is computed again from Kafka by the batch's ranges: they mean the same as those without.
///
/// The room is a quarter of `stream.memory_max` for all that a job persists. Elements count with their own size and, by a
/// sample, with that of their bytes. Files are in the folder for temporary files (`TMPDIR`); they have no name, so nothing is left
/// of them whatever becomes of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageLevel {
    /// Elements in memory; what has no room is computed again.
    MemoryOnly,
    /// Serialized elements in memory; what has no room is computed again.
    MemoryOnlySer,
    /// Elements in memory; what has no room goes to disk.
    MemoryAndDisk,
    /// Serialized elements in memory; what has no room goes to disk.
    MemoryAndDiskSer,
    /// Serialized elements on disk.
    DiskOnly,
}

impl StorageLevel {
    /// Spark's name of [`MemoryOnly`](Self::MemoryOnly).
    pub const MEMORY_ONLY: Self = Self::MemoryOnly;
    /// As `MEMORY_ONLY`: there is no second machine.
    pub const MEMORY_ONLY_2: Self = Self::MemoryOnly;
    /// Spark's name of [`MemoryOnlySer`](Self::MemoryOnlySer).
    pub const MEMORY_ONLY_SER: Self = Self::MemoryOnlySer;
    /// As `MEMORY_ONLY_SER`: there is no second machine.
    pub const MEMORY_ONLY_SER_2: Self = Self::MemoryOnlySer;
    /// Spark's name of [`MemoryAndDisk`](Self::MemoryAndDisk).
    pub const MEMORY_AND_DISK: Self = Self::MemoryAndDisk;
    /// As `MEMORY_AND_DISK`: there is no second machine.
    pub const MEMORY_AND_DISK_2: Self = Self::MemoryAndDisk;
    /// Spark's name of [`MemoryAndDiskSer`](Self::MemoryAndDiskSer).
    pub const MEMORY_AND_DISK_SER: Self = Self::MemoryAndDiskSer;
    /// As `MEMORY_AND_DISK_SER`: there is no second machine.
    pub const MEMORY_AND_DISK_SER_2: Self = Self::MemoryAndDiskSer;
    /// Spark's name of [`DiskOnly`](Self::DiskOnly).
    pub const DISK_ONLY: Self = Self::DiskOnly;
    /// As `DISK_ONLY`: there is no second machine.
    pub const DISK_ONLY_2: Self = Self::DiskOnly;

    /// Whether what has no room in memory goes to disk.
    pub(super) fn uses_disk(self) -> bool {
        matches!(self, Self::MemoryAndDisk | Self::MemoryAndDiskSer | Self::DiskOnly)
    }
}

/// The memory that persisted elements share.
#[derive(Debug)]
pub struct StorageMemory {
    bytes_max: u64,
    used: AtomicU64,
}

impl Default for StorageMemory {
    fn default() -> Self {
        Self::new(MEMORY_MAX_DEFAULT / STORAGE_SHARE)
    }
}

impl StorageMemory {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, used: AtomicU64::new(0) }
    }

    /// Bytes that are taken.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let within = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.bytes_max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }
}

/// A piece of the storage memory, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    memory: Arc<StorageMemory>,
    bytes: u64,
}

impl Reserved {
    pub(super) fn nothing(memory: &Arc<StorageMemory>) -> Self {
        Self { memory: Arc::clone(memory), bytes: 0 }
    }

    /// Makes it reach for so many bytes; `false`: there is no room, and it stays as it is.
    pub(super) fn reach(&mut self, bytes: u64) -> bool {
        let missing = bytes.saturating_sub(self.bytes);
        if missing == 0 {
            return true;
        }
        // In steps, and where a whole step has no room, as little as it takes.
        let steps = [missing.next_multiple_of(STEP_BYTES), missing];
        let taken = steps.into_iter().find(|bytes| self.memory.take(*bytes));
        self.bytes += taken.unwrap_or(0);
        taken.is_some()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_taken_as_far_as_there_is_some_and_given_back() {
        let memory = Arc::new(StorageMemory::new(STEP_BYTES + 10));
        let (mut one, mut other) = (Reserved::nothing(&memory), Reserved::nothing(&memory));
        assert!(one.reach(5) && one.reach(STEP_BYTES));
        assert_eq!(memory.used(), STEP_BYTES);
        assert!(other.reach(10) && !other.reach(11));
        assert_eq!(memory.used(), STEP_BYTES + 10);
        drop(one);
        assert!(other.reach(11));
        drop(other);
        assert_eq!(memory.used(), 0);
    }
}
