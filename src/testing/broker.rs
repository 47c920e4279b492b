//! Topics in memory, which a stream reads as it reads Kafka's.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::producer_record::{ProducerRecord, partition_of};
use crate::{
    error::{Error, Result},
    types::{MemoryRecord, Offset, TopicId, TopicPartition},
};

/// Kafka's topics in memory: partitions of records with offsets, which are read by ranges.
///
/// Clones are the same broker. It is no part of a context: what was sent stays there when a context ends, and the next one goes
/// on from the offsets that its store has. [`memory_stream`](crate::stream::StreamingContext::memory_stream) reads it.
///
/// ```
/// use directstream::{Offset, testing::{MemoryBroker, ProducerRecord}};
///
/// let broker = MemoryBroker::new();
/// broker.create_topic("orders", 2)?;
/// let at = broker.send(ProducerRecord::new("orders", "12.50").key("ann").partition(1))?;
/// assert_eq!((at.topic_partition.partition, at.from_offset), (1, Offset::ZERO));
/// assert_eq!(broker.latest("orders", 1), Some(Offset::clamped(1)));
/// # Ok::<(), directstream::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct MemoryBroker {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) topics: BTreeMap<Arc<str>, Topic>,
    /// Whether nobody answers.
    pub(super) is_away: bool,
    /// How many topics were created: what their ids are made of.
    created: u64,
}

pub(super) struct Topic {
    pub(super) id: TopicId,
    pub(super) logs: Vec<Log>,
    /// How many records without a key came.
    keyless: usize,
}

/// One partition.
#[derive(Default)]
pub(super) struct Log {
    pub(super) earliest: Offset,
    pub(super) latest: Offset,
    pub(super) records: BTreeMap<Offset, MemoryRecord>,
}

impl MemoryBroker {
    /// A broker without topics.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a topic of so many partitions, or gives one that is there more partitions.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there would be none, or fewer than there are.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let mut state = self.state();
        let known = state.topics.get(topic).map_or(0, |known| known.logs.len());
        let wanted = usize::try_from(partitions).unwrap_or(0);
        if wanted == 0 || wanted < known {
            let text = "a topic has at least one partition, and never fewer than it had";
            return Err(Error::config(format!("{text} topic={topic} partitions={partitions} known={known}")));
        }
        if known == 0 {
            state.created += 1;
        }
        let id = TopicId::new(format!("{:022}", state.created));
        let new = || Topic { id, logs: Vec::new(), keyless: 0 };
        state.topics.entry(topic.into()).or_insert_with(new).logs.resize_with(wanted, Log::default);
        Ok(())
    }

    /// Deletes a topic. Created again, it has another id: a stream that read it has lost its offsets.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no such topic.
    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        self.state().topics.remove(topic).map(drop).ok_or_else(|| no_topic(topic))
    }

    /// Appends a record; gives its place, a range of one offset. Kafka: `KafkaProducer.send`.
    ///
    /// ```
    /// # use directstream::testing::MemoryBroker;
    /// let broker = MemoryBroker::new();
    /// broker.create_topic("orders", 1)?;
    /// broker.send(("orders", "a value"))?;
    /// broker.send(("orders", "a key", "a value"))?;
    /// # Ok::<(), directstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no such topic or partition.
    pub fn send(&self, record: impl Into<ProducerRecord>) -> Result<crate::OffsetRange> {
        let ProducerRecord { topic, partition, key, value, timestamp_ms, headers } = record.into();
        let mut state = self.state();
        let (name, found) =
            state.topics.iter_mut().find(|(name, _)| ***name == *topic).ok_or_else(|| no_topic(&topic))?;
        let partitions = i32::try_from(found.logs.len()).unwrap_or(i32::MAX);
        let partition = match (partition, &key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of(key, partitions),
            (None, None) => {
                found.keyless += 1;
                i32::try_from((found.keyless - 1) % found.logs.len().max(1)).unwrap_or(0)
            }
        };
        let topic_partition = TopicPartition::new(Arc::clone(name), partition);
        let log = found.log(&topic_partition)?;
        let offset = log.latest;
        log.records.insert(offset, MemoryRecord { offset, key, value, headers, timestamp_ms });
        log.latest = offset.next();
        Ok(crate::OffsetRange::new(topic_partition, offset, log.latest))
    }

    /// Appends `offsets` offsets without a record, as markers of transactions, aborted and compacted records leave them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no such topic or partition.
    pub fn send_gap(&self, topic: &str, partition: i32, offsets: u64) -> Result<()> {
        self.change(topic, partition, |log| log.latest = log.latest.advanced_by(offsets))
    }

    /// Removes the records below `offset`, as retention does. Kafka: `Admin.deleteRecords`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no such topic or partition.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: Offset) -> Result<()> {
        self.change(topic, partition, |log| {
            log.earliest = offset.min(log.latest).max(log.earliest);
            log.records = log.records.split_off(&log.earliest);
        })
    }

    /// Nobody answers from now on, or somebody does again: neither questions nor reads.
    pub fn set_away(&self, is_away: bool) {
        self.state().is_away = is_away;
    }

    /// The first offset of a partition that is there; `None` if the partition is not.
    #[must_use]
    pub fn earliest(&self, topic: &str, partition: i32) -> Option<Offset> {
        self.of(topic, partition, |log| log.earliest)
    }

    /// The offset after the last one of a partition; `None` if the partition is not there.
    #[must_use]
    pub fn latest(&self, topic: &str, partition: i32) -> Option<Offset> {
        self.of(topic, partition, |log| log.latest)
    }

    fn of<R>(&self, topic: &str, partition: i32, look: impl FnOnce(&Log) -> R) -> Option<R> {
        let state = self.state();
        state.topics.get(topic)?.logs.get(usize::try_from(partition).ok()?).map(look)
    }

    fn change(&self, topic: &str, partition: i32, change: impl FnOnce(&mut Log)) -> Result<()> {
        let mut state = self.state();
        let found = state.topics.get_mut(topic).ok_or_else(|| no_topic(topic))?;
        change(found.log(&TopicPartition::new(topic, partition))?);
        Ok(())
    }
}

impl Topic {
    fn log(&mut self, topic_partition: &TopicPartition) -> Result<&mut Log> {
        let index = usize::try_from(topic_partition.partition).ok();
        let log = index.and_then(|index| self.logs.get_mut(index));
        log.ok_or_else(|| Error::config("the topic has no such partition").on(topic_partition.clone()))
    }
}

/// Nobody created it.
pub(super) fn no_topic(topic: &str) -> Error {
    Error::config(format!("the broker in memory has no such topic: create it first topic={topic}"))
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let partitions = state.topics.iter().map(|(name, topic)| (name, topic.logs.len()));
        f.debug_map().entries(partitions).finish()
    }
}
