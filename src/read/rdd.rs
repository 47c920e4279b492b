//! The RDD over the ranges of one batch: reading starts where its elements are asked for.

use std::{
    fmt,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::ReadRanges;
use crate::{
    error::{Error, Stage},
    failpoint,
    types::{Chunk, Compute, Flow, OffsetRange, RangeCounts, Record, ShuffleStage, Stop, Task},
};

/// The RDD over the ranges of one batch: partition i is range i, and every range is read where its elements are asked for.
///
/// An empty range opens nothing. What each complete read found is kept for the driver, which commits a batch only if
/// `records + gaps` is the range's offset count for every range. With `keep_chunks` the records of a partition stay until
/// the RDD is dropped, so that several actions read Kafka once; without, a second action reads again, and fails if it does
/// not find what the first one found.
pub struct KafkaRdd {
    reader: Arc<dyn ReadRanges>,
    ranges: Arc<[OffsetRange]>,
    partitions: Box<[Mutex<Partition>]>,
    keep_chunks: bool,
}

#[derive(Default)]
struct Partition {
    counts: Option<RangeCounts>,
    chunks: Option<Vec<Arc<Chunk>>>,
}

impl KafkaRdd {
    /// The RDD over `ranges`.
    #[must_use]
    pub fn new(reader: Arc<dyn ReadRanges>, ranges: Arc<[OffsetRange]>, keep_chunks: bool) -> Self {
        let partitions = ranges.iter().map(|_| Mutex::default()).collect();
        Self { reader, ranges, partitions, keep_chunks }
    }

    /// The ranges, aligned with the partitions.
    #[must_use]
    pub fn offset_ranges(&self) -> &Arc<[OffsetRange]> {
        &self.ranges
    }

    /// What reading each range found; `None` where it was not read to its end.
    #[must_use]
    pub fn counts(&self) -> Vec<Option<RangeCounts>> {
        self.ranges
            .iter()
            .zip(&self.partitions)
            .map(
                |(range, partition)| {
                    if range.is_empty() { Some(RangeCounts::default()) } else { lock(partition).counts }
                },
            )
            .collect()
    }

    /// Reads the range of `partition` to its end, unless that has been done: the batch commits its offsets, so all of its
    /// records must have been there, even if no action asked for all of them.
    ///
    /// # Errors
    /// What reading failed with.
    pub fn complete(&self, partition: usize, task: &Task) -> Result<RangeCounts, Error> {
        if let Some(Some(counts)) = self.counts().get(partition) {
            return Ok(*counts);
        }
        match self.chunks(partition, task, &mut |_| Flow::Continue(())) {
            Flow::Continue(()) => {}
            Flow::Break(Stop::Failed(error)) => return Err(error),
            Flow::Break(Stop::Enough) => return Err(Error::internal("a complete read stopped early").at(Stage::Read)),
        }
        let counts = self.partitions.get(partition).and_then(|partition| lock(partition).counts);
        counts.ok_or_else(|| Error::internal(format!("no such partition partition={partition}")).at(Stage::Read))
    }

    /// The elements of `partition` by the chunk: for operations that work on whole chunks.
    pub fn chunks(&self, partition: usize, task: &Task, each: &mut dyn FnMut(Arc<Chunk>) -> Flow) -> Flow {
        let (Some(range), Some(slot)) = (self.ranges.get(partition), self.partitions.get(partition)) else {
            return Flow::Continue(());
        };
        if range.is_empty() {
            return Flow::Continue(());
        }
        let kept = lock(slot).chunks.clone();
        if let Some(chunks) = kept {
            return chunks.into_iter().try_for_each(each);
        }
        let mut keep = Vec::new();
        let read = self.reader.read(range, &|| task.is_cancelled(), &mut |chunk| {
            if self.keep_chunks {
                keep.push(Arc::clone(&chunk));
            }
            each(chunk)?;
            // In the middle of a range: one chunk of it has gone through the user's operations.
            failpoint::hit("read::chunk").map_or_else(|error| Flow::Break(Stop::Failed(error)), Flow::Continue)
        });
        let counts = match read {
            Ok(counts) => counts,
            Err(stop) => return Flow::Break(stop),
        };
        let mut slot = lock(slot);
        if let Some(first) = slot.counts
            && first.checksum != counts.checksum
        {
            // Compaction, or a lost log: whatever used the first read cannot be committed with what uses this one.
            let error = Error::unavailable("the second read of a range found other records than the first one");
            return Flow::Break(Stop::Failed(error.at(Stage::Read).in_range(range.clone())));
        }
        slot.counts = Some(counts);
        if self.keep_chunks {
            slot.chunks = Some(keep);
        }
        Flow::Continue(())
    }
}

impl Compute<Record> for KafkaRdd {
    fn partitions(&self) -> usize {
        self.ranges.len()
    }

    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut(Record) -> Flow) -> Flow {
        self.chunks(partition, task, &mut |chunk| {
            for record in chunk.records() {
                if let ControlFlow::Break(stop) = each(record) {
                    return Flow::Break(stop);
                }
            }
            Flow::Continue(())
        })
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        Vec::new()
    }
}

impl fmt::Debug for KafkaRdd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaRdd").field("ranges", &self.ranges).finish_non_exhaustive()
    }
}

