//! What is to be written, and what was: pure.

use super::Offsets;
use crate::types::{Offset, TopicPartition};

/// One offset per partition, however long the server is away: it grows no further than there are partitions.
#[derive(Debug, Default)]
pub(super) struct Slot {
    committed: Offsets,
    /// What the target is known to have.
    written: Offsets,
    /// What counts as written until something is, so that the lag is what this process knows to be missing.
    before: Offsets,
    /// Whether all is to be written, also what was already.
    whole: bool,
    /// How often that was asked for: an answer to what was asked before is no answer to it.
    round: u64,
}

/// What is to be written next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) offsets: Offsets,
    /// Whether these are all there are.
    pub(super) whole: bool,
    round: u64,
}

impl Slot {
    /// A term begins, or somebody moved the stored offsets: all is to be written, further back as well.
    pub(super) fn begin(&mut self, offsets: Offsets) {
        self.before.clone_from(&offsets);
        self.committed = offsets;
        self.written.clear();
        self.again();
    }

    /// Offsets are committed. Within a term they go forward only.
    pub(super) fn committed(&mut self, offsets: impl IntoIterator<Item = (TopicPartition, Offset)>) {
        for (topic_partition, offset) in offsets {
            match self.committed.get_mut(&topic_partition) {
                Some(known) => *known = offset.max(*known),
                None => {
                    self.before.insert(topic_partition.clone(), offset);
                    self.committed.insert(topic_partition, offset);
                }
            }
        }
    }

    /// All is to be written once more.
    pub(super) fn again(&mut self) {
        self.whole = true;
        self.round += 1;
    }

    /// What is to be written; `None`: nothing.
    pub(super) fn due(&self) -> Option<Due> {
        let differs = |known: &TopicPartition, offset: &Offset| self.written.get(known) != Some(offset);
        let due = self.committed.iter().filter(|(known, offset)| self.whole || differs(known, offset));
        let offsets: Offsets = due.map(|(known, offset)| (known.clone(), *offset)).collect();
        (!offsets.is_empty()).then_some(Due { offsets, whole: self.whole, round: self.round })
    }

    /// It is written.
    pub(super) fn wrote(&mut self, due: Due) {
        if due.round == self.round {
            self.written.extend(due.offsets);
            self.whole = false;
        }
    }

    /// Committed and not written offsets, summed.
    pub(super) fn lag(&self) -> u64 {
        let behind = |(known, offset): (&TopicPartition, &Offset)| {
            let reached = self.written.get(known).or_else(|| self.before.get(known)).unwrap_or(offset);
            reached.offsets_until(*offset)
        };
        self.committed.iter().map(behind).sum()
    }
}
