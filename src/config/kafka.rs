//! `[kafka]`: which topics, from where, and what librdkafka is told.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use regex::Regex;

use super::{
    LoadOptions,
    job::{IsolationLevel, KafkaConfig, OnDataLoss, StartPolicy, Subscription},
    properties,
    read::{Found, Section, report_twice},
};
use crate::types::Offset;

/// The longest name that Kafka gives a topic.
const TOPIC_BYTES_MAX: usize = 249;

pub(super) fn read(section: &Section<'_>, options: &LoadOptions) -> Option<KafkaConfig> {
    let bootstrap_servers = section.require("bootstrap_servers").and_then(|found| {
        let servers = found.parse(bootstrap_servers)?;
        Some((servers, found))
    });
    let subscription = subscription(section);
    let start = start(section, subscription.as_ref());
    let isolation_level = section.find("isolation_level").map_or(Some(IsolationLevel::default()), |found| {
        let levels = [IsolationLevel::ReadCommitted, IsolationLevel::ReadUncommitted];
        found.one_of(&levels.map(|level| (level.as_str(), level)))
    });
    let on_data_loss = section.find("on_data_loss").map_or(Some(OnDataLoss::default()), |found| {
        found.one_of(&[OnDataLoss::Fail, OnDataLoss::Skip].map(|choice| (choice.as_str(), choice)))
    });
    let insecure = section.find("insecure").map_or(Some(false), |found| found.boolean());
    let properties = properties::read(
        &section.section("properties"),
        options.allow_unsafe_kafka_options,
        // A fault of `insecure` itself is enough.
        insecure.unwrap_or(true),
    );
    let (bootstrap_servers, found) = bootstrap_servers?;
    properties::warn_plaintext(&properties, &found, bootstrap_servers.split(',').all(is_loopback));
    Some(KafkaConfig {
        bootstrap_servers,
        subscription: subscription?,
        start: start?,
        isolation_level: isolation_level?,
        on_data_loss: on_data_loss?,
        insecure: insecure?,
        allow_unsafe_options: options.allow_unsafe_kafka_options,
        properties,
    })
}

/// Checks `host:port,host:port`; a port may be left out, as librdkafka allows.
fn bootstrap_servers(text: &str) -> Result<String, String> {
    let servers: Vec<&str> = text.split(',').map(str::trim).filter(|server| !server.is_empty()).collect();
    if servers.is_empty() {
        return Err("names no server".to_owned());
    }
    for server in &servers {
        let address = server.split_once("://").map_or(*server, |(_, address)| address);
        if address.is_empty() || address.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@')) {
            return Err("not a list of host:port".to_owned());
        }
        let (host, port) = split_port(address);
        if host.is_empty() || port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
            return Err("not a list of host:port".to_owned());
        }
    }
    Ok(servers.join(","))
}

/// `host:port` into its parts; an IPv6 address stands in brackets.
pub(super) fn split_port(address: &str) -> (&str, Option<&str>) {
    match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (address, None),
    }
}

pub(super) fn is_loopback(server: &str) -> bool {
    let address = server.split_once("://").map_or(server, |(_, address)| address);
    let host = split_port(address).0.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn subscription(section: &Section<'_>) -> Option<Subscription> {
    match exclusive(section, "topics", "topic_pattern") {
        (None, None) => {
            section.missing("topics", "missing: name the topics, or give a topic_pattern");
            None
        }
        (Some(found), _) => {
            let topics = found.texts()?;
            if topics.is_empty() {
                found.fault("names no topic");
                return None;
            }
            report_twice(&topics, "topic", str::to_owned);
            for (topic, item) in &topics {
                if let Err(message) = check_topic(topic) {
                    item.fault(message);
                }
            }
            Some(Subscription::Topics(topics.into_iter().map(|(topic, _)| topic).collect()))
        }
        (None, Some(found)) => found.parse(pattern).map(Subscription::Pattern),
    }
}

/// Of two keys that exclude each other: the one of the higher layer, and a fault if they are of the same.
pub(super) fn exclusive<'a>(section: &Section<'a>, one: &str, other: &str) -> (Option<Found<'a>>, Option<Found<'a>>) {
    match (section.find(one), section.find(other)) {
        (Some(first), Some(second)) => match first.origin().rank().cmp(&second.origin().rank()) {
            std::cmp::Ordering::Greater => (Some(first), None),
            std::cmp::Ordering::Less => (None, Some(second)),
            std::cmp::Ordering::Equal => {
                second.key_fault(format!("either {one} or {other}, not both"), other);
                (Some(first), None)
            }
        },
        found => found,
    }
}

fn check_topic(topic: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() || matches!(topic, "." | "..") || !topic.chars().all(legal) {
        return Err("not a topic's name: letters, digits, dot, underscore and hyphen".to_owned());
    }
    if topic.len() > TOPIC_BYTES_MAX {
        return Err(format!("a topic's name has at most {TOPIC_BYTES_MAX} characters"));
    }
    Ok(())
}

