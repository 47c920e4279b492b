//! The settings of Kafka clients: what the user may set, what is this program's, and what may be shown.

use std::{collections::BTreeMap, fmt, sync::Arc};

use rdkafka::ClientConfig;

use super::{
    credentials::{self, Credentials},
    ffi::{Client, CreateError},
};
use crate::{
    error::{Error, Result, Stage},
    failpoint,
};

/// Which records are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum IsolationLevel {
    /// Records of committed transactions, and those without a transaction. "Latest" is the last stable offset.
    #[default]
    ReadCommitted,
    /// All records, also those of open and aborted transactions. "Latest" is the high watermark.
    ReadUncommitted,
}

impl IsolationLevel {
    /// Kafka's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

impl fmt::Display for IsolationLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Keys whose value is this program's business, and what to use instead or why.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is kafka.bootstrap_servers"),
    ("metadata.broker.list", "it is kafka.bootstrap_servers"),
    ("isolation.level", "it is kafka.isolation_level"),
    ("auto.offset.reset", "where to begin is kafka.start, and an offset that is gone is never replaced silently"),
    ("group.id", "it is made from the job's name, and no consumer group is joined"),
    ("group.instance.id", "no consumer group is joined"),
    ("group.protocol", "no consumer group is joined"),
    ("group.protocol.type", "no consumer group is joined"),
    ("group.remote.assignor", "no consumer group is joined"),
    ("partition.assignment.strategy", "no consumer group is joined"),
    ("session.timeout.ms", "no consumer group is joined"),
    ("heartbeat.interval.ms", "no consumer group is joined"),
    ("max.poll.interval.ms", "no consumer group is joined"),
    ("enable.auto.commit", "offsets are committed with the results, in the store"),
    ("auto.commit.enable", "offsets are committed with the results, in the store"),
    ("auto.commit.interval.ms", "offsets are committed with the results, in the store"),
    ("enable.auto.offset.store", "offsets are committed with the results, in the store"),
    ("offset.store.method", "offsets are committed with the results, in the store"),
    ("offset.store.path", "offsets are committed with the results, in the store"),
    ("offset.store.sync.interval.ms", "offsets are committed with the results, in the store"),
    ("check.crcs", "a damaged record must never pass as a good one"),
    ("allow.auto.create.topics", "a misspelt topic must not come into being"),
    ("enable.partition.eof", "the end of a range is found by it"),
    ("queued.min.messages", "it follows stream.memory_max"),
    ("queued.max.messages.kbytes", "it follows stream.memory_max"),
    ("fetch.max.bytes", "it follows stream.memory_max"),
    ("fetch.min.bytes", "a larger value would delay the end of every range"),
    ("consume.callback.max.messages", "no callbacks are used"),
    ("enabled_events", "the events are chosen by this program"),
];

/// Keys that decide what a producer promises; a reader takes no notice of them.
const OWNED_BY_PRODUCERS: &[(&str, &str)] = &[
    ("transactional.id", "it is the job's name"),
    ("enable.idempotence", "it is always on: without it a record may come twice, or in another order"),
    ("acks", "every replica in sync must have a record"),
    ("request.required.acks", "every replica in sync must have a record"),
    ("enable.gapless.guarantee", "what fails is handled by this program"),
    ("dr_msg_cb", "no callbacks are used"),
    ("delivery.report.only.error", "every acknowledgement counts"),
];

/// Keys that load code, run commands or print secrets.
const DANGEROUS: &[(&str, &str)] = &[
    ("plugin.library.paths", "it loads code"),
    ("ssl.engine.location", "it loads code"),
    ("ssl.providers", "it loads code"),
    ("sasl.kerberos.kinit.cmd", "it runs a command"),
    ("debug", "it can print credentials"),
    ("log_level", "the log has its own filter"),
];

