//! `peek`: records of ranges on the command line.

use std::fs;

use serde_json::{Value, json};

use super::{Ran, directstream, run};
use crate::support::{End, kafka::tombstone, record, shared_kafka};

fn peek(brokers: &str, arguments: &[&str]) -> Ran {
    run(directstream(&[&["peek", "--bootstrap-servers", brokers], arguments].concat()))
}

fn offsets(brokers: &str, arguments: &[&str]) -> Vec<(i64, i64)> {
    let ran = peek(brokers, &[arguments, &["--output", "json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let number = |record: &Value, name: &str| record[name].as_i64().unwrap();
    let records = document.as_array().unwrap().iter();
    records.map(|record| (number(record, "partition"), number(record, "offset"))).collect()
}

#[tokio::test]
async fn the_records_of_ranges_are_shown_and_nothing_steers_the_terminal() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(2).await;
    let records = vec![
        record("one").key("k").header("trace", Some(b"7")).timestamp(1_500).partition(0),
        record(vec![0, 255]).partition(0).timestamp(1),
        tombstone("gone").partition(0).timestamp(1),
        record("a\x1b[31m\nb").partition(0).timestamp(1),
        record("other").partition(1).timestamp(1),
    ];
    kafka.produce(&topic, records).await;
    let brokers = kafka.brokers();
    let all = [format!("{topic}:0:.."), format!("{topic}:1:0..1")];
    let ran = peek(brokers, &[&all[0], &all[1]]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let lines: Vec<Vec<&str>> = ran.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let time = "1970-01-01T00:00:00.001Z";
    let expected = [
        vec!["TOPIC", "PARTITION", "OFFSET", "TIMESTAMP", "HEADERS", "KEY", "VALUE"],
        vec![&topic, "0", "0", "1970-01-01T00:00:01.500Z", "trace=7", "k", "one"],
        vec![&topic, "0", "1", time, "-", "null", "\\x00\\xff"],
        vec![&topic, "0", "2", time, "-", "gone", "null"],
        vec![&topic, "0", "3", time, "-", "null", "a\\u{1b}[31m\\nb"],
        vec![&topic, "1", "0", time, "-", "null", "other"],
        vec!["records:", "5"],
    ];
    assert_eq!(lines, expected);

    let ran = peek(brokers, &[&format!("{topic}:0:0..1"), "--bytes", "2", "--output", "json"]);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let first = json!([{
        "topic": topic, "partition": 0, "offset": 0, "timestamp": "1970-01-01T00:00:01.500Z",
        "headers": [{"name": "trace", "value": {"bytes": 1, "truncated": false, "base64": "Nw==", "text": "7"}}],
        "key": {"bytes": 1, "truncated": false, "base64": "aw==", "text": "k"},
        "value": {"bytes": 3, "truncated": true, "base64": "b24=", "text": "on"},
    }]);
    assert_eq!(document, first);
    assert_eq!(offsets(brokers, &[&format!("{topic}:0:1..3")]), [(0, 1), (0, 2)]);
    assert_eq!(offsets(brokers, &[&format!("{topic}:0:4..")]), []);
    assert_eq!(offsets(brokers, &[&all[0], &all[1], "--limit", "2"]), [(0, 0), (0, 1)]);
    // Whether there are more is said, and only then.
    for (limit, last) in [("4", "records: 4 (--limit shows more)"), ("5", "records: 5")] {
        let ran = peek(brokers, &[&all[0], &all[1], "--limit", limit]);
        assert_eq!(ran.stdout.lines().last(), Some(last), "{}", ran.stdout);
    }
}

#[tokio::test]
async fn what_is_aborted_is_shown_only_to_who_asks_for_it() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    let two = || vec![record("a").partition(0), record("b").partition(0)];
    kafka.transactions(&topic, vec![(End::Commit, two()), (End::Abort, two()), (End::Commit, two())]).await;
    let all = format!("{topic}:0:..");
    assert_eq!(offsets(kafka.brokers(), &[&all]), [(0, 0), (0, 1), (0, 6), (0, 7)]);
    let uncommitted = offsets(kafka.brokers(), &[&all, "--isolation-level", "read_uncommitted"]);
    assert_eq!(uncommitted, [(0, 0), (0, 1), (0, 3), (0, 4), (0, 6), (0, 7)]);
}

#[tokio::test]
async fn what_cannot_be_shown_is_said_in_one_line() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, vec![record("one").partition(0), record("two").partition(0)]).await;
    let (folder, brokers) = (tempfile::tempdir().unwrap(), kafka.brokers());
    let config = folder.path().join("client.properties");
    fs::write(&config, "enable.auto.commit=true\n").unwrap();
    let (owned, beyond, twice) = (config.to_str().unwrap(), format!("{topic}:0:1..3"), format!("{topic}:0:0..1"));
    for (arguments, code, told) in [
        (vec![beyond.as_str()], 2, "from=1 until=3 earliest=0 latest=2"),
        (vec![&twice, &twice], 2, "two ranges are of the same partition"),
        (vec![&twice, "--command-config", owned], 2, "enable.auto.commit"),
        (vec![&twice, "--command-config", "/nowhere/client.properties"], 2, "cannot read the client's properties"),
    ] {
        let ran = peek(brokers, &arguments);
        let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("directstream: error: ")).collect();
        assert_eq!((ran.code, &*ran.stdout, errors.len()), (code, "", 1), "{}", ran.stderr);
        assert!(errors[0].contains(told), "{}", errors[0]);
    }
    for wrong in ["t:0", "t:0:5", "t:0:5..4", "t:x:0..1", ":0:0..1", "t:0:-1..3"] {
        let ran = peek(brokers, &[wrong]);
        assert!(ran.code == 2 && ran.stderr.contains("TOPIC:PARTITION:FROM..UNTIL"), "{wrong}: {}", ran.stderr);
    }
}
