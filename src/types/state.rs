//! State as it is stored: one segment per partition of a state operator and batch.

use std::fmt;

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// The whole partition: older segments of it are not needed any more.
    Base,
    /// What the batch changed.
    Delta,
}

impl SegmentKind {
    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Base, Self::Delta].into_iter().find(|kind| kind.name() == name)
    }

    /// Its name in the stores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Delta => "delta",
        }
    }
}

impl fmt::Display for SegmentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one partition of a state operator writes in one batch. Every partition writes one in every batch, so that one that is
/// missing is found.
#[derive(Clone, PartialEq, Eq)]
pub struct StateSegment {
    /// The number of the state operator within its job, from 1, in order of definition.
    pub operator: u32,
    /// The partition.
    pub partition: u32,
    /// The batch.
    pub batch_seq: u64,
    /// What it holds.
    pub kind: SegmentKind,
    /// How many keys it has an entry for, those that were removed included.
    pub keys: u64,
    /// Format version, checksum and entries.
    pub data: Vec<u8>,
}

impl fmt::Debug for StateSegment {
    // Keys and states are payload: told are sizes alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateSegment")
            .field("operator", &self.operator)
            .field("partition", &self.partition)
            .field("batch_seq", &self.batch_seq)
            .field("kind", &self.kind)
            .field("keys", &self.keys)
            .field("bytes", &self.data.len())
            .finish()
    }
}
