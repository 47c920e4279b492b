//! Topics of Kafka as a source.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use super::{Source, SourceSettings, group_commits::GroupCommits};
use crate::{
    commit::StoredPosition,
    config::{KafkaConfig, OnDataLoss, StartPolicy},
    error::{Error, Result},
    kafka::{KafkaProperties, OffsetLookup, TopicAnswer},
    plan::{Answers, StartPositions, TopicFilter, resolve_start, start_lookups},
    read::{DirectReader, ReadRanges, ReaderSettings, Rehearsed},
    stream::inquiry::Inquiry,
    types::{Chunk, Flow, Offset, OffsetRange, RangeCounts, Stop, TopicPartition},
};

/// What a direct stream reads.
#[derive(Debug)]
pub(in crate::stream) struct KafkaSource {
    inquiry: Inquiry,
    reader: DirectReader,
    start: StartPolicy,
    on_data_loss: OnDataLoss,
    max_rate_per_partition: Option<u64>,
    group: GroupCommits,
}

impl KafkaSource {
    /// With clients of its own. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if a property or a pattern is refused.
    pub(in crate::stream) fn new(
        kafka: &KafkaConfig,
        max_rate_per_partition: Option<u64>,
        group: &str,
        settings: &SourceSettings<'_>,
    ) -> Result<Self> {
        let properties = kafka_properties(kafka, settings.application);
        let isolation = kafka.isolation_level;
        let lookup = OffsetLookup::new(&properties, Arc::clone(settings.clock))?;
        let inquiry = Inquiry::new(lookup, TopicFilter::new(&kafka.subscription)?, isolation);
        let group = GroupCommits::new(properties.clone(), group.to_owned());
        let reader = ReaderSettings {
            properties,
            isolation,
            memory_max_bytes: settings.memory_max_bytes,
            clients: settings.reader_clients,
        };
        Ok(Self {
            inquiry,
            reader: DirectReader::new(reader, Arc::clone(settings.clock))?,
            start: kafka.start.clone(),
            on_data_loss: kafka.on_data_loss,
            max_rate_per_partition,
            group,
        })
    }
}

impl ReadRanges for KafkaSource {
    fn read(
        &self,
        range: &OffsetRange,
        cancelled: &dyn Fn() -> bool,
        each: &mut dyn FnMut(Arc<Chunk>) -> Flow,
    ) -> Result<RangeCounts, Stop> {
        self.reader.read(range, cancelled, each)
    }
}

#[async_trait]
impl Source for KafkaSource {
    fn filter(&self) -> &TopicFilter {
        self.inquiry.filter()
    }

    fn is_remote(&self) -> bool {
        true
    }

    async fn ask(&self) -> Result<Answers> {
        self.inquiry.ask().await
    }

    async fn first_positions(&self) -> Result<Option<Vec<StoredPosition>>> {
        let inquiry = &self.inquiry;
        let topics = Answers { topics: inquiry.ask_topics().await?, ..Answers::default() };
        if let Some(problem) = topics.missing_topics(inquiry.filter()).first() {
            return Err(problem.to_error());
        }
        let partitions = topics.partitions(inquiry.filter());
        let names: Vec<TopicPartition> =
            partitions.iter().map(|(topic_partition, _)| topic_partition.clone()).collect();
        let told = inquiry.ask_start(start_lookups(&self.start, &names)).await?;
        let StartPositions::Ready(offsets) = resolve_start(&self.start, &names, &told)? else { return Ok(None) };
        let position = |(topic_partition, topic_id)| {
            let until_offset = *offsets.get(&topic_partition)?;
            Some(StoredPosition { topic_partition, topic_id, until_offset, leader_epoch: None })
        };
        Ok(partitions.into_iter().map(position).collect())
    }

    fn on_data_loss(&self) -> OnDataLoss {
        self.on_data_loss
    }

    fn max_rate_per_partition(&self) -> Option<u64> {
        self.max_rate_per_partition
    }

    fn prepare(&self, ranges: &[OffsetRange], epochs: &dyn Fn(&TopicPartition) -> Option<i32>) -> Result<()> {
        self.reader.prepare(ranges, epochs)
    }

    fn rehearse(&self, rehearsed: &[Rehearsed], cancelled: &dyn Fn() -> bool) -> Result<()> {
        self.reader.rehearse(rehearsed, cancelled)
    }

    fn queued_bytes(&self) -> u64 {
        self.reader.queued_bytes()
    }

    fn commit_to_group(&self, offsets: BTreeMap<TopicPartition, Offset>) -> Result<()> {
        self.group.commit(offsets)
    }

    async fn close(&self) {
        self.group.close().await;
    }

    async fn ask_topics(&self) -> Result<Option<BTreeMap<Arc<str>, TopicAnswer>>> {
        Ok(if self.inquiry.tells_ids() { Some(self.inquiry.ask_topics().await?) } else { None })
    }

    fn expect_ids(&self) {
        self.inquiry.expect_ids();
    }

    async fn cluster_id(&self) -> Result<Option<String>> {
        self.inquiry.cluster_id().await
    }

    fn why_silent(&self, error: Error) -> Error {
        self.inquiry.why_silent(error)
    }
}

/// The clients' properties: the job's, and those that exactly-once reading depends on.
pub(in crate::stream) fn kafka_properties(kafka: &KafkaConfig, application: &str) -> KafkaProperties {
    let properties = kafka.properties.iter().map(|(key, value)| (key.clone(), value.expose().to_owned())).collect();
    let properties = KafkaProperties::new(&kafka.bootstrap_servers, application, properties);
    if kafka.allow_unsafe_options { properties.allow_dangerous() } else { properties }
}