fn pattern(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("matches no topic".to_owned());
    }
    match Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            // The last line of the library's text says what is wrong; those above repeat the pattern.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error:").trim();
            Err(format!("not a regular expression: {reason}"))
        }
    }
}

fn start(section: &Section<'_>, subscription: Option<&Subscription>) -> Option<StartPolicy> {
    let Some(found) = section.find("start") else { return Some(StartPolicy::default()) };
    if !found.is_table() {
        return found.parse(|text| match text {
            "earliest" => Ok(StartPolicy::Earliest),
            "latest" => Ok(StartPolicy::Latest),
            "none" => Ok(StartPolicy::None),
            _ => Err("not \"earliest\", \"latest\", \"none\", { timestamp = ... } or { offsets = ... }".to_owned()),
        });
    }
    let table = found.table()?;
    match (table.find("timestamp"), table.find("offsets")) {
        (Some(timestamp), None) => timestamp.parse(rfc3339).map(StartPolicy::Timestamp),
        (None, Some(offsets)) => Some(StartPolicy::Offsets(start_offsets(&offsets, subscription)?)),
        (Some(_), Some(offsets)) => {
            offsets.key_fault("either timestamp or offsets, not both", "offsets");
            None
        }
        (None, None) => {
            // What stands there instead is an unknown key, and will be called so.
            if table.entry_count() == 0 {
                found.fault("expected a timestamp or offsets in it");
            }
            None
        }
    }
}

/// Reads a point in time with its time zone; without one it would mean another time on another machine.
fn rfc3339(text: &str) -> Result<i64, String> {
    let expected = "not an RFC 3339 time with a zone, such as \"2026-01-01T00:00:00Z\"".to_owned();
    // The library also takes a zone in brackets and other forms that RFC 3339 does not have.
    if text.contains('[') {
        return Err(expected);
    }
    text.parse::<Timestamp>().map(Timestamp::as_millisecond).map_err(|_| expected)
}

fn start_offsets(
    offsets: &Found<'_>,
    subscription: Option<&Subscription>,
) -> Option<BTreeMap<String, BTreeMap<i32, Offset>>> {
    let mut by_topic = BTreeMap::new();
    for (topic, partitions) in offsets.table()?.entries() {
        let read = match subscription {
            Some(Subscription::Topics(topics)) => topics.contains(&topic),
            Some(Subscription::Pattern(pattern)) => {
                Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|pattern| pattern.is_match(&topic))
            }
            Some(Subscription::Partitions(read)) => read.iter().any(|read| *read.topic == topic),
            None => true,
        };
        if !read {
            partitions.key_fault("an offset for a topic that the job does not read", &topic);
        }
        let Some(table) = partitions.table() else { continue };
        let mut by_partition = BTreeMap::new();
        for (partition, offset) in table.entries() {
            let Some(number) = partition.parse::<i32>().ok().filter(|number| *number >= 0) else {
                offset.key_fault("not the number of a partition", &partition);
                continue;
            };
            if let Some(value) = offset.integer(0, i64::MAX)
                && by_partition.insert(number, Offset::clamped(value)).is_some()
            {
                offset.key_fault("the same partition twice", &partition);
            }
        }
        by_topic.insert(topic, by_partition);
    }
    Some(by_topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_servers_are_hosts_with_ports() {
        for (text, expected) in [
            ("localhost:9092", "localhost:9092"),
            (" a:1 , b:2,", "a:1,b:2"),
            ("a", "a"),
            ("[::1]:9092", "[::1]:9092"),
            ("[::1]", "[::1]"),
            ("PLAINTEXT://a:9092", "PLAINTEXT://a:9092"),
        ] {
            assert_eq!(bootstrap_servers(text).unwrap(), expected);
        }
        for text in ["", ",", "a:", ":9092", "a:99999", "a:0", "a b:1", "http://a:1/x", "u:p@a:1"] {
            assert!(bootstrap_servers(text).is_err(), "{text}");
        }
        for (server, expected) in [
            ("localhost:9092", true),
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("SSL://localhost:1", true),
            ("db:1", false),
        ] {
            assert_eq!(is_loopback(server), expected, "{server}");
        }
    }

    #[test]
    fn timestamps_need_a_zone() {
        assert_eq!(rfc3339("1970-01-01T00:00:01Z").unwrap(), 1_000);
        assert_eq!(rfc3339("1970-01-01T01:00:00.5+01:00").unwrap(), 500);
        for text in ["2026-01-01", "2026-01-01T00:00:00", "yesterday", "", "1970-01-01T01:00:00+01:00[Europe/Paris]"] {
            assert!(rfc3339(text).is_err(), "{text}");
        }
    }
}
