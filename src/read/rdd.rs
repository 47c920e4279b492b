use std::{
    fmt,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::ReadRanges;
use crate::{
    error::{Error, Stage},
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
            each(chunk)
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
