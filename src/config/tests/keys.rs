//! The reference of the keys, the loader and what is shown agree.

use std::{collections::BTreeSet, fs, path::Path};

use super::*;
use crate::config::load::parse_noting;

#[test]
fn effective_values_are_all_there_with_their_origin() {
    let job = full().job;
    let values = effective(&job);
    let find = |path: &str| {
        let value = values.iter().find(|value| value.path == path).unwrap_or_else(|| panic!("{path}"));
        (value.value.as_deref(), value.origin.to_string())
    };
    assert_eq!(find("stream.batch_interval"), (Some("500ms"), "job.toml:16".to_owned()));
    assert_eq!(find("kafka.insecure"), (Some("false"), "default".to_owned()));
    assert_eq!(find("kafka.start.offsets.orders.0"), (Some("23"), "job.toml:6".to_owned()));
    assert_eq!(find("kafka.properties.sasl.password"), (Some("[hidden]"), "job.toml:12".to_owned()));
    assert_eq!(find("kafka.properties.security.protocol").0, Some("SASL_SSL"));
    assert_eq!(find("output.0.columns.amount.merge").0, Some("add"));
    assert_eq!(find("output.0.columns.user.type"), (None, "default".to_owned()));
    assert_eq!(find("output.1.table").0, Some("log"));
    // What is shown can be given back.
    let sets: Vec<_> = values
        .iter()
        .filter(|value| !value.path.starts_with("kafka.start") && !value.path.contains("password"))
        .filter_map(|value| Some((value.path.clone(), value.value.clone()?)))
        .collect();
    let again = loaded(FULL, &LoadOptions { sets, ..options(&[("PASSWORD", "canary")], &[]) }).job;
    assert_eq!(Job { origins: Origins::default(), ..again }, Job { origins: Origins::default(), ..job });
}

/// A file with nothing but what is required and this one key.
fn file_with(key: &Key, folder: &Path) -> Option<String> {
    if key.example.is_empty() {
        return None;
    }
    let url_file = folder.join("url").display().to_string();
    let example = key.example.replace("URL_FILE", &url_file);
    let path = key.path.replacen("kafka.properties.*", "kafka.properties.\"security.protocol\"", 1);
    let path = path.replacen("offsets.*.*", "offsets.t.\"0\"", 1).replacen("columns.*", "columns.body", 1);
    let required = [
        ("name", "\"t\""),
        ("kafka.bootstrap_servers", "\"localhost:9092\""),
        ("kafka.topics", "[\"t\"]"),
        ("store.url", "\"sqlite:t.db\""),
    ];
    let replaced = |name: &str| match path.as_str() {
        "kafka.topic_pattern" => name == "kafka.topics",
        "store.url_file" => name == "store.url",
        same => name == same,
    };
    let mut text = String::new();
    for (name, value) in required.iter().filter(|(name, _)| !replaced(name)) {
        text.push_str(&format!("{name} = {value}\n"));
    }
    let mut output = vec![("table", "\"t\""), ("columns.body.from", "\"value\"")];
    let upsert = matches!(path.as_str(), "output.key" | "output.mode" | "output.columns.body.merge");
    let mut columns = "";
    if upsert {
        output.extend([("mode", "\"upsert\""), ("key", "[\"id\"]")]);
        columns = "columns.id.from = \"key\"\ncolumns.body.type = \"bigint\"\n";
    }
    match path.strip_prefix("output.") {
        Some(inner) => {
            output.retain(|(name, _)| *name != inner);
            text.push_str("[[output]]\n");
            text.push_str(&format!("{inner} = {example}\n"));
        }
        None => text.push_str(&format!("{path} = {example}\n[[output]]\n")),
    }
    for (name, value) in output {
        text.push_str(&format!("{name} = {value}\n"));
    }
    text.push_str(columns);
    Some(text)
}

#[test]
fn every_key_of_the_reference_can_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("url"), "sqlite:t.db").unwrap();
    for key in KEYS {
        let Some(text) = file_with(key, folder.path()) else { continue };
        let found = faults(&text);
        assert!(found.is_empty(), "{}: {found:#?}\n{text}", key.path);
    }
}

#[test]
fn the_reference_and_the_loader_know_the_same_keys() {
    let known: BTreeSet<String> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    let mut asked = BTreeSet::new();
    let mirrors = "[report]\nconsumer_group.group = \"g\"\nzookeeper = { connect = \"z\", group = \"g\" }\n\
                   traces.endpoint = \"http://c\"\n";
    let timestamp = small_with("[kafka]", "start = { timestamp = 1970-01-01T00:00:00Z }");
    for text in [FULL, &format!("{SMALL}{mirrors}"), &timestamp] {
        asked.extend(parse_noting("job.toml", text, &LoadOptions::default()).1);
    }
    // Tables that only hold keys need no words of their own.
    let holds_keys = |path: &str| {
        let holds = matches!(path, "kafka" | "stream" | "input" | "store" | "report" | "kafka.properties");
        holds || matches!(path, "stream.backpressure" | "kafka.start.offsets" | "kafka.start.offsets.*")
    };
    let asked: BTreeSet<String> = asked.into_iter().filter(|path| !holds_keys(path)).collect();
    assert_eq!(asked, known);
}

#[test]
fn the_defaults_of_the_reference_are_the_loaders() {
    let job = loaded(SMALL, &LoadOptions::default()).job;
    let values = effective(&job);
    for key in KEYS {
        let Some(value) = values.iter().find(|value| value.path == key.path) else { continue };
        match key.default {
            KeyDefault::Required => assert!(value.value.is_some(), "{}", key.path),
            KeyDefault::Unset => assert_eq!(value.value, None, "{}", key.path),
            KeyDefault::Is(default) => assert_eq!(value.value.as_deref(), Some(default), "{}", key.path),
        }
    }
    assert_eq!(values.iter().find(|value| value.path == "output.0.mode").unwrap().value.as_deref(), Some("append"));
    assert_eq!(values.iter().find(|value| value.path == "output.0.create").unwrap().value.as_deref(), Some("false"));
}

#[test]
fn the_page_of_the_keys_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, markdown()).unwrap();
    }
    let page = fs::read_to_string(path).unwrap_or_default();
    assert!(page == markdown(), "run the tests once with UPDATE_DOCS=1 to write docs/configuration.md anew");
}