/// Keys whose values may be shown. A list of what is harmless, because no list of secrets is ever complete.
const PRINTABLE: &[&str] = &[
    "api.version.request",
    "broker.address.family",
    "broker.address.ttl",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "connections.max.idle.ms",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.message.max.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "max.partition.fetch.bytes",
    "message.max.bytes",
    "metadata.max.age.ms",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.keytab",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.keystore.location",
    "statistics.interval.ms",
    "topic.metadata.refresh.interval.ms",
];

/// What is printed in place of a value that may be a secret.
const HIDDEN: &str = "***";

/// A property that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PropertyFault {
    /// Its key.
    pub key: String,
    /// Why not.
    pub reason: &'static str,
}

impl fmt::Display for PropertyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the property cannot be set: {} key={}", self.reason, self.key)
    }
}

/// How to reach and read a cluster: the user's own settings, without those that are ours.
#[derive(Clone)]
pub struct KafkaProperties {
    bootstrap_servers: String,
    application: String,
    properties: BTreeMap<String, String>,
    dangerous_allowed: bool,
}

/// What a new client gets of the user's properties.
struct Given<'a> {
    settings: Vec<(&'a str, String)>,
    /// What of it changes while the client lives.
    credentials: Option<Credentials>,
}

/// How much one partition may prefetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes that one request asks for from one partition.
    pub fetch_bytes: u64,
    /// No more is asked for while this many KiB wait in one partition.
    pub queued_kbytes: u64,
    /// ... or while this many messages do.
    pub queued_messages: u64,
    /// Bytes of one response over all partitions.
    pub response_bytes: u64,
}

