//! Lookups and exact reads against real brokers.

mod fuzz;
mod lookups;
mod losses;
mod ranges;
mod security;
mod stalls;
mod turns;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use directstream::{
    Offset, OffsetRange, Record, TopicPartition,
    clock::SystemClock,
    kafka::{IsolationLevel, KafkaProperties, OffsetLookup, OffsetOutcome},
    read::{DirectReader, ReadRanges, ReaderSettings},
    types::{Flow, RangeCounts, Stop},
};
use tokio::task::spawn_blocking;

use crate::support::Kafka;

pub(crate) fn properties(kafka: &Kafka, more: &[(&str, &str)]) -> KafkaProperties {
    let more = more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    KafkaProperties::new(kafka.brokers(), "reader-tests", more)
}

pub(crate) fn settings(kafka: &Kafka) -> ReaderSettings {
    ReaderSettings {
        properties: properties(kafka, &[]),
        isolation: IsolationLevel::ReadCommitted,
        memory_max_bytes: 64 * 1024 * 1024,
        clients: None,
    }
}

pub(crate) fn reader(kafka: &Kafka) -> Arc<DirectReader> {
    Arc::new(DirectReader::new(settings(kafka), SystemClock::shared()).unwrap())
}

pub(crate) fn lookup(kafka: &Kafka) -> Arc<OffsetLookup> {
    Arc::new(OffsetLookup::new(&properties(kafka, &[]), SystemClock::shared()).unwrap())
}

/// Runs what waits on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.unwrap()
}

pub(crate) fn range(topic: &str, partition: i32, from: i64, until: i64) -> OffsetRange {
    OffsetRange::new(TopicPartition::new(topic, partition), Offset::clamped(from), Offset::clamped(until))
}

/// The latest stable offset, asked until there is an answer.
pub(crate) fn latest(lookup: &OffsetLookup, topic: &str, partition: i32) -> i64 {
    let partitions = [TopicPartition::new(topic, partition)];
    let mut outcome = OffsetOutcome::NotAnswered;
    for _ in 0..100 {
        outcome = lookup.latest(&partitions, IsolationLevel::ReadCommitted)[0].outcome;
        match outcome {
            OffsetOutcome::Offset { offset, .. } => return offset.get(),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    panic!("no latest offset: {outcome:?}, {:?}", lookup.last_client_errors());
}

/// Reads a range to its end: what was found, and the records.
pub(crate) fn read(
    reader: &DirectReader,
    range: &OffsetRange,
) -> Result<(RangeCounts, Vec<Record>), directstream::Error> {
    let mut records = Vec::new();
    let counts = reader.read(range, &|| false, &mut |chunk| {
        records.extend(chunk.records());
        Flow::Continue(())
    });
    match counts {
        Ok(counts) => Ok((counts, records)),
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Enough) => panic!("nobody had enough"),
    }
}

pub(crate) fn offsets(records: &[Record]) -> Vec<i64> {
    records.iter().map(|record| record.offset().get()).collect()
}
