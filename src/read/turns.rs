//! Partitions take turns where the memory budget has no room for all of them at once.
//!
//! A partition that is assigned prefetches, and below a certain size of its queues reading no longer works well. So a
//! budget has room for so many partitions. Where a batch has more of them, those with an empty range are left out, and the
//! others are assigned by turns: when one is to be read whose turn has not come, all that are read make room for the next.

use std::collections::VecDeque;

use crate::types::{OffsetRange, TopicPartition};

/// Where a partition is to stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) topic_partition: TopicPartition,
    pub(super) offset: i64,
    /// The epoch that the offset was read under.
    pub(super) leader_epoch: Option<i32>,
}

/// The turns of one batch.
#[derive(Debug, Default)]
pub(super) struct Turns {
    taken: bool,
    /// Whose turn has not come, in the order of the ranges.
    waiting: VecDeque<Start>,
    /// Read to the end of their range.
    done: Vec<TopicPartition>,
}

impl Turns {
    /// The turns of a batch for which there is room for `room` partitions at once, and who comes first.
    pub(super) fn begin(
        ranges: &[OffsetRange],
        leader_epochs: &dyn Fn(&TopicPartition) -> Option<i32>,
        room: usize,
    ) -> (Self, Vec<Start>) {
        let start = |range: &OffsetRange| Start {
            topic_partition: range.topic_partition.clone(),
            offset: range.from_offset.get(),
            leader_epoch: leader_epochs(&range.topic_partition),
        };
        if ranges.len() <= room {
            return (Self::default(), ranges.iter().map(start).collect());
        }
        let mut first: Vec<Start> = ranges.iter().filter(|range| !range.is_empty()).map(start).collect();
        let waiting = first.split_off(room.min(first.len())).into();
        (Self { taken: true, waiting, done: Vec::new() }, first)
    }

    /// Whether turns are taken at all in this batch.
    pub(super) fn are_taken(&self) -> bool {
        self.taken
    }

    /// A partition was read to the end of its range.
    pub(super) fn read(&mut self, topic_partition: &TopicPartition) {
        if self.taken {
            // One that was still assigned when its turn was to come did not have to wait for it.
            self.withdraw(topic_partition);
            self.done.push(topic_partition.clone());
        }
    }

    /// Whoever makes room now.
    pub(super) fn take_done(&mut self) -> Vec<TopicPartition> {
        std::mem::take(&mut self.done)
    }

    /// The next ones, for which there is `room` beside `topic_partition`; and the epoch of that one's own start.
    pub(super) fn next(&mut self, topic_partition: &TopicPartition, room: usize) -> (Option<i32>, Vec<Start>) {
        let own = self.withdraw(topic_partition);
        let count = room.min(self.waiting.len());
        (own.and_then(|start| start.leader_epoch), self.waiting.drain(..count).collect())
    }

    /// One whose turn had come after all waits again, before the others.
    pub(super) fn wait_again(&mut self, start: Start) {
        self.waiting.push_front(start);
    }

    /// Takes one out of those that wait.
    pub(super) fn withdraw(&mut self, topic_partition: &TopicPartition) -> Option<Start> {
        let index = self.waiting.iter().position(|start| start.topic_partition == *topic_partition)?;
        self.waiting.remove(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Offset;

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    /// Five partitions; the second one has nothing to read.
    fn ranges() -> Vec<OffsetRange> {
        let until = |partition| if partition == 1 { 7 } else { 9 };
        (0..5).map(|p| OffsetRange::new(tp(p), Offset::clamped(7), Offset::clamped(until(p)))).collect()
    }

    fn numbers(starts: &[Start]) -> Vec<i32> {
        starts.iter().map(|start| start.topic_partition.partition).collect()
    }

    #[test]
    fn with_room_for_all_nobody_waits() {
        let (mut turns, first) = Turns::begin(&ranges(), &|_| Some(1), 5);
        assert_eq!(numbers(&first), [0, 1, 2, 3, 4]);
        turns.read(&tp(0));
        assert!(!turns.are_taken() && turns.take_done().is_empty());
    }

    #[test]
    fn empty_ranges_are_left_out_and_the_others_come_by_turns() {
        let (mut turns, first) = Turns::begin(&ranges(), &|tp| Some(tp.partition), 2);
        assert_eq!(numbers(&first), [0, 2]);
        turns.read(&tp(0));
        turns.read(&tp(2));
        assert_eq!(turns.take_done(), [tp(0), tp(2)]);
        assert_eq!(turns.take_done(), []);
        // Read out of turn, it comes at once, and takes its place in the room.
        let (epoch, next) = turns.next(&tp(4), 1);
        assert_eq!((epoch, numbers(&next)), (Some(4), vec![3]));
        assert_eq!(turns.next(&tp(4), 1), (None, Vec::new()));
    }

    #[test]
    fn one_that_waits_again_keeps_its_epoch() {
        let (mut turns, _) = Turns::begin(&ranges(), &|tp| Some(tp.partition), 2);
        let (_, next) = turns.next(&tp(3), 1);
        turns.wait_again(next[0].clone());
        assert_eq!(turns.withdraw(&tp(4)), Some(next[0].clone()));
        assert_eq!(next[0].leader_epoch, Some(4));
    }

    #[test]
    fn whoever_was_read_does_not_wait_any_more() {
        let (mut turns, _) = Turns::begin(&ranges(), &|_| None, 2);
        turns.read(&tp(3));
        assert_eq!(numbers(&turns.next(&tp(0), 5).1), [4]);
    }
}
