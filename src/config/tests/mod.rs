//! The job file: a small one, a full one, and what becomes of them.

mod faults;
mod keys;
mod secrets;

use std::time::Duration;

use super::*;
use crate::types::{ColumnSource, ColumnType, Merge, Offset, WriteMode};

/// Every key that can be used today.
const FULL: &str = r#"name = "orders"

[kafka]
bootstrap_servers = "localhost:9092"
topics = ["orders", "more-orders"]
start = { offsets = { orders = { "0" = 23 } } }
isolation_level = "read_committed"
on_data_loss = "skip"
[kafka.properties]
"security.protocol" = "SASL_SSL"
sasl.mechanism = "PLAIN"
"sasl.password" = "${PASSWORD}"
"socket.timeout.ms" = 5000

[stream]
batch_interval = "500ms"
max_rate_per_partition = 10000
min_rate_per_partition = 2
memory_max = "64MiB"
backpressure = { enabled = true, initial_rate = 5000, proportional = 2, integral = 0.5, derived = 0.1, min_rate = 7 }
start_timeout = "1m"
unavailable_max = "1h30m"
batch_deadline = "5m"
max_failures = 20
failures_validity_interval = "10m"

[input]
format = "json"
on_error = "dead_letter"

[store]
url = "postgres://app@${HOST:localhost}/app"
migrate = "off"
ledger_retention = "7d"

[[output]]
table = "shop.orders"
mode = "upsert"
key = ["id"]
create = true
[output.columns]
id     = { from = "value:/id", type = "bigint" }
user   = { from = "value:/user" }
amount = { from = "value:/amount", type = "double precision", merge = "add" }
seen   = { from = "timestamp", type = "timestamptz", merge = "max" }
trace  = { from = "header:trace-id" }

[[output]]
table = "log"
columns.body.from = "value"

[report]
listen = "off"
compatible_names = ["kafka-lag-exporter", "kafka_exporter"]
retained_batches = 50
"#;

/// The least that is a job.
const SMALL: &str = r#"name = "small"
[kafka]
bootstrap_servers = "localhost:9092"
topics = ["t"]
[store]
url = "sqlite:small.db"
[[output]]
table = "t"
[output.columns]
body = { from = "value" }
"#;

fn options(variables: &[(&str, &str)], sets: &[(&str, &str)]) -> LoadOptions {
    LoadOptions {
        environment: variables.iter().copied().collect(),
        sets: sets.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        allow_unsafe_kafka_options: false,
    }
}

fn loaded(text: &str, options: &LoadOptions) -> Loaded {
    parse("job.toml", text, options).unwrap_or_else(|faults| panic!("{faults}"))
}

fn full() -> Loaded {
    loaded(FULL, &options(&[("PASSWORD", "canary")], &[]))
}

/// The faults of a text, one line each.
fn faults(text: &str) -> Vec<String> {
    faults_with(text, &LoadOptions::default())
}

fn faults_with(text: &str, options: &LoadOptions) -> Vec<String> {
    match parse("job.toml", text, options) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.to_string().lines().map(str::to_owned).collect(),
    }
}

/// The small job with a line put after the header of a section.
fn small_with(section: &str, line: &str) -> String {
    let changed = SMALL.replacen(&format!("{section}\n"), &format!("{section}\n{line}\n"), 1);
    assert_ne!(changed, SMALL);
    changed
}

