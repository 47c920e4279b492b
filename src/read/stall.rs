//! Why does a range not end? Some ranges cannot be completed by reading.
//!
//! Seen on Kafka 3.9: a compacted topic, aborted records right before an open transaction, cleaned away. Between the last
//! record and the open transaction nothing is left that a fetch could return, and at the fetch position nothing moves: no
//! record, no EOF, no new position for as long as that transaction is open. A second consumer that reads uncommitted
//! records sees the open transaction's first record, which proves that nothing lies before it.
//!
//! A range is never closed by time alone.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    clock::Clock,
    error::{Error, Stage},
    kafka::{
        Client, Entry, IsolationLevel, KafkaProperties, MessageBatch, OffsetLookup, OffsetOutcome, PartitionQueue,
        Place, QueueLimits,
    },
    types::OffsetRange,
};

/// How long the second consumer may take to see the first record or the end.
const PROBE_LIMIT: Duration = Duration::from_secs(3);
const PROBE_STEP: Duration = Duration::from_millis(20);
/// The second consumer looks for one record.
const PROBE_BUDGET_BYTES: u64 = 4 * 1024 * 1024;

/// What was found out.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Nothing lies between the frontier and the range's end.
    Empty,
    /// There are records that the reader does not get: it has to start again.
    Data,
    /// The brokers do not answer.
    NoAnswer,
    /// The brokers answer, and nothing explains why nothing comes.
    Unexplained,
    /// The range cannot be read.
    Failed(Error),
}

/// Asks with clients of its own, made when they are first needed.
#[derive(Debug)]
pub(super) struct Prober {
    properties: KafkaProperties,
    isolation: IsolationLevel,
    clock: Arc<dyn Clock>,
    lookup: Mutex<Option<Arc<OffsetLookup>>>,
}

impl Prober {
    pub(super) fn new(properties: KafkaProperties, isolation: IsolationLevel, clock: Arc<dyn Clock>) -> Self {
        Self { properties, isolation, clock, lookup: Mutex::new(None) }
    }

    /// A lookup, unless none can be made.
    pub(super) fn lookup(&self) -> Option<Arc<OffsetLookup>> {
        let mut lookup = self.lookup.lock().unwrap_or_else(PoisonError::into_inner);
        if lookup.is_none() {
            *lookup = OffsetLookup::new(&self.properties, Arc::clone(&self.clock)).ok().map(Arc::new);
        }
        lookup.clone()
    }

    /// Why nothing of `range` comes from `from` on.
    pub(super) fn ask(&self, range: &OffsetRange, from: i64) -> Verdict {
        let Some(lookup) = self.lookup() else { return Verdict::NoAnswer };
        let partitions = std::slice::from_ref(&range.topic_partition);
        let outcome_of = |answers: Vec<crate::kafka::PartitionOffset>| {
            answers.first().map_or(OffsetOutcome::NotAnswered, |one| one.outcome)
        };
        let earliest = match outcome_of(lookup.earliest(partitions, self.isolation)) {
            OffsetOutcome::Offset { offset, .. } => offset,
            other => return without_offset(other, range),
        };
        let latest = match outcome_of(lookup.latest(partitions, self.isolation)) {
            OffsetOutcome::Offset { offset, .. } => offset,
            other => return without_offset(other, range),
        };
        if earliest.get() > from {
            return Verdict::Failed(lost(
                range,
                format!("records were deleted before they were read reason=retention earliest_offset={earliest}"),
            ));
        }
        if latest < range.until_offset {
            return Verdict::Failed(lost(
                range,
                format!(
                    "the log ends before the range does: it was truncated, or the topic was created again \
                 reason=truncated latest_offset={latest}"
                ),
            ));
        }
        self.probe(range, from)
    }

    /// A second consumer looks for the first record at or after `from`, committed or not.
    fn probe(&self, range: &OffsetRange, from: i64) -> Verdict {
        let limits = QueueLimits::for_budget(PROBE_BUDGET_BYTES, 1);
        let Ok(client) = self.properties.reader(IsolationLevel::ReadUncommitted, limits) else {
            return Verdict::Unexplained;
        };
        self.first_record(&client, range, from).unwrap_or(Verdict::Unexplained)
    }

    fn first_record(&self, client: &Arc<Client>, range: &OffsetRange, from: i64) -> Option<Verdict> {
        let topic_partition = &range.topic_partition;
        let mut queue = PartitionQueue::open(client, topic_partition).ok()?;
        client.assign(&[Place { topic_partition, offset: from, leader_epoch: None }]).ok()?;
        let until = range.until_offset.get();
        let started = self.clock.monotonic();
        let mut entries = Vec::new();
        while self.clock.monotonic().saturating_sub(started) < PROBE_LIMIT {
            queue.take(1, PROBE_STEP, &mut entries);
            for entry in entries.drain(..) {
                let offset = match entry {
                    Entry::Records(batch) => first_offset(&batch),
                    // Everything below the end of the log was shown to this consumer, but markers.
                    Entry::Eof { offset } if offset >= until => Some(offset),
                    Entry::Eof { .. } => None,
                    Entry::Failed { .. } => return None,
                };
                match offset {
                    Some(offset) if offset >= until => return Some(Verdict::Empty),
                    Some(offset) if offset >= from => return Some(self.data(offset)),
                    _ => {}
                }
            }
        }
        None
    }

    fn data(&self, offset: i64) -> Verdict {
        tracing::debug!(offset, "an uncommitted read finds a record that the reader does not get");
        Verdict::Data
    }
}

fn first_offset(batch: &MessageBatch) -> Option<i64> {
    (!batch.is_empty()).then(|| batch.offset(0).get())
}

fn without_offset(outcome: OffsetOutcome, range: &OffsetRange) -> Verdict {
    match outcome {
        OffsetOutcome::Unknown | OffsetOutcome::Unauthorized => {
            Verdict::Failed(Error::unavailable(outcome.to_string()).at(Stage::Read).in_range(range.clone()))
        }
        _ => Verdict::NoAnswer,
    }
}

fn lost(range: &OffsetRange, message: String) -> Error {
    Error::offsets_lost(message).at(Stage::Read).in_range(range.clone())
}
