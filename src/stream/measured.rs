//! How much a batch reads, beside what it was planned to read.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    error::{Error, Stage},
    read::ReadRanges,
    types::{Chunk, Flow, OffsetRange, RangeCounts, Stop, TopicPartition},
};

/// Reads the ranges of one batch, and stops where they have far more bytes than they were planned to have: the batch is
/// then dropped and planned again, by what was seen of its records.
///
/// A batch of one record per partition goes through whatever it has: there is no smaller one.
#[derive(Debug)]
pub(super) struct Measured {
    reader: Arc<dyn ReadRanges>,
    bytes_max: u64,
    partitions: u64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    through: bool,
    records: u64,
    bytes: u64,
    of: BTreeMap<TopicPartition, (u64, u64)>,
}

impl Measured {
    /// For a batch of these ranges that may have `bytes_max` bytes of keys and values.
    pub(super) fn new(reader: Arc<dyn ReadRanges>, ranges: &[OffsetRange], bytes_max: u64) -> Self {
        let partitions = ranges.iter().filter(|range| !range.is_empty()).count() as u64;
        Self { reader, bytes_max, partitions, seen: Mutex::default() }
    }

    /// All ranges were read to their ends. Whoever reads them once more, as a side effect may, is not measured.
    pub(super) fn through(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).through = true;
    }

    /// Bytes that were read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Records and bytes of each partition, as far as it was read.
    pub(super) fn seen(&self) -> BTreeMap<TopicPartition, (u64, u64)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).of.clone()
    }

    fn add(&self, range: &OffsetRange, chunk: &Chunk) -> Flow {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.through {
            return Flow::Continue(());
        }
        let (records, bytes) = (chunk.len() as u64, chunk.bytes());
        seen.records += records;
        seen.bytes += bytes;
        let (of_records, of_bytes) = seen.of.entry(range.topic_partition.clone()).or_default();
        *of_records += records;
        *of_bytes += bytes;
        if seen.bytes <= self.bytes_max || seen.records <= self.partitions {
            return Flow::Continue(());
        }
        let text = format!(
            "the records are larger than the batch was planned for, and it is planned again bytes={} bytes_max={}",
            seen.bytes, self.bytes_max
        );
        Flow::Break(Stop::Failed(Error::unavailable(text).at(Stage::Read).in_range(range.clone())))
    }
}

impl ReadRanges for Measured {
    fn read(
        &self,
        range: &OffsetRange,
        cancelled: &dyn Fn() -> bool,
        each: &mut dyn FnMut(Arc<Chunk>) -> Flow,
    ) -> Result<RangeCounts, Stop> {
        self.reader.read(range, cancelled, &mut |chunk| {
            self.add(range, &chunk)?;
            each(chunk)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{MemoryChunk, MemoryRecord, Offset};

    /// Records of ten bytes, one to a chunk.
    #[derive(Debug)]
    struct Tens;

    impl ReadRanges for Tens {
        fn read(
            &self,
            range: &OffsetRange,
            _cancelled: &dyn Fn() -> bool,
            each: &mut dyn FnMut(Arc<Chunk>) -> Flow,
        ) -> Result<RangeCounts, Stop> {
            for offset in range.from_offset.get()..range.until_offset.get() {
                let (key, value) = (Some(vec![0; 4]), Some(vec![0; 6]));
                let record = MemoryRecord { offset: Offset::clamped(offset), key, value, ..MemoryRecord::default() };
                let chunk = MemoryChunk { topic_partition: range.topic_partition.clone(), records: vec![record] };
                if let Flow::Break(stop) = each(Arc::new(Chunk::Memory(chunk))) {
                    return Err(stop);
                }
            }
            Ok(RangeCounts::default())
        }
    }

    fn range(partition: i32, count: i64) -> OffsetRange {
        OffsetRange::new(TopicPartition::new("t", partition), Offset::clamped(0), Offset::clamped(count))
    }

    fn read(measured: &Measured, range: &OffsetRange) -> Result<RangeCounts, Stop> {
        measured.read(range, &|| false, &mut |_| Flow::Continue(()))
    }

    #[test]
    fn what_was_planned_goes_through_and_more_does_not() {
        let ranges = [range(0, 3), range(1, 2), range(2, 0)];
        let measured = Measured::new(Arc::new(Tens), &ranges, 40);
        read(&measured, &ranges[0]).unwrap();
        let Stop::Failed(error) = read(&measured, &ranges[1]).unwrap_err() else { panic!("it goes on") };
        assert!(error.kind().is_retryable() && error.to_string().contains("bytes=50 bytes_max=40"), "{error}");
        let seen: Vec<_> = measured.seen().into_values().collect();
        assert_eq!(seen, [(3, 30), (2, 20)]);
        // Side effects may read it all again.
        let measured = Measured::new(Arc::new(Tens), &ranges, 50);
        for _ in 0..2 {
            for range in &ranges {
                read(&measured, range).unwrap();
            }
            measured.through();
        }
    }

    #[test]
    fn one_record_per_partition_goes_through_whatever_it_has() {
        let ranges = [range(0, 1), range(1, 1)];
        let measured = Measured::new(Arc::new(Tens), &ranges, 1);
        for range in &ranges {
            read(&measured, range).unwrap();
        }
    }
}
