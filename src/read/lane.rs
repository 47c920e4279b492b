//! One partition as the reader keeps it from batch to batch.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    checksum,
    errors::PartitionFailure,
    frontier::{Frontier, Run},
    slot::Slot,
};
use crate::{
    kafka::{Code, Entry, MessageBatch, PartitionQueue},
    types::{RangeCounts, TopicPartition},
};

/// At most so many records in one take. More make no call cheaper, and leave the cache before they are looked at.
const TAKE_MAX: u64 = 2_048;
/// ... and about so many bytes: what one take may add to the memory in use.
const TAKE_BYTES: u64 = 4 * 1024 * 1024;

impl Run for MessageBatch {
    fn span(&self) -> Option<(i64, i64)> {
        let mut views = self.views();
        let first = views.next()?.offset();
        Some((first, views.next_back().map_or(first, |last| last.offset())))
    }

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn split_at_offset(self, offset: i64) -> (Self, Self) {
        let count = match self.span() {
            Some((_, last)) if last < offset => self.len(),
            Some((first, _)) if first < offset => self.partition_point(offset),
            _ => 0,
        };
        self.split_at(count)
    }
}

/// Whether the range has all its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// Not yet; `moved` if this step brought it nearer.
    Open {
        moved: bool,
    },
}

/// A partition's queue and what was popped from it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) topic_partition: TopicPartition,
    /// The queue while the partition is assigned.
    pub(super) queue: Option<PartitionQueue>,
    /// Where the next range must start to go on without a seek. `None` while a range is being read, and after one that was
    /// left before its end: what was popped of it is gone.
    pub(super) next: Option<i64>,
    /// The client stopped the partition; a seek does not start it again, only a new assignment does.
    pub(super) stopped: bool,
    /// What the last seek in vain ended with.
    pub(super) refused: Option<Code>,
    /// A client for this partition alone, where the shared one cannot read it any more.
    pub(super) own: Option<Arc<Slot>>,
    pub(super) frontier: Frontier<MessageBatch>,
    entries: Vec<Entry>,
    /// A moving average, for the size of the next take.
    record_bytes: u64,
}

impl Lane {
    pub(super) fn new(topic_partition: TopicPartition) -> Self {
        Self {
            topic_partition,
            queue: None,
            next: None,
            stopped: false,
            refused: None,
            own: None,
            frontier: Frontier::at(0),
            entries: Vec::new(),
            record_bytes: 256,
        }
    }

    /// Gives the partition up: its queue, and its place in the client's assignment.
    pub(super) fn give_up(&mut self) {
        Self::give_up_all([self]);
    }

    /// Gives many up, with one call for each client.
    pub(super) fn give_up_all<'a>(lanes: impl IntoIterator<Item = &'a mut Self>) {
        let mut by_client: HashMap<usize, Vec<PartitionQueue>> = HashMap::new();
        for lane in lanes {
            lane.next = None;
            if let Some(queue) = lane.queue.take() {
                by_client.entry(Arc::as_ptr(queue.client()).addr()).or_default().push(queue);
            }
        }
        for queues in by_client.values_mut() {
            let partitions: Vec<_> = queues.iter().map(PartitionQueue::topic_partition).collect();
            if let Some(Err(error)) = queues.first().map(|queue| queue.client().unassign(&partitions)) {
                tracing::debug!(partitions = partitions.len(), "cannot unassign: {error}");
            }
            queues.iter_mut().for_each(PartitionQueue::discard);
        }
    }

    /// Right after a successful seek to `from`.
    pub(super) fn placed_at(&mut self, from: i64) {
        self.frontier.restart(from);
        self.next = Some(from);
    }

    /// One step of the rule: pops what is there, or waits for the first entry, and puts the range's records into `out`.
    pub(super) fn step(
        &mut self,
        until: i64,
        wait: Duration,
        out: &mut Vec<MessageBatch>,
    ) -> Result<Progress, PartitionFailure> {
        let before = self.frontier.get();
        let Some(queue) = &mut self.queue else { return Ok(Progress::Open { moved: false }) };
        let missing = u64::try_from(until.saturating_sub(before)).unwrap_or(0);
        let max = missing.min(TAKE_MAX).min(TAKE_BYTES / self.record_bytes.max(1)).max(1);
        let popped = queue.take(usize::try_from(max).unwrap_or(1), wait, &mut self.entries);
        let mut failure = None;
        for entry in self.entries.drain(..) {
            match entry {
                Entry::Records(run) => self.frontier.records(run, until, out),
                Entry::Eof { offset } => self.frontier.eof(offset),
                Entry::Failed { code, offset, text } => {
                    self.frontier.failed(offset);
                    failure.get_or_insert(PartitionFailure { code, offset, text });
                }
            }
        }
        if let Some(failure) = failure {
            self.stopped = true;
            return Err(failure);
        }
        if !self.frontier.covers(until) {
            // Also without an entry: transaction markers move it, and are never shown.
            self.frontier.position(queue.position());
        }
        if self.frontier.covers(until) {
            return Ok(Progress::Done);
        }
        Ok(Progress::Open { moved: popped > 0 || self.frontier.get() > before })
    }

    /// Takes records of a range that ends at `until` into the counts.
    pub(super) fn count(&mut self, batch: &MessageBatch, until: i64, counts: &mut RangeCounts) {
        counts.checksum = batch.views().fold(counts.checksum, checksum::extend_by);
        let (records, bytes) = (as_u64(batch.len()), batch.bytes());
        counts.records += records;
        counts.bytes += bytes;
        if let Some(last) = batch.views().next_back() {
            // Only the record right before the end tells the epoch of the end. Where a gap lies between, as a commit marker
            // that a later leader wrote, the record's epoch may end before it: a seek with it would look like a truncation.
            let at_end = last.offset() + 1 == until;
            counts.record_epoch = last.leader_epoch();
            counts.leader_epoch = counts.record_epoch.filter(|_| at_end);
        }
        if let Some(mean) = bytes.checked_div(records) {
            self.record_bytes = (self.record_bytes * 3 + mean) / 4;
        }
    }

    /// About how many bytes wait in the queue, the client's own included.
    pub(super) fn queued_bytes(&self) -> u64 {
        self.queue.as_ref().map_or(0, |queue| as_u64(queue.len()) * (self.record_bytes + 400))
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