impl KafkaProperties {
    /// Settings for `application`, which becomes the client's group id (no group is joined).
    #[must_use]
    pub fn new(
        bootstrap_servers: impl Into<String>,
        application: impl Into<String>,
        properties: BTreeMap<String, String>,
    ) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            application: application.into(),
            properties,
            dangerous_allowed: false,
        }
    }

    /// Lets properties through that load code, run commands or print secrets.
    #[must_use]
    pub fn allow_dangerous(mut self) -> Self {
        self.dangerous_allowed = true;
        self
    }

    /// Every property that cannot be used. With one of them there is no client.
    pub fn faults(&self) -> impl Iterator<Item = PropertyFault> + '_ {
        self.properties.keys().filter_map(|key| {
            let dangerous = || Self::dangerous(key).filter(|_| !self.dangerous_allowed);
            let twice = || {
                let given = Self::in_file(key).is_some_and(|value| self.properties.contains_key(value));
                given.then_some("its value is given as well")
            };
            let reason = Self::owned(key).or_else(dangerous).or_else(twice);
            reason.map(|reason| PropertyFault { key: key.clone(), reason })
        })
    }

    /// librdkafka's key whose value stands in the file that `key` names: `sasl.password` for `sasl.password.file`. These keys are
    /// not librdkafka's own. The file is read again while a client lives, for the connections it makes from then on.
    #[must_use]
    pub fn in_file(key: &str) -> Option<&'static str> {
        credentials::IN_FILES.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    /// Why `key` is this program's own business; `None` if it is not.
    #[must_use]
    pub fn owned(key: &str) -> Option<&'static str> {
        OWNED.iter().find(|(name, _)| *name == key).map(|(_, reason)| *reason)
    }

    /// Why `key` is dangerous; `None` if it is not.
    #[must_use]
    pub fn dangerous(key: &str) -> Option<&'static str> {
        DANGEROUS.iter().find(|(name, _)| *name == key).map(|(_, reason)| *reason)
    }

    /// Whether the value of `key` may be shown.
    #[must_use]
    pub fn is_printable(key: &str) -> bool {
        // What is in a file may be a secret, its name is not.
        PRINTABLE.contains(&key) || Self::in_file(key).is_some()
    }

    /// The user's properties with every value that may be a secret hidden.
    pub fn printable(&self) -> impl Iterator<Item = (&str, &str)> {
        self.properties
            .iter()
            .map(|(key, value)| (key.as_str(), if Self::is_printable(key) { value.as_str() } else { HIDDEN }))
    }

    /// The protocol that clients speak, for messages about failed connections.
    #[must_use]
    pub fn security_protocol(&self) -> &str {
        self.properties.get("security.protocol").map_or("plaintext", String::as_str)
    }

    /// The brokers that clients first ask.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// The user's own settings for a new client. `client`: what it is for.
    fn given(&self, client: &'static str) -> Result<Given<'_>> {
        if let Some(fault) = self.faults().next() {
            return Err(Error::config(fault.to_string()).at(Stage::Start));
        }
        let own = self.properties.iter().filter(|(key, _)| Self::in_file(key).is_none());
        let mut settings: Vec<_> = own.map(|(key, value)| (key.as_str(), value.clone())).collect();
        let credentials = Credentials::of(&self.properties, client).map_err(|error| error.at(Stage::Start))?;
        if let Some(credentials) = &credentials {
            for (key, value) in credentials.settings() {
                settings.push((key, value));
            }
        }
        Ok(Given { settings, credentials })
    }

    /// Settings of a client that commits offsets to a group, and does nothing else.
    pub(crate) fn committer(&self, group: &str) -> Result<(ClientConfig, Option<Credentials>)> {
        let Given { settings, credentials } = self.given("committer")?;
        let yielding = [
            // As for every client here: the defaults cost up to 8 s after a broker has come back.
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "500"),
            // A broker that is silent is given up for another one sooner than after a minute.
            ("socket.timeout.ms", "10000"),
        ];
        let own = [
            ("bootstrap.servers", self.bootstrap_servers.as_str()),
            ("group.id", group),
            ("enable.auto.commit", "false"),
            ("allow.auto.create.topics", "false"),
            // Nobody has a session: for so long the client keeps a commit while the group's coordinator is away, then it says so.
            // The first group of a cluster has to wait for a topic to be made, which takes two seconds.
            ("session.timeout.ms", "5000"),
        ];
        let given = settings.iter().map(|(key, value)| (*key, value.as_str()));
        let mut config = ClientConfig::new();
        for (key, value) in yielding.into_iter().chain(given).chain(own) {
            config.set(key, value);
        }
        Ok((config, credentials))
    }

    /// A client for reading.
    pub(crate) fn reader(&self, isolation: IsolationLevel, limits: QueueLimits) -> Result<Arc<Client>> {
        let sized = [
            ("fetch.min.bytes", "1".to_owned()),
            ("queued.min.messages", limits.queued_messages.to_string()),
            ("queued.max.messages.kbytes", limits.queued_kbytes.to_string()),
            ("fetch.max.bytes", limits.response_bytes.to_string()),
        ];
        let yielding = [
            // As late as this the end of a partition, and with it a gap at the end of a range, is known.
            ("fetch.wait.max.ms", "50".to_owned()),
            // For so long a partition whose queue was full is not asked for: little beside what a large queue holds.
            ("fetch.queue.backoff.ms", if limits.is_small() { "10" } else { "100" }.to_owned()),
            ("fetch.error.backoff.ms", "100".to_owned()),
            ("fetch.message.max.bytes", limits.fetch_bytes.to_string()),
        ];
        self.client("reader", isolation, &yielding, &sized)
    }

    /// A client for looking up offsets and metadata.
    pub(crate) fn planner(&self) -> Result<Arc<Client>> {
        self.client("planner", IsolationLevel::ReadCommitted, &[], &[])
    }

    /// Settings of a client that sends: idempotent, acknowledged by every replica in sync. `own` go before everything.
    pub(crate) fn producer(&self, own: &[(&str, &str)]) -> Result<(ClientConfig, Option<Credentials>)> {
        let owned = |key: &String| OWNED_BY_PRODUCERS.iter().find(|(name, _)| name == key);
        let fault = self
            .properties
            .keys()
            .find_map(|key| owned(key).map(|(_, reason)| PropertyFault { key: key.clone(), reason }));
        if let Some(fault) = fault {
            return Err(Error::config(fault.to_string()).at(Stage::Start));
        }
        let Given { settings, credentials } = self.given("producer")?;
        let yielding = [
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "500"),
            ("linger.ms", "5"),
            // What is sent is in the batch already: more than the network needs would be a second copy of it.
            ("queue.buffering.max.kbytes", "65536"),
            ("queue.buffering.max.messages", "500000"),
        ];
        let owned = [
            ("bootstrap.servers", self.bootstrap_servers.as_str()),
            ("enable.idempotence", "true"),
            ("allow.auto.create.topics", "false"),
        ];
        let given = settings.iter().map(|(key, value)| (*key, value.as_str()));
        let mut config = ClientConfig::new();
        for (key, value) in yielding.into_iter().chain(given).chain(owned).chain(own.iter().copied()) {
            config.set(key, value);
        }
        Ok((config, credentials))
    }

    fn client(
        &self,
        purpose: &'static str,
        isolation: IsolationLevel,
        yielding: &[(&str, String)],
        sized: &[(&str, String)],
    ) -> Result<Arc<Client>> {
        let Given { settings: given, credentials } = self.given(purpose)?;
        // The defaults of 100 ms and 10 s cost up to 8 s after a broker has come back.
        let reconnect = [("reconnect.backoff.ms", "50"), ("reconnect.backoff.max.ms", "500")];
        let owned = [
            ("bootstrap.servers", self.bootstrap_servers.as_str()),
            ("group.id", self.application.as_str()),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", if failpoint::mutant("reset_latest") { "latest" } else { "error" }),
            ("allow.auto.create.topics", "false"),
            ("isolation.level", isolation.as_str()),
            ("enable.partition.eof", "true"),
            ("check.crcs", "true"),
        ];
        // Ours first where the user may say otherwise, last where he may not.
        let settings = reconnect
            .into_iter()
            .chain(yielding.iter().map(|(key, value)| (*key, value.as_str())))
            .chain(given.iter().map(|(key, value)| (*key, value.as_str())))
            .chain(owned)
            .chain(sized.iter().map(|(key, value)| (*key, value.as_str())));
        let client = Client::consumer(settings).map_err(|error| creation_failed(&error))?;
        credentials::keep(credentials, &client)?;
        Ok(client)
    }
}