#[test]
fn every_key_of_a_file_is_read() {
    let Loaded { job, warnings } = full();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(job.name, "orders");
    assert_eq!(job.kafka.bootstrap_servers, "localhost:9092");
    assert_eq!(job.kafka.subscription, Subscription::Topics(vec!["orders".to_owned(), "more-orders".to_owned()]));
    let StartPolicy::Offsets(start) = &job.kafka.start else { panic!("{:?}", job.kafka.start) };
    assert_eq!(start["orders"][&0], Offset::new(23).unwrap());
    assert_eq!(job.kafka.on_data_loss, OnDataLoss::Skip);
    let properties: Vec<_> = job.kafka.properties.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
    assert_eq!(
        properties,
        [
            ("sasl.mechanism", "PLAIN"),
            ("sasl.password", "canary"),
            ("security.protocol", "SASL_SSL"),
            ("socket.timeout.ms", "5000")
        ]
    );
    assert_eq!(job.stream.batch_interval, Duration::from_millis(500));
    assert_eq!(job.stream.max_rate_per_partition, Some(10_000));
    assert_eq!(job.stream.min_rate_per_partition, 2);
    assert_eq!(job.stream.memory_max, 64 << 20);
    let backpressure = BackpressureConfig {
        enabled: true,
        initial_rate: Some(5000),
        proportional: 2.0,
        integral: 0.5,
        derived: 0.1,
        min_rate: 7,
    };
    assert_eq!(job.stream.backpressure, backpressure);
    assert_eq!(job.stream.start_timeout, Duration::from_secs(60));
    assert_eq!(job.stream.unavailable_max, Duration::from_secs(5400));
    assert_eq!(job.stream.batch_deadline, Duration::from_secs(300));
    assert_eq!((job.stream.max_failures, job.stream.failures_validity_interval), (20, Duration::from_secs(600)));
    assert_eq!(job.input, InputConfig { format: InputFormat::Json, on_error: OnError::DeadLetter });
    assert_eq!(job.store.url.expose(), "postgres://app@localhost/app");
    assert_eq!(job.store.migrate, Migrate::Off);
    assert_eq!(job.store.ledger_retention, Duration::from_secs(7 * 86_400));
    assert_eq!((job.report.listen, job.report.retained_batches), (None, 50));
    assert_eq!(job.report.compatible_names, CompatibleNames::ALL.into());
}

#[test]
fn outputs_are_read_with_their_columns_in_the_order_of_the_file() {
    let job = full().job;
    let [orders, log] = job.outputs.as_slice() else { panic!("{:?}", job.outputs) };
    assert_eq!(orders.table.to_string(), "shop.orders");
    assert_eq!((orders.mode, orders.create, orders.key.as_slice()), (WriteMode::Upsert, true, &["id".to_owned()][..]));
    let columns: Vec<_> = orders.columns.iter().map(|c| (c.name.as_str(), c.column_type, c.merge)).collect();
    assert_eq!(
        columns,
        [
            ("id", Some(ColumnType::BigInt), Merge::Last),
            ("user", None, Merge::Last),
            ("amount", Some(ColumnType::Double), Merge::Add),
            ("seen", Some(ColumnType::Timestamptz), Merge::Max),
            ("trace", None, Merge::Last),
        ]
    );
    assert_eq!(orders.columns[0].source, Some(ColumnSource::ValuePointer("/id".to_owned())));
    assert_eq!(orders.columns[4].source, Some(ColumnSource::Header("trace-id".to_owned())));
    assert_eq!((log.mode, log.create, log.key.len()), (WriteMode::Append, false, 0));
    assert_eq!(log.columns[0].source, Some(ColumnSource::Value));
}

#[test]
fn what_is_not_given_has_its_default() {
    let job = loaded(SMALL, &LoadOptions::default()).job;
    assert_eq!(job.stream, StreamConfig::default());
    assert_eq!(job.input, InputConfig::default());
    assert_eq!(job.report, ReportConfig::default());
    assert_eq!(job.kafka.start, StartPolicy::Earliest);
    assert_eq!(job.kafka.on_data_loss, OnDataLoss::Fail);
    assert_eq!(job.kafka.isolation_level, IsolationLevel::ReadCommitted);
    assert_eq!(job.store.ledger_retention, LEDGER_RETENTION_DEFAULT);
}

