//! How much a batch reads, beside what it was planned to read; and how long that takes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::parents::Parents;
use crate::{
    clock::Clock,
    error::{Error, Stage},
    read::ReadRanges,
    report::{StepInfo, StepKind, TaskTimes, TraceParent},
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
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    through: bool,
    records: u64,
    bytes: u64,
    of: BTreeMap<TopicPartition, (u64, u64)>,
    parents: Parents,
    /// When the first range was begun and the last one left, in milliseconds since 1970-01-01 UTC.
    from_until_ms: Option<(i64, i64)>,
    tasks: TaskTimes,
}

impl Measured {
    /// For a batch of these ranges that may have `bytes_max` bytes of keys and values.
    pub(super) fn new(
        reader: Arc<dyn ReadRanges>,
        ranges: &[OffsetRange],
        bytes_max: u64,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let partitions = ranges.iter().filter(|range| !range.is_empty()).count() as u64;
        Self { reader, bytes_max, partitions, clock, seen: Mutex::default() }
    }

    /// Asks the first records for the traces that they belong to.
    pub(super) fn seeking_parents(self) -> Self {
        self.lock().parents = Parents::sought_in(self.partitions);
        self
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All ranges were read to their ends. Whoever reads them once more, as a side effect may, is not measured.
    pub(super) fn through(&self) {
        self.lock().through = true;
    }

    /// Bytes that were read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Records and bytes of each partition, as far as it was read.
    pub(super) fn seen(&self) -> BTreeMap<TopicPartition, (u64, u64)> {
        self.lock().of.clone()
    }

    /// When ranges were read, what the tasks did meanwhile, and the traces of the first records; `None` if nothing was.
    pub(super) fn reading(&self) -> Option<(StepInfo, TaskTimes, Vec<TraceParent>)> {
        let seen = self.lock();
        let (start_time_ms, end_time_ms) = seen.from_until_ms?;
        let step = StepInfo { kind: StepKind::Read, start_time_ms, end_time_ms };
        Some((step, seen.tasks, seen.parents.found().to_vec()))
    }

    fn add(&self, range: &OffsetRange, chunk: &Arc<Chunk>) -> Flow {
        let mut seen = self.lock();
        if seen.through {
            return Flow::Continue(());
        }
        seen.parents.look(chunk);
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
        let (started_ms, started) = (self.clock.now_ms(), self.clock.monotonic());
        // The clock is asked twice a chunk, and never for a record.
        let mut transforming = Duration::ZERO;
        let read = self.reader.read(range, cancelled, &mut |chunk| {
            self.add(range, &chunk)?;
            let given = self.clock.monotonic();
            let flow = each(chunk);
            transforming += self.clock.monotonic().saturating_sub(given);
            flow
        });
        let (ended_ms, took) = (self.clock.now_ms(), self.clock.monotonic().saturating_sub(started));
        let mut seen = self.lock();
        if !seen.through {
            seen.tasks.reading += took.saturating_sub(transforming);
            seen.tasks.transforming += transforming;
            let (from_ms, until_ms) = seen.from_until_ms.unwrap_or((started_ms, ended_ms));
            seen.from_until_ms = Some((from_ms.min(started_ms), until_ms.max(ended_ms)));
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::ManualClock,
        types::{MemoryChunk, MemoryRecord, Offset},
    };

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

    fn tens(ranges: &[OffsetRange], bytes_max: u64) -> Measured {
        Measured::new(Arc::new(Tens), ranges, bytes_max, Arc::new(ManualClock::at(1_000)))
    }

    fn read(measured: &Measured, range: &OffsetRange) -> Result<RangeCounts, Stop> {
        measured.read(range, &|| false, &mut |_| Flow::Continue(()))
    }

    #[test]
    fn what_was_planned_goes_through_and_more_does_not() {
        let ranges = [range(0, 3), range(1, 2), range(2, 0)];
        let measured = tens(&ranges, 40);
        read(&measured, &ranges[0]).unwrap();
        let Stop::Failed(error) = read(&measured, &ranges[1]).unwrap_err() else { panic!("it goes on") };
        assert!(error.kind().is_retryable() && error.to_string().contains("bytes=50 bytes_max=40"), "{error}");
        let seen: Vec<_> = measured.seen().into_values().collect();
        assert_eq!(seen, [(3, 30), (2, 20)]);
        // Side effects may read it all again.
        let measured = tens(&ranges, 50);
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
        let measured = tens(&ranges, 1);
        for range in &ranges {
            read(&measured, range).unwrap();
        }
    }

    /// Gives two chunks, each of them late.
    #[derive(Debug)]
    struct Slow(Arc<ManualClock>);

    impl ReadRanges for Slow {
        fn read(
            &self,
            range: &OffsetRange,
            _cancelled: &dyn Fn() -> bool,
            each: &mut dyn FnMut(Arc<Chunk>) -> Flow,
        ) -> Result<RangeCounts, Stop> {
            for _ in 0..2 {
                self.0.advance(Duration::from_millis(30));
                let chunk = MemoryChunk { topic_partition: range.topic_partition.clone(), records: Vec::new() };
                if let Flow::Break(stop) = each(Arc::new(Chunk::Memory(chunk))) {
                    return Err(stop);
                }
            }
            Ok(RangeCounts::default())
        }
    }

    #[test]
    fn reading_and_transforming_are_told_apart() {
        let clock = Arc::new(ManualClock::at(1_000));
        let ranges = [range(0, 1), range(1, 1)];
        let measured = Measured::new(Arc::new(Slow(Arc::clone(&clock))), &ranges, 50, Arc::clone(&clock) as _);
        assert!(measured.reading().is_none());
        for range in &ranges {
            let mut transform = |_| {
                clock.advance(Duration::from_millis(5));
                Flow::Continue(())
            };
            measured.read(range, &|| false, &mut transform).unwrap();
        }
        measured.through();
        read(&measured, &ranges[0]).unwrap();
        let (step, tasks, _) = measured.reading().unwrap();
        assert_eq!((step.start_time_ms, step.end_time_ms), (1_000, 1_140));
        assert_eq!((tasks.reading.as_millis(), tasks.transforming.as_millis()), (120, 20));
    }
}
