//! librdkafka's own keys: which pass through, which this program owns, which are dangerous, which may be shown.

use std::collections::BTreeMap;

use rdkafka::{ClientConfig, error::KafkaError, types::RDKafkaConfRes};

use super::{
    Secret,
    fill::visible,
    read::{Found, Section},
};

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
    ("consume.callback.max.messages", "no callbacks are used"),
    ("enabled_events", "the events are chosen by this program"),
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
    "fetch.min.bytes",
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

/// Whether the value of a librdkafka key may be shown.
#[must_use]
pub fn is_printable(key: &str) -> bool {
    PRINTABLE.contains(&key)
}

pub(super) fn read(section: &Section<'_>, allow_unsafe: bool, insecure: bool) -> BTreeMap<String, Secret> {
    let mut properties = BTreeMap::new();
    for (key, found) in section.entries() {
        let Some(value) = found.scalar() else { continue };
        if check(&key, &value, &found, allow_unsafe, insecure) {
            warn_literal(&key, &value, &found);
            properties.insert(key, Secret::new(value));
        }
    }
    properties
}

fn check(key: &str, value: &str, found: &Found<'_>, allow_unsafe: bool, insecure: bool) -> bool {
    let reason = |list: &[(&str, &'static str)]| list.iter().find(|(name, _)| *name == key).map(|(_, reason)| *reason);
    if let Some(reason) = reason(OWNED) {
        found.key_fault(format!("this librdkafka key belongs to the program: {reason}"), key);
        return false;
    }
    if let Some(reason) = reason(DANGEROUS)
        && !allow_unsafe
    {
        let message = format!("this librdkafka key is refused without --allow-unsafe-kafka-options: {reason}");
        found.key_fault(message, key);
        return false;
    }
    let unchecked = match key {
        // librdkafka takes these words for true and any other for false.
        "enable.ssl.certificate.verification" => !matches!(value, "true" | "t" | "1"),
        "ssl.endpoint.identification.algorithm" => value.eq_ignore_ascii_case("none"),
        _ => false,
    };
    if unchecked && !insecure {
        found.fault("the server would not be verified: say kafka.insecure = true if that is meant");
        return false;
    }
    match ClientConfig::new().set(key, value).create_native_config() {
        Ok(_) => true,
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            found.key_fault("librdkafka has no such key", key);
            false
        }
        // Its own text repeats the value.
        Err(_) if is_printable(key) => {
            found.fault("librdkafka does not take this value");
            false
        }
        Err(_) => {
            found.secret_fault("librdkafka does not take this value");
            false
        }
    }
}

/// Warns of a secret that stands in the file or on the command line.
fn warn_literal(key: &str, value: &str, found: &Found<'_>) {
    let secret = ["password", "secret", ".pem", "oauthbearer.config", "jaas"].iter().any(|word| key.contains(word));
    let seen = found.written().map_or_else(|| value.to_owned(), visible);
    if secret && !seen.is_empty() && found.origin().is_readable_by_others() {
        found.warn("a secret stands in the open here: use ${VAR}, or a file that librdkafka reads");
    }
}

/// Warns where records and credentials would travel in the open.
pub(super) fn warn_plaintext(properties: &BTreeMap<String, Secret>, servers: &Found<'_>, loopback: bool) {
    let protocol = properties.get("security.protocol").map_or("plaintext", Secret::expose);
    let open = protocol.eq_ignore_ascii_case("plaintext") || protocol.eq_ignore_ascii_case("sasl_plaintext");
    if open && !loopback {
        servers.warn("records travel unencrypted to another machine: set kafka.properties.\"security.protocol\" to SSL or SASL_SSL");
    }
}
