//! What a direct stream reads: topics, servers, start, in a program's words.

use std::collections::BTreeMap;

use crate::{
    config::{IsolationLevel, KafkaConfig, OnDataLoss, Secret, StartPolicy, Subscription},
    types::{Offset, TopicPartition},
};

/// What a direct stream reads, and how.
///
/// ```
/// use directstream::stream::DirectStream;
///
/// let lines = DirectStream::topics(["lines"]).bootstrap_servers("localhost:9092").start_latest();
/// ```
#[derive(Debug, Clone)]
pub struct DirectStream {
    pub(super) kafka: KafkaConfig,
    pub(super) max_rate_per_partition: Option<u64>,
    pub(super) group_id: Option<String>,
}

impl DirectStream {
    fn subscribed(subscription: Subscription) -> Self {
        let kafka = KafkaConfig {
            bootstrap_servers: "localhost:9092".to_owned(),
            subscription,
            start: StartPolicy::default(),
            isolation_level: IsolationLevel::default(),
            on_data_loss: OnDataLoss::default(),
            insecure: false,
            allow_unsafe_options: false,
            properties: BTreeMap::new(),
        };
        Self { kafka, max_rate_per_partition: None, group_id: None }
    }

    /// Reads these topics. Spark: `Subscribe`.
    pub fn topics<T: Into<String>>(topics: impl IntoIterator<Item = T>) -> Self {
        Self::subscribed(Subscription::Topics(topics.into_iter().map(Into::into).collect()))
    }

    /// Reads every topic whose whole name matches this regular expression; a new one joins in the batch that finds it.
    /// Spark: `SubscribePattern`.
    pub fn topic_pattern(pattern: impl Into<String>) -> Self {
        Self::subscribed(Subscription::Pattern(pattern.into()))
    }

    /// Reads these partitions alone, whatever else the topics have. Spark: `Assign`.
    ///
    /// ```
    /// use directstream::{TopicPartition, stream::DirectStream};
    ///
    /// let stream = DirectStream::partitions([TopicPartition::new("lines", 0), TopicPartition::new("lines", 3)]);
    /// ```
    pub fn partitions(partitions: impl IntoIterator<Item = TopicPartition>) -> Self {
        Self::subscribed(Subscription::Partitions(partitions.into_iter().collect()))
    }

    /// `host:port` of brokers to begin with, separated by commas. Default: `localhost:9092`. Kafka: `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap_servers(mut self, servers: impl Into<String>) -> Self {
        self.kafka.bootstrap_servers = servers.into();
        self
    }

    /// The first start begins after the last record instead of at the earliest. Kafka: `auto.offset.reset=latest`, for
    /// the first start only.
    #[must_use]
    pub fn start_latest(self) -> Self {
        self.start(StartPolicy::Latest)
    }

    /// Where the first start begins. Default: earliest. Later starts go on from the stored offsets.
    #[must_use]
    pub fn start(mut self, start: StartPolicy) -> Self {
        self.kafka.start = start;
        self
    }

    /// The first start begins at these offsets; partitions not named begin at the earliest one. Spark: the offsets that
    /// `Subscribe` and `Assign` take.
    #[must_use]
    pub fn start_at(self, offsets: impl IntoIterator<Item = (String, i32, Offset)>) -> Self {
        let mut topics: BTreeMap<String, BTreeMap<i32, Offset>> = BTreeMap::new();
        for (topic, partition, offset) in offsets {
            topics.entry(topic).or_default().insert(partition, offset);
        }
        self.start(StartPolicy::Offsets(topics))
    }

    /// The most offsets a second of one partition of this stream. Default: that of the context. Spark has one for all:
    /// `spark.streaming.kafka.maxRatePerPartition`.
    #[must_use]
    pub fn max_rate_per_partition(mut self, records_per_second: u64) -> Self {
        self.max_rate_per_partition = Some(records_per_second);
        self
    }

    /// The consumer group that [`commit_async`](crate::transform::CanCommitOffsets::commit_async) commits to. Default: one of the
    /// application's name. It is never joined nor read: a group of its own, with no members. Kafka: `group.id`.
    #[must_use]
    pub fn group_id(mut self, group: impl Into<String>) -> Self {
        self.group_id = Some(group.into());
        self
    }

    /// Which records of transactional producers are seen. Default: only committed ones. Kafka: `isolation.level`.
    #[must_use]
    pub fn isolation_level(mut self, isolation_level: IsolationLevel) -> Self {
        self.kafka.isolation_level = isolation_level;
        self
    }

    /// What happens when Kafka no longer has what was to be read. Default: the stream ends with an error. Spark:
    /// `failOnDataLoss`.
    #[must_use]
    pub fn on_data_loss(mut self, on_data_loss: OnDataLoss) -> Self {
        self.kafka.on_data_loss = on_data_loss;
        self
    }

    /// A librdkafka property by its own name, such as `security.protocol`. The keys that exactly-once reading depends on
    /// are refused at start.
    #[must_use]
    pub fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.kafka.properties.insert(key.into(), Secret::new(value));
        self
    }
}