fn creation_failed(error: &CreateError) -> Error {
    let message = match &error.key {
        Some(key) if KafkaProperties::is_printable(key) => {
            format!("cannot use the kafka property: {} key={key}", one_line(&error.text))
        }
        Some(key) => format!("cannot use the kafka property: no such key, or a value it does not take key={key}"),
        None => format!("cannot make a kafka client: {}", one_line(&error.text)),
    };
    Error::config(message).at(Stage::Start)
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

impl fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaProperties")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("application", &self.application)
            .field("properties", &self.printable().collect::<BTreeMap<_, _>>())
            .finish()
    }
}

/// librdkafka's own memory for one queued message, beside its payload: measured, rounded up.
const MESSAGE_OVERHEAD_BYTES: u64 = 400;
/// The client's default for one request; larger ones were slower, and took twice the CPU.
const FETCH_BYTES_MAX: u64 = 1024 * 1024;
/// A broker answers one partition of a request in full and the others only as far as whole record batches fit: with less
/// than a usual batch, each request would bring the records of one partition.
const FETCH_BYTES_MIN: u64 = 32 * 1024;
/// More than this of one partition is no faster: it only leaves the caches before it is read.
const QUEUED_MESSAGES_MAX: u64 = 50_000;
const QUEUED_KBYTES_MAX: u64 = 8_192;
/// Below this a queue is read empty in less time than a full one is left alone for.
const QUEUED_KBYTES_SMALL: u64 = 1_024;
const RESPONSE_BYTES_MAX: u64 = 50 * 1024 * 1024;

impl QueueLimits {
    /// The smallest share of a partition that reading still works well with: a partition's part of a batch then lies
    /// whole in its queue before it is read. Waiting for a second fetch of each is what makes thousands of them slow.
    pub(crate) const SHARE_MIN_BYTES: u64 = 128 * 1024;

