//! Records that are made here, gathered into chunks and counted.

use std::{ops::ControlFlow, sync::Arc};

use crate::{
    error::Error,
    read::checksum,
    types::{Chunk, Flow, MemoryChunk, MemoryRecord, OffsetRange, RangeCounts, Stop},
};

/// A chunk is given once it has so many bytes, or so many records.
const CHUNK_BYTES: usize = 64 * 1024;
const CHUNK_RECORDS: usize = 1024;

/// Gathers the records of one range.
pub(crate) struct Chunks<'a> {
    range: &'a OffsetRange,
    cancelled: &'a dyn Fn() -> bool,
    each: &'a mut dyn FnMut(Arc<Chunk>) -> Flow,
    records: Vec<MemoryRecord>,
    bytes: usize,
    counts: RangeCounts,
}

impl<'a> Chunks<'a> {
    pub(crate) fn new(
        range: &'a OffsetRange,
        cancelled: &'a dyn Fn() -> bool,
        each: &'a mut dyn FnMut(Arc<Chunk>) -> Flow,
    ) -> Self {
        Self { range, cancelled, each, records: Vec::new(), bytes: 0, counts: RangeCounts::default() }
    }

    /// Takes the next record, in offset order.
    pub(crate) fn take(&mut self, record: MemoryRecord) -> ControlFlow<Stop> {
        self.bytes += record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len);
        self.records.push(record);
        if self.bytes < CHUNK_BYTES && self.records.len() < CHUNK_RECORDS {
            return ControlFlow::Continue(());
        }
        self.give()
    }

    /// Gives the rest, and tells what the range had.
    pub(crate) fn finish(mut self) -> Result<RangeCounts, Stop> {
        if let ControlFlow::Break(stop) = self.give() {
            return Err(stop);
        }
        self.counts.gaps = self.range.count().saturating_sub(self.counts.records);
        Ok(self.counts)
    }

    fn give(&mut self) -> ControlFlow<Stop> {
        if (self.cancelled)() {
            return ControlFlow::Break(Stop::Failed(Error::unavailable("the batch was cancelled")));
        }
        if self.records.is_empty() {
            return ControlFlow::Continue(());
        }
        let records = std::mem::take(&mut self.records);
        let topic_partition = self.range.topic_partition.clone();
        let chunk = Arc::new(Chunk::Memory(MemoryChunk { topic_partition, records }));
        for record in chunk.records() {
            self.counts.checksum = checksum::extend_by_record(self.counts.checksum, &record);
        }
        self.counts.records += chunk.len() as u64;
        self.counts.bytes += chunk.bytes();
        self.bytes = 0;
        (self.each)(chunk)
    }
}
