//! A job as plain data: every key of a job file, with its default.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{Origins, Secret, StoreUrl, TracesConfig};
pub use crate::kafka::IsolationLevel;
use crate::types::{Offset, TableSpec, TopicPartition};

/// `stream.batch_interval` when it is not given. Spark has no default; a second keeps the cost of a commit small.
pub const BATCH_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// `stream.min_rate_per_partition` when it is not given, in records per batch: Spark's own default.
pub const MIN_RATE_PER_PARTITION_DEFAULT: u64 = 1;

/// `stream.memory_max` when it is not given: 512 MiB.
pub const MEMORY_MAX_DEFAULT: u64 = 512 << 20;

/// `stream.start_timeout` when it is not given: an electing cluster or a starting database is back by then.
pub const START_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// `stream.unavailable_max` when it is not given: longer than a restart or a failover, shorter than a night.
pub const UNAVAILABLE_MAX_DEFAULT: Duration = Duration::from_secs(10 * 60);

/// `stream.batch_deadline` when it is not given: far longer than a batch should take, short enough for somebody to notice.
pub const BATCH_DEADLINE_DEFAULT: Duration = Duration::from_secs(30 * 60);

/// `stream.max_failures` when it is not given: far more than what passes by itself, as a restart of a server does.
pub const MAX_FAILURES_DEFAULT: u64 = 1000;

/// `stream.failures_validity_interval` when it is not given: one hour.
pub const FAILURES_VALIDITY_INTERVAL_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// `store.ledger_retention` when it is not given: 30 days.
pub const LEDGER_RETENTION_DEFAULT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// `report.retained_batches` when it is not given: Spark's own default.
pub const RETAINED_BATCHES_DEFAULT: usize = 1000;

/// The port of `report.listen` when it is not given.
pub const LISTEN_PORT_DEFAULT: u16 = 9464;

/// A job: which topics go into which tables, and how. Plain data: a file can say it, and so can a Rust program.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The application id: offsets, ledger, state and dead letters are kept under it.
    pub name: String,
    /// Where the records come from.
    pub kafka: KafkaConfig,
    /// How batches are cut.
    pub stream: StreamConfig,
    /// How records are understood.
    pub input: InputConfig,
    /// Where results and offsets are kept.
    pub store: StoreConfig,
    /// The tables that are written, all in the batch's one transaction.
    pub outputs: Vec<TableSpec>,
    /// What is told about the run.
    pub report: ReportConfig,
    /// Where each value came from; what is not in it is a default.
    pub origins: Origins,
}

/// `[kafka]`
#[derive(Debug, Clone, PartialEq)]
pub struct KafkaConfig {
    /// `host:port` of brokers to begin with, separated by commas.
    pub bootstrap_servers: String,
    /// Which topics.
    pub subscription: Subscription,
    /// Where reading begins, at the first start only.
    pub start: StartPolicy,
    /// Which records of transactional producers are seen.
    pub isolation_level: IsolationLevel,
    /// What happens when Kafka no longer has what was to be read.
    pub on_data_loss: OnDataLoss,
    /// Whether connections may skip the check of the server's certificate or name.
    pub insecure: bool,
    /// Whether properties pass that load code, run commands or print secrets. No key of the file: only the command line's
    /// `--allow-unsafe-kafka-options` says so.
    pub allow_unsafe_options: bool,
    /// librdkafka's own keys, passed through. Their values can be secrets.
    pub properties: BTreeMap<String, Secret>,
}

/// Which topics are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscription {
    /// These topics.
    Topics(Vec<String>),
    /// Every topic whose whole name matches this regular expression.
    Pattern(String),
    /// These partitions alone; only a program says so.
    Partitions(BTreeSet<TopicPartition>),
}

/// Where reading begins at the first start. Later starts go on from the stored offsets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StartPolicy {
    /// At the first record that Kafka still has.
    #[default]
    Earliest,
    /// After the last record.
    Latest,
    /// Nowhere: without stored offsets the start is refused.
    None,
    /// At the first record whose timestamp is this or later; milliseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// At these offsets, by topic and partition; partitions not named begin at the earliest offset.
    Offsets(BTreeMap<String, BTreeMap<i32, Offset>>),
}

/// What happens when Kafka no longer has what was to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDataLoss {
    /// The job stops and says what is lost.
    #[default]
    Fail,
    /// The lost range is recorded in the batch's transaction, and reading goes on after it.
    Skip,
}

impl OnDataLoss {
    /// The file's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// `[stream]`
#[derive(Debug, Clone, PartialEq)]
pub struct StreamConfig {
    /// The time from batch to batch.
    pub batch_interval: Duration,
    /// The most offsets a second of one partition; `None` is no limit but memory.
    pub max_rate_per_partition: Option<u64>,
    /// The fewest records of one partition that a rate limit leaves in a batch.
    pub min_rate_per_partition: u64,
    /// The one budget for prefetch, records in flight and shuffles, in bytes.
    pub memory_max: u64,
    /// Rates that follow the speed of processing.
    pub backpressure: BackpressureConfig,
    /// How long servers may take to answer at start.
    pub start_timeout: Duration,
    /// How long servers may be away while the job runs.
    pub unavailable_max: Duration,
    /// How long reading and transforming one batch may take, how long its side effects, and how long the user's own SQL.
    pub batch_deadline: Duration,
    /// How many batches may fail at first within `failures_validity_interval`.
    pub max_failures: u64,
    /// How long a failure counts.
    pub failures_validity_interval: Duration,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            batch_interval: BATCH_INTERVAL_DEFAULT,
            max_rate_per_partition: None,
            min_rate_per_partition: MIN_RATE_PER_PARTITION_DEFAULT,
            memory_max: MEMORY_MAX_DEFAULT,
            backpressure: BackpressureConfig::default(),
            start_timeout: START_TIMEOUT_DEFAULT,
            unavailable_max: UNAVAILABLE_MAX_DEFAULT,
            batch_deadline: BATCH_DEADLINE_DEFAULT,
            max_failures: MAX_FAILURES_DEFAULT,
            failures_validity_interval: FAILURES_VALIDITY_INTERVAL_DEFAULT,
        }
    }
}