    /// Whether a queue may be read empty before the next fetch is even asked for.
    fn is_small(self) -> bool {
        self.queued_kbytes < QUEUED_KBYTES_SMALL
    }

    /// Limits that keep `partitions` partitions together below `budget_bytes`: half of a share for payloads, a request in
    /// flight included, and half for what librdkafka keeps with each message.
    #[must_use]
    pub fn for_budget(budget_bytes: u64, partitions: usize) -> Self {
        let partitions = u64::try_from(partitions.max(1)).unwrap_or(u64::MAX);
        let half = (budget_bytes / partitions).max(Self::SHARE_MIN_BYTES) / 2;
        let fetch_bytes = (half / 4).clamp(FETCH_BYTES_MIN, FETCH_BYTES_MAX);
        Self {
            fetch_bytes,
            queued_kbytes: (half.saturating_sub(fetch_bytes) / 1024).clamp(8, QUEUED_KBYTES_MAX),
            queued_messages: (half / MESSAGE_OVERHEAD_BYTES).clamp(1, QUEUED_MESSAGES_MAX),
            response_bytes: (budget_bytes / 4).clamp(FETCH_BYTES_MAX, RESPONSE_BYTES_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefetch_stays_within_its_budget() {
        for budget in [32, 64, 256, 4_096].map(|mib| mib * 1024 * 1024) {
            for partitions in [1, 2, 8, 100, 500] {
                let limits = QueueLimits::for_budget(budget, partitions);
                let payload = limits.queued_kbytes * 1024 + limits.fetch_bytes;
                let all = (payload + limits.queued_messages * MESSAGE_OVERHEAD_BYTES) * partitions as u64;
                let smallest = QueueLimits::SHARE_MIN_BYTES * partitions as u64;
                assert!(all <= budget.max(smallest), "{budget} over {partitions}: {limits:?}");
            }
        }
    }

    #[test]
    fn small_jobs_get_the_client_s_own_sizes() {
        let limits = QueueLimits::for_budget(256 * 1024 * 1024, 4);
        assert_eq!((limits.fetch_bytes, limits.queued_messages), (FETCH_BYTES_MAX, QUEUED_MESSAGES_MAX));
    }

    #[test]
    fn secrets_are_hidden_also_where_their_name_does_not_say_so() {
        let secret = ["ssl.key.pem", "sasl.oauthbearer.config", "sasl.password", "sasl.oauthbearer.client.secret"];
        let properties = secret.iter().map(|key| ((*key).to_owned(), "canary".to_owned())).collect();
        let properties = KafkaProperties::new("b:9092", "app", properties);
        assert!(!format!("{properties:?}").contains("canary"));
        assert!(properties.printable().all(|(_, value)| value == HIDDEN));
        assert!(OWNED.iter().chain(DANGEROUS).all(|(key, reason)| !key.is_empty() && !reason.is_empty()));
    }

    #[test]
    fn what_stands_in_files_is_read_for_each_client() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let own = [("sasl.username", "orders".to_owned()), ("sasl.password.file", path.display().to_string())];
        let mut map: BTreeMap<_, _> = own.map(|(key, value)| (key.to_owned(), value)).into();
        let properties = KafkaProperties::new("b:9092", "app", map.clone());
        let error = properties.given("test").err().unwrap();
        assert!(error.kind() == crate::ErrorKind::Unavailable && error.to_string().contains("cannot read"), "{error}");
        for password in ["canary ", "changed"] {
            std::fs::write(&path, format!("{password}\r\n")).unwrap();
            let Given { mut settings, credentials } = properties.given("test").unwrap();
            settings.sort_unstable();
            let expected = [("sasl.password", password.to_owned()), ("sasl.username", "orders".to_owned())];
            assert_eq!(settings, expected);
            assert!(!format!("{credentials:?}").contains(password));
        }
        map.insert("sasl.password".to_owned(), "canary".to_owned());
        let fault = KafkaProperties::new("b:9092", "app", map).faults().next().unwrap().to_string();
        assert_eq!(fault, "the property cannot be set: its value is given as well key=sasl.password.file");
    }
}
