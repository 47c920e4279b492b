//! `[report]`: what is told about the run.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    job::{CompatibleNames, ConsumerGroupMirror, ReportConfig, ZookeeperMirror},
    read::{Found, Section},
};

pub(super) fn read(section: &Section<'_>) -> Option<ReportConfig> {
    let listen = match section.find("listen") {
        None => Some(ReportConfig::default().listen),
        Some(found) => found.parse(listen).inspect(|listen| {
            if listen.is_some_and(|address| !address.ip().is_loopback()) {
                found.warn("other machines can read metrics and health here, without a password");
            }
        }),
    };
    let group = section.section("consumer_group");
    let consumer_group = if group.is_present() {
        group.missing_support("the mirror into a consumer group");
        Some(group.require("group").and_then(|found| found.parse(not_empty)).map(|group| ConsumerGroupMirror { group }))
    } else {
        None
    };
    let tree = section.section("zookeeper");
    let zookeeper = if tree.is_present() {
        tree.missing_support("the mirror into zookeeper");
        let connect = tree.require("connect").and_then(|found| found.parse(not_empty));
        let group = tree.require("group").and_then(|found| found.parse(not_empty));
        Some(connect.zip(group).map(|(connect, group)| ZookeeperMirror { connect, group }))
    } else {
        None
    };
    let compatible_names = compatible_names(section);
    Some(ReportConfig {
        listen: listen?,
        consumer_group: consumer_group.flatten(),
        zookeeper: zookeeper.flatten(),
        compatible_names: compatible_names?,
    })
}

fn compatible_names(section: &Section<'_>) -> Option<BTreeSet<CompatibleNames>> {
    let Some(found) = section.find("compatible_names") else { return Some(BTreeSet::new()) };
    let words = CompatibleNames::ALL.map(|names| (names.as_str(), names));
    let names: Vec<_> = found.texts()?.into_iter().map(|(_, item): (String, Found<'_>)| item.one_of(&words)).collect();
    names.into_iter().collect()
}

fn listen(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| "not an address and a port such as \"127.0.0.1:9464\", and not \"off\"".to_owned())
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}