fn lock(partition: &Mutex<Partition>) -> MutexGuard<'_, Partition> {
    partition.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::types::{BatchInfo, BatchTime, MemoryChunk, MemoryRecord, Offset, TopicPartition};

    /// Records at every even offset, three to a chunk.
    #[derive(Debug, Default)]
    struct Even {
        reads: AtomicUsize,
        /// Whether each read finds something else.
        fickle: bool,
    }

    impl ReadRanges for Even {
        fn read(
            &self,
            range: &OffsetRange,
            cancelled: &dyn Fn() -> bool,
            each: &mut dyn FnMut(Arc<Chunk>) -> Flow,
        ) -> Result<RangeCounts, Stop> {
            let reads = self.reads.fetch_add(1, Ordering::SeqCst);
            let offsets: Vec<_> = (range.from_offset.get()..range.until_offset.get()).filter(|o| o % 2 == 0).collect();
            for offsets in offsets.chunks(3) {
                if cancelled() {
                    return Err(Stop::Failed(Error::unavailable("cancelled")));
                }
                let record = |&offset| MemoryRecord { offset: Offset::clamped(offset), ..MemoryRecord::default() };
                let records = offsets.iter().map(record).collect();
                let chunk = MemoryChunk { topic_partition: range.topic_partition.clone(), records };
                if let Flow::Break(stop) = each(Arc::new(Chunk::Memory(chunk))) {
                    return Err(stop);
                }
            }
            let records = u64::try_from(offsets.len()).unwrap();
            let checksum = if self.fickle { u64::try_from(reads).unwrap() } else { 7 };
            Ok(RangeCounts { records, gaps: range.count() - records, checksum, ..RangeCounts::default() })
        }
    }

    fn rdd(reader: &Arc<Even>, keep_chunks: bool) -> (KafkaRdd, Task) {
        let range = |p, from, until| {
            OffsetRange::new(TopicPartition::new("t", p), Offset::clamped(from), Offset::clamped(until))
        };
        let ranges: Arc<[_]> = [range(0, 0, 10), range(1, 4, 4), range(2, 5, 7)].into();
        let batch = BatchInfo { batch_seq: 1, batch_time: BatchTime::from_ms(1), ranges: Arc::clone(&ranges) };
        (KafkaRdd::new(Arc::clone(reader) as _, ranges, keep_chunks), Task::new(batch))
    }

    fn collect(rdd: &KafkaRdd, task: &Task, partition: usize, max: usize) -> (Vec<i64>, Flow) {
        let mut seen = Vec::new();
        let flow = rdd.compute(partition, task, &mut |record: Record| {
            seen.push(record.offset().get());
            if seen.len() == max { Flow::Break(Stop::Enough) } else { Flow::Continue(()) }
        });
        (seen, flow)
    }

    #[test]
    fn partition_i_is_range_i_and_an_empty_range_opens_nothing() {
        let reader = Arc::new(Even::default());
        let (rdd, task) = rdd(&reader, false);
        assert_eq!(rdd.partitions(), 3);
        let all: Vec<_> = (0..3).map(|p| collect(&rdd, &task, p, usize::MAX).0).collect();
        assert_eq!(all, [vec![0, 2, 4, 6, 8], vec![], vec![6]]);
        assert_eq!(reader.reads.load(Ordering::SeqCst), 2);
        let counts: Vec<_> = rdd.counts().into_iter().map(|c| c.map(|c| (c.records, c.gaps))).collect();
        assert_eq!(counts, [Some((5, 5)), Some((0, 0)), Some((1, 1))]);
    }

    #[test]
    fn a_read_that_stopped_early_has_no_counts_until_it_is_completed() {
        let reader = Arc::new(Even::default());
        let (rdd, task) = rdd(&reader, true);
        let (seen, flow) = collect(&rdd, &task, 0, 2);
        assert!(seen == [0, 2] && matches!(flow, Flow::Break(Stop::Enough)));
        assert_eq!(rdd.counts()[0], None);
        assert_eq!(rdd.complete(0, &task).unwrap().records, 5);
        assert_eq!(rdd.complete(0, &task).unwrap().records, 5);
        assert_eq!(reader.reads.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn kept_chunks_are_read_once() {
        for (keep_chunks, reads) in [(true, 1), (false, 3)] {
            let reader = Arc::new(Even::default());
            let (rdd, task) = rdd(&reader, keep_chunks);
            for _ in 0..3 {
                assert_eq!(collect(&rdd, &task, 0, usize::MAX).0, [0, 2, 4, 6, 8]);
            }
            assert_eq!(reader.reads.load(Ordering::SeqCst), reads);
        }
    }

    #[test]
    fn a_second_read_that_differs_fails() {
        let reader = Arc::new(Even { fickle: true, ..Even::default() });
        let (rdd, task) = rdd(&reader, false);
        assert!(matches!(collect(&rdd, &task, 0, usize::MAX).1, Flow::Continue(())));
        let Flow::Break(Stop::Failed(error)) = collect(&rdd, &task, 0, usize::MAX).1 else { panic!() };
        assert!(error.to_string().contains("other records"), "{error}");
    }

    #[test]
    fn a_cancelled_task_stops_reading() {
        let reader = Arc::new(Even::default());
        let (rdd, task) = rdd(&reader, false);
        task.cancel();
        assert!(matches!(collect(&rdd, &task, 0, usize::MAX).1, Flow::Break(Stop::Failed(_))));
    }
}
