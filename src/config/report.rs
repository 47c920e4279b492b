//! `[report]`: what is told about the run.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    Secret, StoreUrl,
    fill::visible,
    job::{CompatibleNames, ConsumerGroupMirror, RETAINED_BATCHES_DEFAULT, ReportConfig, ZookeeperMirror},
    kafka::split_port,
    load::Environment,
    read::{Found, Section},
    traces::{TracesConfig, is_off},
};

/// ZooKeeper's own limit of a path, which has all names in it, is far above; Kafka's for a topic is this.
const GROUP_BYTES_MAX: usize = 249;

/// As much as a page of charts can show, and about 10 MB.
const RETAINED_BATCHES_MAX: i64 = 10_000;

/// What of the rest of the job the mirrors depend on; `None`: that has a fault of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'j> {
    pub(super) application: Option<&'j str>,
    pub(super) store: Option<&'j StoreUrl>,
    pub(super) environment: &'j Environment,
}

pub(super) fn read(section: &Section<'_>, around: Around<'_>) -> Option<ReportConfig> {
    let listen = match section.find("listen") {
        None => Some(ReportConfig::default().listen),
        Some(found) => found.parse(listen).inspect(|listen| {
            if listen.is_some_and(|address| !address.ip().is_loopback()) {
                found.warn("other machines can read metrics, health and the web page here, without a password");
            }
        }),
    };
    let retained_batches = section.find("retained_batches").map_or(Some(RETAINED_BATCHES_DEFAULT), |found| {
        found.integer(1, RETAINED_BATCHES_MAX).and_then(|batches| usize::try_from(batches).ok())
    });
    let (group, tree) = (section.section("consumer_group"), section.section("zookeeper"));
    let consumer_group = group.is_present().then(|| consumer_group(&group, around));
    let zookeeper = tree.is_present().then(|| zookeeper(&tree, around.application));
    let compatible_names = compatible_names(section);
    let traces = traces(section, around.environment);
    Some(ReportConfig {
        listen: listen?,
        retained_batches: retained_batches?,
        consumer_group: consumer_group.flatten(),
        zookeeper: zookeeper.flatten(),
        compatible_names: compatible_names?,
        traces: traces?,
    })
}

fn compatible_names(section: &Section<'_>) -> Option<BTreeSet<CompatibleNames>> {
    let Some(found) = section.find("compatible_names") else { return Some(BTreeSet::new()) };
    let words = CompatibleNames::ALL.map(|names| (names.as_str(), names));
    let names: Vec<_> = found.texts()?.into_iter().map(|(_, item): (String, Found<'_>)| item.one_of(&words)).collect();
    names.into_iter().collect()
}

/// What the job file says, or else what OpenTelemetry's variables do. Those may be meant for other programs of the machine: where
/// spans cannot be sent there, the job runs without.
fn traces(section: &Section<'_>, environment: &Environment) -> Option<Option<TracesConfig>> {
    let table = section.section("traces");
    let told = if table.is_present() {
        let endpoint = table.require("endpoint")?.parse(TracesConfig::parse)?;
        (!is_off(environment)).then(|| endpoint.within(environment))
    } else {
        match TracesConfig::of(environment) {
            Ok(told) => told.map(|(name, traces)| {
                table.came_from("endpoint", name);
                traces
            }),
            Err((name, message)) => {
                table.warn_of_variable(name, format!("no traces are sent: {message}"));
                None
            }
        }
    };
    Some(told)
}

fn listen(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| "not an address and a port such as \"127.0.0.1:9464\", and not \"off\"".to_owned())
}

fn consumer_group(section: &Section<'_>, around: Around<'_>) -> Option<ConsumerGroupMirror> {
    let found = section.require("group")?;
    let mirror = ConsumerGroupMirror { group: found.text()? };
    let checked = match (around.application, around.store) {
        (Some(application), Some(store)) => mirror.check(application, store),
        _ => mirror.check_name(),
    };
    checked.map_err(|message| found.fault(message)).ok()?;
    Some(mirror)
}

fn zookeeper(section: &Section<'_>, application: Option<&str>) -> Option<ZookeeperMirror> {
    let connect = section.require("connect").and_then(|found| {
        let text = found.text()?;
        servers_and_chroot(&text).map_err(|message| found.fault(message)).ok()?;
        Some(text)
    });
    let group = match section.find("group") {
        Some(found) => found.parse(|text| check_node(text).map(|()| text.to_owned())),
        None => application.map(str::to_owned),
    };
    let digest = section.find("digest").map(|found| digest(&found));
    Some(ZookeeperMirror {
        connect: connect?,
        group: group?,
        digest: match digest {
            Some(digest) => Some(digest?),
            None => None,
        },
    })
}

fn digest(found: &Found<'_>) -> Option<Secret> {
    let text = found.text()?;
    let secret = Secret::new(&*text);
    check_digest(&secret).map_err(|message| found.secret_fault(message)).ok()?;
    let seen = found.written().map_or(text, visible);
    if !seen.is_empty() && found.origin().is_readable_by_others() {
        found.warn("a secret stands in the open here: use ${VAR}");
    }
    Some(secret)
}

impl ConsumerGroupMirror {
    /// What is wrong with it, beside this store.
    pub(crate) fn check(&self, application: &str, store: &StoreUrl) -> Result<(), String> {
        self.check_name()?;
        // An empty name is the application's.
        let of_the_store = store.kafka_group().map(|group| if group.is_empty() { application } else { group });
        if of_the_store == Some(&*self.group) {
            return Err("the store keeps its offsets in this group: a copy needs another".to_owned());
        }
        Ok(())
    }

    fn check_name(&self) -> Result<(), String> {
        if self.group.trim().is_empty() || self.group.contains(char::is_control) {
            return Err("not the name of a consumer group".to_owned());
        }
        Ok(())
    }
}

impl ZookeeperMirror {
    /// Servers, and the path that all nodes lie below: empty, or with a slash before it and none after it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(&str, &str), String> {
        check_node(&self.group)?;
        if let Some(digest) = &self.digest {
            check_digest(digest)?;
        }
        servers_and_chroot(&self.connect)
    }
}