#[test]
fn a_higher_layer_wins_and_every_value_knows_its_layer() {
    let options = options(
        &[
            ("DIRECTSTREAM__STREAM__BATCH_INTERVAL", "2s"),
            ("DIRECTSTREAM__STREAM__MEMORY_MAX", "32MiB"),
            ("DIRECTSTREAM__KAFKA__TOPICS", "a, b"),
            ("DIRECTSTREAM__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "ssl"),
            ("DIRECTSTREAM__OUTPUT__1__CREATE", "true"),
            ("DIRECTSTREAMER", "not ours"),
            ("PASSWORD", "p"),
        ],
        &[
            ("stream.memory_max", "16MiB"),
            ("kafka.properties.client.id", "me"),
            ("stream.max_rate_per_partition", "7"),
            ("kafka.start", "latest"),
            ("output.0.key", "[\"user\"]"),
            ("output.0.columns.id.merge", "first"),
            ("report.listen", "127.0.0.1:1"),
        ],
    );
    let job = loaded(FULL, &options).job;
    assert_eq!(job.stream.batch_interval, Duration::from_secs(2));
    assert_eq!(job.stream.memory_max, 16 << 20);
    assert_eq!(job.stream.max_rate_per_partition, Some(7));
    assert_eq!(job.kafka.subscription, Subscription::Topics(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(job.kafka.properties["security.protocol"].expose(), "ssl");
    assert_eq!(job.kafka.properties["client.id"].expose(), "me");
    assert_eq!(job.kafka.start, StartPolicy::Latest);
    assert!(job.outputs[1].create);
    assert_eq!(job.outputs[0].key, ["user"]);
    let origin = |path: &str| job.origins.of(path).to_string();
    assert_eq!(origin("stream.batch_interval"), "environment DIRECTSTREAM__STREAM__BATCH_INTERVAL");
    assert_eq!(origin("stream.memory_max"), "--set");
    assert_eq!(origin("stream.unavailable_max"), "job.toml:22");
    assert_eq!(origin("kafka.properties.client.id"), "--set");
    assert_eq!(origin("kafka.properties.sasl.mechanism"), "job.toml:11");
    assert_eq!(origin("kafka.insecure"), "default");
    assert_eq!(origin("output.0.columns.id.merge"), "--set");
    assert_eq!(origin("output.0.columns.amount.type"), "job.toml:44");
}

#[test]
fn a_table_can_be_laid_over_a_word_and_a_word_over_a_table() {
    let sets = |sets: &[(&str, &str)]| options(&[], sets);
    let start = |options: &LoadOptions| loaded(&small_with("[kafka]", "start = \"latest\""), options).job.kafka.start;
    let dotted = start(&sets(&[("kafka.start.offsets.t.3", "5")]));
    let whole = start(&sets(&[("kafka.start", "{ offsets = { t = { \"3\" = 5 } } }")]));
    assert_eq!(dotted, whole);
    let StartPolicy::Offsets(topics) = dotted else { panic!("{dotted:?}") };
    assert_eq!(topics["t"][&3].get(), 5);
    let timestamp = start(&sets(&[("kafka.start.timestamp", "1970-01-01T00:00:01Z")]));
    assert_eq!(timestamp, StartPolicy::Timestamp(1_000));
    assert_eq!(start(&LoadOptions::default()), StartPolicy::Latest);
    let bare = loaded(&small_with("[kafka]", "start = { timestamp = 1970-01-01T00:00:01Z }"), &LoadOptions::default());
    assert_eq!(bare.job.kafka.start, StartPolicy::Timestamp(1_000));
}

#[test]
fn of_keys_that_exclude_each_other_the_higher_layer_wins() {
    let job = loaded(SMALL, &options(&[("DIRECTSTREAM__KAFKA__TOPIC_PATTERN", "[1]")], &[])).job;
    assert_eq!(job.kafka.subscription, Subscription::Pattern("[1]".to_owned()));
}

#[test]
fn a_number_can_be_filled_into_a_string() {
    let text = small_with("[store]", "ledger_retention = \"${DAYS:3}d\"");
    let text = format!("{text}\n[stream]\nmax_rate_per_partition = \"${{RATE}}\"\n");
    let job = loaded(&text, &options(&[("RATE", "12")], &[])).job;
    assert_eq!(job.stream.max_rate_per_partition, Some(12));
    assert_eq!(job.store.ledger_retention, Duration::from_secs(3 * 86_400));
    // A string that was not filled stays a string.
    assert_eq!(
        faults(&format!("{SMALL}[stream]\nmax_rate_per_partition = \"12\"\n")),
        ["job.toml:12:26: stream.max_rate_per_partition: expected an integer, found a string word=\"12\""]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.toml");
    let load = || load(&path, &LoadOptions::default());
    assert!(load().unwrap_err().to_string().ends_with("cannot read the job file: entity not found"));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(load().unwrap_err().to_string().ends_with("a job file is UTF-8 text"));
    std::fs::write(&path, SMALL).unwrap();
    assert_eq!(load().unwrap().job.name, "small");
}
