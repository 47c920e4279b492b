//! Where an outbox sends its records, in a program's words.

use std::{collections::BTreeMap, fmt};

use super::KafkaProperties;

/// The most records that wait in an outbox before the next batch waits as well.
pub(crate) const OUTBOX_RECORDS_MAX: u64 = 100_000;

/// The cluster that an outbox sends to, and how much may wait for it.
///
/// ```
/// use directstream::transform::KafkaOutput;
///
/// let output = KafkaOutput::bootstrap_servers("localhost:9092").property("compression.type", "zstd").waiting_max(10_000);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaOutput {
    bootstrap_servers: String,
    properties: BTreeMap<String, String>,
    waiting_max: u64,
}

impl KafkaOutput {
    /// `host:port` of brokers to begin with, separated by commas. Kafka: `bootstrap.servers`.
    pub fn bootstrap_servers(servers: impl Into<String>) -> Self {
        Self { bootstrap_servers: servers.into(), properties: BTreeMap::new(), waiting_max: OUTBOX_RECORDS_MAX }
    }

    /// A librdkafka property of a producer by its own name, such as `security.protocol` or `compression.type`. Those that the
    /// order and safety of records depend on are refused at start.
    #[must_use]
    pub fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(key.into(), value.into());
        self
    }

    /// From so many waiting records on, the next batch is not committed before some of them are sent. Default: 100,000.
    #[must_use]
    pub fn waiting_max(mut self, records: u64) -> Self {
        self.waiting_max = records.max(1);
        self
    }

    pub(crate) fn waiting_records_max(&self) -> u64 {
        self.waiting_max
    }

    pub(crate) fn kafka_properties(&self, application: &str) -> KafkaProperties {
        KafkaProperties::new(&self.bootstrap_servers, application, self.properties.clone())
    }
}

impl fmt::Debug for KafkaOutput {
    /// Without what may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties = self.kafka_properties("");
        f.debug_struct("KafkaOutput")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &properties.printable().collect::<BTreeMap<_, _>>())
            .field("waiting_max", &self.waiting_max)
            .finish()
    }
}