fn servers_and_chroot(connect: &str) -> Result<(&str, &str), String> {
    let refused = || "not a list of host:port, with or without a path after it".to_owned();
    let (servers, path) = connect.split_at(connect.find('/').unwrap_or(connect.len()));
    for server in servers.split(',') {
        let (host, port) = split_port(server);
        let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || matches!(c, '@' | '/'));
        let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
        if !is_host || !is_port {
            return Err(refused());
        }
    }
    let chroot = path.strip_suffix('/').unwrap_or(path);
    if let Some(names) = chroot.strip_prefix('/') {
        names.split('/').try_for_each(|name| check_node(name).map_err(|_| refused()))?;
    }
    Ok((servers, chroot))
}

/// The name of a node: what ZooKeeper takes, without a slash.
fn check_node(name: &str) -> Result<(), String> {
    let wrong = |c: char| c == '/' || c.is_control() || c.is_whitespace();
    if name.is_empty() || matches!(name, "." | "..") || name.contains(wrong) || name.len() > GROUP_BYTES_MAX {
        return Err("not the name of a node in ZooKeeper: no slash, no space, at most 249 bytes".to_owned());
    }
    Ok(())
}

fn check_digest(digest: &Secret) -> Result<(), String> {
    match digest.expose().split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(()),
        _ => Err("not user:password".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_zookeeper_is_servers_and_a_path() {
        for (text, servers, chroot) in [
            ("a:2181", "a:2181", ""),
            ("a", "a", ""),
            ("a:2181,b:2182/kafka", "a:2181,b:2182", "/kafka"),
            ("a:2181/", "a:2181", ""),
            ("[::1]:2181/kafka/one/", "[::1]:2181", "/kafka/one"),
        ] {
            assert_eq!(servers_and_chroot(text), Ok((servers, chroot)), "{text}");
        }
        for text in ["", "/kafka", "a:0", "a:x", "a,", "a b", "u@a", "a//b", "a/..", "tcp+tls://a:1"] {
            assert!(servers_and_chroot(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_copy_is_not_written_into_the_store_s_own_group() {
        let mirror = ConsumerGroupMirror { group: "orders".to_owned() };
        let check = |store| mirror.check("orders", &StoreUrl::parse(store).unwrap());
        assert!(check("kafka:").is_err() && check("kafka:orders").is_err());
        assert!(check("kafka:other").is_ok() && check("sqlite:orders.db").is_ok());
    }
}
