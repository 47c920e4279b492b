//! librdkafka's own keys in the job file. Which of them pass through, and which may be shown, is known to
//! [`KafkaProperties`].

use std::{collections::BTreeMap, path::Path};

use rdkafka::{ClientConfig, error::KafkaError, types::RDKafkaConfRes};

use super::{
    Secret,
    fill::visible,
    read::{Found, Section},
    store::can_be_read_by_others,
};
use crate::kafka::{KafkaProperties, value_in};

/// Whether the value of a librdkafka key may be shown.
#[must_use]
pub fn is_printable(key: &str) -> bool {
    KafkaProperties::is_printable(key)
}

pub(super) fn read(section: &Section<'_>, allow_unsafe: bool, insecure: bool) -> BTreeMap<String, Secret> {
    let entries = section.entries();
    let mut properties = BTreeMap::new();
    for (key, found) in &entries {
        let Some(value) = found.scalar() else { continue };
        let fits = !is_outranked(key, found, &entries)
            && match KafkaProperties::in_file(key) {
                Some(in_file) => check_file(in_file, &value, found),
                None => check(key, &value, found, allow_unsafe, insecure),
            };
        if fits {
            warn_literal(key, &value, found);
            properties.insert(key.clone(), Secret::new(value));
        }
    }
    properties
}

/// Whether the same is given otherwise in a higher layer, in a file or not. Both in the same layer are a fault.
fn is_outranked(key: &str, found: &Found<'_>, entries: &[(String, Found<'_>)]) -> bool {
    let same =
        |other: &str| KafkaProperties::in_file(key) == Some(other) || KafkaProperties::in_file(other) == Some(key);
    let Some((other, rank)) =
        entries.iter().find(|(other, _)| same(other)).map(|(other, found)| (other, found.origin().rank()))
    else {
        return false;
    };
    if rank == found.origin().rank() && KafkaProperties::in_file(key).is_some() {
        found.key_fault(format!("either {other} or {key}, not both"), key);
    }
    rank > found.origin().rank()
}

/// Checks the value of librdkafka's key `in_file`, which stands in the file at `path`.
fn check_file(in_file: &str, path: &str, found: &Found<'_>) -> bool {
    let path = Path::new(path);
    let value = match value_in(path) {
        Ok(value) => value,
        Err(why) => {
            // Without a folder it may be the password itself.
            let is_path = path.components().count() > 1;
            if is_path {
                found.fault(why)
            } else {
                found.secret_fault(why)
            }
            return false;
        }
    };
    if can_be_read_by_others(path) {
        found.warn("the file can be read by others: chmod 600 it");
    }
    let taken = ClientConfig::new().set(in_file, value).create_native_config().is_ok();
    if !taken {
        found.fault("librdkafka does not take what stands in the file");
    }
    taken
}

fn check(key: &str, value: &str, found: &Found<'_>, allow_unsafe: bool, insecure: bool) -> bool {
    if let Some(reason) = KafkaProperties::owned(key) {
        found.key_fault(format!("this librdkafka key belongs to the program: {reason}"), key);
        return false;
    }
    if let Some(reason) = KafkaProperties::dangerous(key)
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
    let secret = secret && KafkaProperties::in_file(key).is_none();
    let seen = found.written().map_or_else(|| value.to_owned(), visible);
    if secret && !seen.is_empty() && found.origin().is_readable_by_others() {
        found.warn("a secret stands in the open here: use ${VAR}, or a file (sasl.password.file)");
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