/// `stream.backpressure`: Spark's `spark.streaming.backpressure.*`.
#[derive(Debug, Clone, PartialEq)]
pub struct BackpressureConfig {
    /// Whether the rate of all partitions together follows the speed of processing. Default: no. Spark: `enabled`.
    pub enabled: bool,
    /// The total rate before there is an estimate, in records a second; `None` is no limit but memory. Spark: `initialRate`.
    pub initial_rate: Option<u64>,
    /// How strongly the rate follows what the last batch did too slowly. Default: 1. Spark: `pid.proportional`.
    pub proportional: f64,
    /// How strongly waiting batches lower it. Default: 0.2. Spark: `pid.integral`.
    pub integral: f64,
    /// How strongly it follows a change of that error. Default: 0. Spark: `pid.derived`.
    pub derived: f64,
    /// The total rate below which it never falls, in records a second. Default: 100. Spark: `pid.minRate`.
    pub min_rate: u64,
}

impl Default for BackpressureConfig {
    fn default() -> Self {
        Self { enabled: false, initial_rate: None, proportional: 1.0, integral: 0.2, derived: 0.0, min_rate: 100 }
    }
}

/// `[input]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InputConfig {
    /// What the value of a record is.
    pub format: InputFormat,
    /// What happens to a record that does not fit.
    pub on_error: OnError,
}

/// What the value of a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputFormat {
    /// One JSON document.
    #[default]
    Json,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Bytes,
}

impl InputFormat {
    /// The file's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Bytes => "bytes",
        }
    }
}

/// What happens to a record that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// The batch fails and the job stops.
    #[default]
    Fail,
    /// The record is kept whole among the dead letters, in the batch's transaction.
    DeadLetter,
}

impl OnError {
    /// The file's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// `[store]`
#[derive(Debug, Clone, PartialEq)]
pub struct StoreConfig {
    /// The database of results and offsets.
    pub url: StoreUrl,
    /// Whether the program's own tables are made and changed by itself.
    pub migrate: Migrate,
    /// How long the ledger keeps its batches.
    pub ledger_retention: Duration,
}

/// Whether the program's own tables are made and changed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Migrate {
    /// At start, in one transaction.
    #[default]
    Auto,
    /// Only by `directstream migrate`.
    Off,
}

impl Migrate {
    /// The file's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
        }
    }
}

/// `[report]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportConfig {
    /// Where the web page, metrics and health are served; `None` is nowhere.
    pub listen: Option<SocketAddr>,
    /// How many completed batches the web page shows.
    pub retained_batches: usize,
    /// A copy of the committed offsets for tools that read consumer groups.
    pub consumer_group: Option<ConsumerGroupMirror>,
    /// A copy of the committed offsets for tools that read ZooKeeper.
    pub zookeeper: Option<ZookeeperMirror>,
    /// Other exporters' names under which the metrics are told as well.
    pub compatible_names: BTreeSet<CompatibleNames>,
    /// Where a trace of every batch is sent.
    pub traces: Option<TracesConfig>,
}

/// An exporter of consumer groups whose names dashboards know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CompatibleNames {
    /// kafka_exporter: `kafka_consumergroup_lag` and others.
    KafkaExporter,
    /// kafka-lag-exporter: `kafka_consumergroup_group_lag` and others.
    KafkaLagExporter,
}

impl CompatibleNames {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::KafkaExporter, Self::KafkaLagExporter];

    /// The exporter's own name, which is the file's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KafkaExporter => "kafka_exporter",
            Self::KafkaLagExporter => "kafka-lag-exporter",
        }
    }
}

impl Default for ReportConfig {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), LISTEN_PORT_DEFAULT)),
            retained_batches: RETAINED_BATCHES_DEFAULT,
            consumer_group: None,
            zookeeper: None,
            compatible_names: BTreeSet::new(),
            traces: None,
        }
    }
}

/// `[report.consumer_group]`: the consumer group that shows the committed offsets, in the cluster that is read. It is not joined.
///
/// ```
/// use std::time::Duration;
/// use directstream::{config::{ConsumerGroupMirror, ReportConfig}, stream::StreamingContext};
///
/// let consumer_group = Some(ConsumerGroupMirror { group: "orders".to_owned() });
/// let report = ReportConfig { consumer_group, ..ReportConfig::default() };
/// StreamingContext::builder("orders", Duration::from_secs(1)).report_config(report);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupMirror {
    /// The consumer group: one of its own, that nobody subscribes with. Kafka: `group.id`.
    pub group: String,
}

/// `[report.zookeeper]`: the nodes of Kafka's old consumer that show the committed offsets.
///
/// ```
/// use directstream::config::{Secret, ZookeeperMirror};
///
/// let mirror = ZookeeperMirror {
///     connect: "one:2181,two:2181/kafka".to_owned(),
///     group: "orders".to_owned(),
///     digest: Some(Secret::new("directstream:a password")),
/// };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZookeeperMirror {
    /// `host:port`, separated by commas, with a path below which to write. Kafka: `zookeeper.connect`.
    pub connect: String,
    /// The consumer group that the path names.
    pub group: String,
    /// `user:password` of ZooKeeper's scheme `digest`. With it only this user changes the nodes; everybody may still read them.
    pub digest: Option<Secret>,
}
