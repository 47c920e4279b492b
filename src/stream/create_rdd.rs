//! Ranges as an RDD of their own, outside any stream.

use std::sync::{Arc, Mutex, PoisonError};

use super::{DirectStream, source::kafka_properties};
use crate::{
    clock::SystemClock,
    config::MEMORY_MAX_DEFAULT,
    error::{Error, Result},
    read::{DirectReader, KafkaRdd, ReadRanges, ReaderSettings},
    transform::{BatchScope, DirectRdd, Input, LocalRunner},
    types::{BatchInfo, BatchTime, Chunk, Compute, Flow, OffsetRange, RangeCounts, Record, Stop, Task},
};

/// Exactly the records of `ranges`, as an RDD whose partition i is range i: to look at a past batch again, or at any piece of
/// a topic. Nothing is stored and no stream is needed; of `stream` only the way to the cluster and the isolation level
/// count. Each action reads Kafka anew. Spark: `KafkaUtils.createRDD`.
///
/// It is an [`Rdd`](crate::transform::Rdd) like that of a batch, so the same function serves a job over a past range and, by
/// [`transform`](crate::transform::DStream::transform), a stream: see the example `batch_and_stream`.
///
/// Actions wait for Kafka on the calling thread: call them where that is allowed, such as a multi-thread runtime.
///
/// ```no_run
/// use directstream::{Offset, OffsetRange, TopicPartition, stream::{DirectStream, create_rdd}};
///
/// # fn example() -> directstream::Result<()> {
/// let range = OffsetRange::new(TopicPartition::new("orders", 0), Offset::clamped(40), Offset::clamped(45));
/// let records = create_rdd(&DirectStream::topics(["orders"]), [range])?;
/// println!("{} records", records.count()?);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) if a property is refused, or two ranges are of the same partition. What is
/// wrong with a range itself is told by the action that reads it.
pub fn create_rdd(stream: &DirectStream, ranges: impl IntoIterator<Item = OffsetRange>) -> Result<DirectRdd> {
    let ranges: Arc<[OffsetRange]> = ranges.into_iter().collect();
    for (index, range) in ranges.iter().enumerate() {
        if ranges[..index].iter().any(|other| other.topic_partition == range.topic_partition) {
            return Err(Error::config("two ranges are of the same partition").on(range.topic_partition.clone()));
        }
    }
    let settings = ReaderSettings {
        properties: kafka_properties(&stream.kafka, "directstream"),
        isolation: stream.kafka.isolation_level,
        memory_max_bytes: MEMORY_MAX_DEFAULT,
        clients: None,
    };
    let reader = DirectReader::new(settings, SystemClock::shared())?;
    let reader: Arc<dyn ReadRanges> =
        Arc::new(Together { reader, ranges: Arc::clone(&ranges), prepared: Mutex::default() });
    let records: Arc<dyn Compute<Record>> = Arc::new(KafkaRdd::new(reader, Arc::clone(&ranges), false));
    let input = Input { records, ranges: Arc::clone(&ranges) };
    let batch = BatchInfo { batch_seq: 0, batch_time: BatchTime::from_ms(0), ranges };
    Ok(DirectRdd::of(input, &BatchScope::new(Task::new(batch), Arc::new(LocalRunner::per_core()), Vec::new())))
}

/// Prepares all ranges before the first of them is read, so that their partitions share the memory budget.
#[derive(Debug)]
struct Together {
    reader: DirectReader,
    ranges: Arc<[OffsetRange]>,
    prepared: Mutex<bool>,
}

impl ReadRanges for Together {
    fn read(
        &self,
        range: &OffsetRange,
        cancelled: &dyn Fn() -> bool,
        each: &mut dyn FnMut(Arc<Chunk>) -> Flow,
    ) -> Result<RangeCounts, Stop> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if !*prepared && !range.is_empty() {
            self.reader.prepare(&self.ranges, &|_| None).map_err(Stop::Failed)?;
            *prepared = true;
        }
        drop(prepared);
        self.reader.read(range, cancelled, each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::ErrorKind,
        types::{Offset, TopicPartition},
    };

    #[test]
    fn two_ranges_of_one_partition_are_refused() {
        let range = |partition, from, until| {
            OffsetRange::new(TopicPartition::new("t", partition), Offset::clamped(from), Offset::clamped(until))
        };
        let error =
            create_rdd(&DirectStream::topics(["t"]), [range(0, 0, 5), range(1, 0, 5), range(0, 5, 9)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let rdd = create_rdd(&DirectStream::topics(["t"]), [range(0, 5, 5), range(1, 7, 7)]).unwrap();
        assert_eq!((rdd.partitions(), rdd.count().unwrap()), (2, 0));
    }
}
