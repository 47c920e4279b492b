//! A [`MemoryBroker`] as a stream's source.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use super::{
    MemoryBroker,
    broker::{Log, State, no_topic},
};
use crate::{
    error::{Error, Result, Stage},
    kafka::TopicAnswer,
    plan::{Answers, TopicFilter},
    read::ReadRanges,
    stream::{Chunks, Source, StreamingContext},
    transform::DirectKafkaInputDStream,
    types::{Chunk, Flow, MemoryRecord, OffsetRange, RangeCounts, Stop, TopicPartition},
};

/// Some topics of a broker in memory.
#[derive(Debug)]
struct MemorySource {
    broker: MemoryBroker,
    filter: TopicFilter,
}

impl StreamingContext {
    /// The records of `topics` of a broker in memory, in place of [`direct_stream`](Self::direct_stream): whatever is made of it
    /// runs as it does on Kafka. The first start begins at the earliest offsets. Spark's nearest: `TestInputStream`.
    ///
    /// See [`testing`](crate::testing) for an example.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the broker has no such topic, and once the context was started or
    /// stopped.
    pub fn memory_stream<T: AsRef<str>>(
        &self,
        broker: &MemoryBroker,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<DirectKafkaInputDStream> {
        let topics: Vec<Arc<str>> = topics.into_iter().map(|topic| Arc::from(topic.as_ref())).collect();
        // Kafka may get a topic later. A manual clock would wait for it for ever.
        if let Some(missing) = topics.iter().find(|topic| !broker.state().topics.contains_key(*topic)) {
            return Err(no_topic(missing));
        }
        self.add_source(Arc::new(MemorySource { broker: broker.clone(), filter: TopicFilter::Topics(topics) }))
    }
}

impl State {
    fn topic_answers(&self, filter: &TopicFilter) -> BTreeMap<Arc<str>, TopicAnswer> {
        let of = |name: &Arc<str>| match self.topics.get(name) {
            _ if self.is_away => TopicAnswer::NotAnswered,
            None => TopicAnswer::Unknown,
            Some(topic) => TopicAnswer::Topic {
                partitions: i32::try_from(topic.logs.len()).unwrap_or(i32::MAX),
                id: Some(topic.id.clone()),
            },
        };
        filter.names().unwrap_or_default().iter().map(|name| (Arc::clone(name), of(name))).collect()
    }

    fn log(&self, topic_partition: &TopicPartition) -> Option<&Log> {
        let logs = &self.topics.get(&topic_partition.topic)?.logs;
        logs.get(usize::try_from(topic_partition.partition).ok()?)
    }
}

#[async_trait]
impl Source for MemorySource {
    fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    async fn ask(&self) -> Result<Answers> {
        let state = self.broker.state();
        let mut answers = Answers { topics: state.topic_answers(&self.filter), ..Answers::default() };
        for (topic_partition, _) in answers.partitions(&self.filter) {
            if let Some(log) = state.log(&topic_partition) {
                answers.earliest.insert(topic_partition.clone(), log.earliest);
                answers.latest.insert(topic_partition, log.latest);
            }
        }
        Ok(answers)
    }

    async fn ask_topics(&self) -> Result<Option<BTreeMap<Arc<str>, TopicAnswer>>> {
        Ok(Some(self.broker.state().topic_answers(&self.filter)))
    }
}

impl MemorySource {
    /// The records of a range, copied: the broker is not held while they are worked on.
    fn records(&self, range: &OffsetRange) -> Result<Vec<MemoryRecord>> {
        let state = self.broker.state();
        if state.is_away {
            return Err(Error::unavailable("the broker in memory is away"));
        }
        let log = state.log(&range.topic_partition);
        let log = log.ok_or_else(|| Error::unavailable("the topic or partition does not exist"))?;
        if log.earliest > range.from_offset {
            let text = "records were deleted before they were read reason=retention";
            return Err(Error::offsets_lost(format!("{text} earliest_offset={}", log.earliest)));
        }
        if log.latest < range.until_offset {
            let text = "the log ends before the range: the topic was created again reason=truncated";
            return Err(Error::offsets_lost(format!("{text} latest_offset={}", log.latest)));
        }
        Ok(log.records.range(range.from_offset..range.until_offset).map(|(_, record)| record.clone()).collect())
    }
}

impl ReadRanges for MemorySource {
    fn read(
        &self,
        range: &OffsetRange,
        cancelled: &dyn Fn() -> bool,
        each: &mut dyn FnMut(Arc<Chunk>) -> Flow,
    ) -> Result<RangeCounts, Stop> {
        let failed = |error: Error| Stop::Failed(error.at(Stage::Read).in_range(range.clone()));
        let records = self.records(range).map_err(failed)?;
        let mut chunks = Chunks::new(range, cancelled, each);
        for record in records {
            if let Flow::Break(stop) = chunks.take(record) {
                return Err(stop);
            }
        }
        chunks.finish()
    }
}
