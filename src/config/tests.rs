use std::{collections::BTreeSet, time::Duration};

use super::{
    load::parse_noting,
    reference::{KEYS, Key, KeyDefault, markdown},
    *,
};
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
backpressure = { enabled = false, initial_rate = 5000 }
start_timeout = "1m"
unavailable_max = "1h30m"

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
    assert_eq!(job.stream.backpressure, BackpressureConfig { enabled: false, initial_rate: Some(5000) });
    assert_eq!(job.stream.start_timeout, Duration::from_secs(60));
    assert_eq!(job.stream.unavailable_max, Duration::from_secs(5400));
    assert_eq!(job.input, InputConfig { format: InputFormat::Json, on_error: OnError::DeadLetter });
    assert_eq!(job.store.url.expose(), "postgres://app@localhost/app");
    assert_eq!(job.store.migrate, Migrate::Off);
    assert_eq!(job.store.ledger_retention, Duration::from_secs(7 * 86_400));
    assert_eq!(job.report.listen, None);
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
    assert_eq!(origin("output.0.columns.amount.type"), "job.toml:41");
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

/// Section, line put into the small job, and what must be said of it.
const WRONG: &[(&str, &str, &str)] = &[
    ("[kafka]", "topicz = 1", "kafka.topicz: unknown key; did you mean topics? word=\"topicz\""),
    ("[kafka]", "batch_interval = \"1s\"", "unknown key; did you mean stream.batch_interval?"),
    ("[kafka]", "auto.offset.reset = \"latest\"", "unknown key; did you mean kafka.start?"),
    ("[kafka]", "socket.timeout.ms = 5", "unknown key; librdkafka's own keys go into kafka.properties"),
    ("[kafka]", "completely_else = 1", "kafka.completely_else: unknown key word=\"completely_else\""),
    ("[kafka]", "start = \"earlyest\"", "kafka.start: not \"earliest\", \"latest\", \"none\""),
    ("[kafka]", "start = 5", "kafka.start: expected a string, found an integer word=\"5\""),
    ("[kafka]", "start = { timestamp = \"2026-01-01\" }", "kafka.start.timestamp: not an RFC 3339 time"),
    (
        "[kafka]",
        "start = { offsets = { u = { \"0\" = 1 } } }",
        "an offset for a topic that the job does not read word=\"u\"",
    ),
    ("[kafka]", "start = { offsets = { t = { \"-1\" = 1 } } }", "not the number of a partition word=\"-1\""),
    ("[kafka]", "start = { offsets = { t = { \"0\" = -2 } } }", "must be at least 0 word=\"-2\""),
    ("[kafka]", "start = { offsets = { t = { \"0\" = 1, \"00\" = 2 } } }", "the same partition twice"),
    ("[kafka]", "start = {}", "kafka.start: expected a timestamp or offsets in it"),
    ("[kafka]", "start = { offset = 1 }", "kafka.start.offset: unknown key; did you mean offsets?"),
    ("[kafka]", "start = { timestamp = 1970-01-01T00:00:00Z, offsets = {} }", "either timestamp or offsets"),
    ("[kafka]", "topic_pattern = \"x\"", "kafka.topic_pattern: either topics or topic_pattern, not both"),
    (
        "[kafka]",
        "isolation_level = \"serializable\"",
        "not one of \"read_committed\", \"read_uncommitted\" word=\"serializable\"",
    ),
    ("[kafka]", "on_data_loss = \"ignore\"", "not one of \"fail\", \"skip\""),
    (
        "[kafka]",
        "properties.\"group.id\" = \"g\"",
        "kafka.properties.group.id: this librdkafka key belongs to the program",
    ),
    (
        "[kafka]",
        "properties.enable.auto.commit = true",
        "kafka.properties.enable.auto.commit: this librdkafka key belongs",
    ),
    (
        "[kafka]",
        "properties.auto.offset.reset = \"x\"",
        "kafka.properties.auto.offset.reset: this librdkafka key belongs",
    ),
    ("[kafka]", "properties.enable.auto.offset.store = true", "belongs to the program"),
    ("[kafka]", "properties.isolation.level = \"x\"", "it is kafka.isolation_level"),
    ("[kafka]", "properties.check.crcs = false", "belongs to the program"),
    ("[kafka]", "properties.allow.auto.create.topics = true", "belongs to the program"),
    ("[kafka]", "properties.enable.partition.eof = false", "belongs to the program"),
    ("[kafka]", "properties.bootstrap.servers = \"x\"", "it is kafka.bootstrap_servers"),
    (
        "[kafka]",
        "properties.plugin.library.paths = \"x\"",
        "refused without --allow-unsafe-kafka-options: it loads code",
    ),
    ("[kafka]", "properties.ssl.engine.location = \"x\"", "it loads code"),
    ("[kafka]", "properties.ssl.providers = \"x\"", "it loads code"),
    ("[kafka]", "properties.\"sasl.kerberos.kinit.cmd\" = \"x\"", "it runs a command"),
    ("[kafka]", "properties.debug = \"all\"", "it can print credentials word=\"debug\""),
    ("[kafka]", "properties.log_level = 7", "the log has its own filter"),
    ("[kafka]", "properties.\"fetch.wiat.max.ms\" = 7", "librdkafka has no such key word=\"fetch.wiat.max.ms\""),
    ("[kafka]", "properties.\"fetch.min.bytes\" = \"many\"", "librdkafka does not take this value word=\"many\""),
    ("[kafka]", "properties.\"fetch.min.bytes\" = [1]", "expected a string, a number or a boolean, found a list"),
    ("[kafka]", "properties.\"enable.ssl.certificate.verification\" = false", "say kafka.insecure = true"),
    ("[kafka]", "properties.\"ssl.endpoint.identification.algorithm\" = \"none\"", "say kafka.insecure = true"),
    ("[kafka]", "insecure = \"yes\"", "kafka.insecure: expected true or false, found a string word=\"yes\""),
    ("[store]", "url_file = \"x\"", "store.url_file: either url or url_file, not both"),
    ("[store]", "migrate = false", "store.migrate: expected a string, found a boolean word=\"false\""),
    ("[store]", "ledger_retention = \"1s\"", "must be at least 1m word=\"1s\""),
    ("[store]", "password = \"canary\"", "store.password: unknown key word=\"password\""),
    ("[[output]]", "mode = \"upsert\"", "output.0.key: missing: an upsert needs the columns of a unique key"),
    ("[[output]]", "key = [\"body\"]", "output.0.key: a key goes with mode = \"upsert\" word=\"key\""),
    (
        "[[output]]",
        "mode = \"upsert\"\nkey = [\"id\"]",
        "output.0.key.0: the key names no column of this output word=\"id\"",
    ),
    ("[[output]]", "mode = \"upsert\"\nkey = [\"body\", \"body\"]", "the same column twice word=\"body\""),
    ("[[output]]", "mode = \"upsert\"\nkey = []", "names no column"),
    ("[[output]]", "mode = \"insert\"", "not one of \"append\", \"upsert\" word=\"insert\""),
    ("[[output]]", "create = 1", "expected true or false, found an integer"),
    ("[[output]]", "colums.x.from = \"key\"", "output.0.colums: unknown key; did you mean columns?"),
    ("[output.columns]", "1st = { from = \"key\" }", "output.0.columns.1st: an identifier is letters"),
    ("[output.columns]", "'a\";drop table x;--' = { from = \"key\" }", "an identifier is letters"),
    ("[output.columns]", "x = { type = \"text\" }", "output.0.columns.x.from: missing"),
    ("[output.columns]", "x = { from = \"values\" }", "output.0.columns.x.from: not one of key, value"),
    ("[output.columns]", "x = { from = \"value:id\" }", "a json pointer begins with a slash"),
    ("[output.columns]", "x = { from = \"value:/a~b\" }", "~ is written ~0"),
    ("[output.columns]", "x = { from = \"header:\" }", "names no header"),
    ("[output.columns]", "x = \"key\"", "output.0.columns.x: expected a table, found a string"),
    ("[output.columns]", "x = { from = \"key\", type = \"varchar(7)\" }", "not a column type: boolean, smallint"),
    ("[output.columns]", "x = { from = \"key\", merge = \"add\" }", "merge goes with mode = \"upsert\" word=\"merge\""),
    (
        "[output.columns]",
        "x = { from = \"key\", merges = \"add\" }",
        "columns.x.merges: unknown key; did you mean merge?",
    ),
    ("[output.columns]", "BODY = { from = \"key\" }", "the same column twice: sqlite does not tell"),
    ("[output.columns]", "body = { from = \"key\" }", "not toml: duplicate key word=\"body\""),
];

#[test]
fn every_fault_is_found_where_it_is() {
    let mut wrong = Vec::new();
    for (section, line, expected) in WRONG {
        let found = faults(&small_with(section, line));
        let placed = found.iter().all(|fault| fault.starts_with("job.toml:") && !fault.contains("canary"));
        if found.len() != 1 || !placed || !found[0].contains(expected) {
            wrong.push(format!("{line}: {expected}\n    {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn values_of_the_stream_input_and_report_sections_are_checked() {
    for (section, line, expected) in [
        ("stream", "batch_interval = \"5 parsecs\"", ":12:18: stream.batch_interval: not a duration such as"),
        ("stream", "batch_interval = 500", "expected a string, found an integer word=\"500\""),
        ("stream", "batch_interval = \"1ms\"", "must be between 10ms and 1d word=\"1ms\""),
        ("stream", "max_rate_per_partition = 0", "must be at least 1 word=\"0\""),
        ("stream", "max_rate_per_partition = -5", "must be at least 1 word=\"-5\""),
        ("stream", "max_rate_per_partition = 1.5", "expected an integer, found a floating point number word=\"1.5\""),
        (
            "stream",
            "max_rate_per_partition = 99999999999999999999",
            "the number does not fit word=\"99999999999999999999\"",
        ),
        ("stream", "min_rate_per_partition = 0", "must be at least 1"),
        ("stream", "memory_max = \"512\"", "a size needs a unit"),
        ("stream", "memory_max = \"1KiB\"", "must be at least 1MiB"),
        (
            "stream",
            "backpressure = { enabled = true }",
            "stream.backpressure.enabled: backpressure is not supported yet",
        ),
        ("stream", "backpressure = true", "stream.backpressure: expected a table, found a boolean"),
        ("stream", "start_timeout = \"0s\"", "must be at least 1ms"),
        ("stream", "maxRatePerPartition = 5", "did you mean max_rate_per_partition?"),
        ("stream", "spark.streaming.kafka.maxRatePerPartition = 5", "did you mean stream.max_rate_per_partition?"),
        ("input", "format = \"avro\"", "input.format: not one of \"json\", \"text\", \"bytes\" word=\"avro\""),
        ("input", "on_error = \"skip\"", "not one of \"fail\", \"dead_letter\""),
        ("report", "listen = \"9464\"", "report.listen: not an address and a port"),
        (
            "report",
            "consumer_group.group = \"g\"",
            "report.consumer_group: the mirror into a consumer group is not supported yet",
        ),
        ("report", "zookeeper = { connect = \"z\", group = \"g\" }", "the mirror into zookeeper is not supported yet"),
        ("raport", "listen = \"off\"", "job.toml:11:2: raport: unknown key; did you mean report? word=\"raport\""),
    ] {
        let found = faults(&format!("{SMALL}[{section}]\n{line}\n"));
        assert_eq!(found.len(), 1, "{line}: {found:?}");
        assert!(found[0].contains(expected), "{line}: {found:?}");
    }
}

#[test]
fn what_is_missing_is_said_key_by_key() {
    assert_eq!(
        faults(""),
        [
            "job.toml: name: missing",
            "job.toml: kafka.bootstrap_servers: missing",
            "job.toml: kafka.topics: missing: name the topics, or give a topic_pattern",
            "job.toml: store.url: missing: give a url, or a url_file with it",
            "job.toml: output: missing: name at least one table in an [[output]]",
        ]
    );
    let found = faults("kafka = 5\noutput = []\nname = \"a b\"\nstore = {}\n");
    assert_eq!(
        found,
        [
            "job.toml:1:9: kafka: expected a table, found an integer word=\"5\"",
            "job.toml:2:10: output: names no table",
            "job.toml:3:8: name: an application id is letters, digits, dot, underscore and hyphen word=\"a b\"",
            "job.toml:4:1: store.url: missing: give a url, or a url_file with it",
        ]
    );
}

#[test]
fn all_faults_of_all_layers_are_reported_together_in_order() {
    let text =
        SMALL.replace("topics = [\"t\"]", "topics = [\"t\", \"t\", \"a b\"]").replace("\"value\"", "\"${GONE}\"");
    let options = options(
        &[("DIRECTSTREAM__STREAM__BATCH_INTERVAL", "soon"), ("DIRECTSTREAM__STORE__URI", "x")],
        &[("kafka.topics.x", "1"), ("output.7.create", "true"), ("stream..x", "1"), ("input.format", "xml")],
    );
    let found = faults_with(&text, &options);
    for expected in [
        "job.toml:10:17: output.0.columns.body.from: the variable is not in the environment, and ${} gives no default word=\"GONE\"",
        "environment DIRECTSTREAM__STORE__URI: store.uri: unknown key; did you mean url? word=\"uri\"",
        "environment DIRECTSTREAM__STREAM__BATCH_INTERVAL: stream.batch_interval: not a duration",
        "--set: kafka.topics.x: the file has no table topics.x",
        "--set: output.7.create: the file has no table output.7",
        "--set: stream..x: not a key path",
        "--set: input.format: not one of",
        "job.toml:4:16: kafka.topics.1: the same topic twice word=\"t\"",
        "job.toml:4:21: kafka.topics.2: not a topic's name",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(expected)), "{expected}\n{found:#?}");
    }
    assert_eq!(found.len(), 9, "{found:#?}");
    assert!(found.iter().rposition(|fault| fault.starts_with("job.toml")).unwrap() < 3, "{found:#?}");
    let error = crate::Error::from(parse("job.toml", &text, &options).unwrap_err());
    assert_eq!(error.kind().exit_code(), 2);
}

#[test]
fn merges_must_fit_their_column() {
    for (line, expected) in [
        ("id = { from = \"key\", type = \"bigint\", merge = \"add\" }", Some("a key column has nothing to merge")),
        ("n = { from = \"one\", type = \"bigint\", merge = \"add\" }", None),
        (
            "n = { from = \"one\", type = \"text\", merge = \"add\" }",
            Some("only numbers can be added, and this column is text"),
        ),
        ("n = { from = \"one\", merge = \"add\" }", Some("only numbers can be added")),
        ("n = { from = \"value\", type = \"jsonb\", merge = \"max\" }", Some("jsonb has no smaller and larger")),
        ("n = { from = \"value\", type = \"text\", merge = \"max\" }", None),
        (
            "n = { from = \"value\", merge = \"sum\" }",
            Some("not one of \"last\", \"first\", \"add\", \"min\", \"max\""),
        ),
    ] {
        let head = SMALL.replace("table = \"t\"", "table = \"t\"\nmode = \"upsert\"\nkey = [\"id\"]\ncreate = true");
        let id = if line.starts_with("id") { "" } else { "id = { from = \"key\" }\n" };
        let found = faults(&format!("{head}{id}{line}\n"));
        assert_eq!(found.len(), usize::from(expected.is_some()), "{line}: {found:?}");
        assert!(found.iter().all(|fault| fault.contains(expected.unwrap_or_default())), "{found:?}");
    }
    // Where the table is there already, its own type decides at start.
    let text = SMALL.replace("table = \"t\"", "table = \"t\"\nmode = \"upsert\"\nkey = [\"body\"]");
    assert!(faults(&format!("{text}n = {{ from = \"one\", merge = \"add\" }}\n")).is_empty());
}

#[test]
fn tables_are_named_once_and_not_like_the_programs_own() {
    for (store, table, expected) in [
        ("postgres://h/d", "t", "the same table in two outputs"),
        ("sqlite:x.db", "T", "the same table in two outputs"),
        ("postgres://localhost/d", "directstream.offsets", "belongs to the program's own tables"),
        ("sqlite:x.db", "directstream_offsets", "belongs to the program's own tables"),
        ("sqlite:x.db", "a;b", "an identifier is letters"),
    ] {
        let text = SMALL.replace("sqlite:small.db", store);
        let found = faults(&format!("{text}[[output]]\ntable = \"{table}\"\ncolumns.x.from = \"key\"\n"));
        assert!(found.len() == 1 && found[0].contains(expected), "{table}: {found:?}");
    }
    let text = SMALL.replace("sqlite:small.db", "postgres://localhost/d");
    assert!(faults(&format!("{text}[[output]]\ntable = \"T\"\ncolumns.x.from = \"key\"\n")).is_empty());
    let long = "x".repeat(64);
    assert!(faults(&SMALL.replace("table = \"t\"", &format!("table = \"{long}\""))).len() == 1);
}

#[test]
fn a_pointer_needs_json() {
    let text = SMALL.replace("\"value\"", "\"value:/a\"");
    assert!(faults(&text).is_empty());
    let found = faults(&format!("{text}[input]\nformat = \"text\"\n"));
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("needs input.format = \"json\" word=\"value:/a\""), "{found:?}");
}

#[test]
fn what_is_not_toml_is_located_without_being_repeated() {
    for text in ["name = \n", "x = postgres://u:canary@h\n", "[kafka\n", "= 1\n", "a = \"canary\n"] {
        let found = faults(text);
        assert!(!found.is_empty());
        assert!(found.iter().all(|fault| fault.starts_with("job.toml:1:") && fault.contains("not toml")), "{found:?}");
        assert!(!found.iter().any(|fault| fault.contains("canary")), "{found:?}");
    }
}

#[test]
fn a_pattern_must_be_a_regular_expression() {
    let with = |pattern: &str| SMALL.replace("topics = [\"t\"]", &format!("topic_pattern = '{pattern}'"));
    let found = faults(&with("a(b"));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("kafka.topic_pattern: not a regular expression: unclosed group word=\"a(b\""),
        "{found:?}"
    );
    assert!(faults(&with("orders-.*")).is_empty());
    let found = faults(&with("").replace("[store]", "start = { offsets = { other = {} } }\n[store]"));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_url_is_named_by_its_scheme_alone() {
    let found = faults(&SMALL.replace("sqlite:small.db", "mysql://app:canary@db/app"));
    assert_eq!(found, ["job.toml:6:7: store.url: the url must begin with postgres:// or sqlite: word=\"mysql://...\""]);
    for (key, value) in [
        ("name = \"small\"", "name = \"postgres://u:canary@h\""),
        ("sqlite:small.db", "canary"),
        ("topics = [\"t\"]", "topics = [\"kafka://u:canary@h\"]"),
        ("localhost:9092", "kafka://u:canary@h/x"),
        ("[store]\nurl = ", "[store]\n\"postgres://u:canary@h\" = 1\nurl = "),
        ("[store]\nurl = \"sqlite:small.db\"", "[store]\nurl = [\"postgres://u:canary@h\"]"),
        ("\"value\"", "\"postgres://u:canary@h\""),
    ] {
        let found = faults(&SMALL.replace(key, value));
        assert!(!found.is_empty());
        assert!(!found.iter().any(|fault| fault.contains("canary")), "{found:?}");
    }
}

#[test]
fn a_secret_is_printed_by_nothing() {
    let options = options(
        &[("URL", "postgres://app:canary1@db/app"), ("PASSWORD", "canary2"), ("NUMBER", "canary3")],
        &[("kafka.properties.ssl.key.password", "canary4"), ("kafka.properties.sasl.username", "canary5")],
    );
    let text = FULL.replace("postgres://app@${HOST:localhost}/app", "${URL}");
    let Loaded { job, warnings } = loaded(&text, &options);
    let shown = format!("{job:#?}{:#?}{warnings:#?}{options:?}", effective(&job));
    assert!(job.store.url.expose().contains("canary1"));
    // The options hold what the command line held; it is the shell that made it public, and a warning says so.
    let shown = shown.replace("(\"kafka.properties.ssl.key.password\", \"canary4\")", "");
    let shown = shown.replace("canary5\")", "");
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("postgres://app@db/app"), "{shown}");
    // A secret in a place where it does not fit is not repeated either: only what the file says is.
    let text = text.replace("max_rate_per_partition = 10000", "max_rate_per_partition = \"${NUMBER}\"");
    let found = faults_with(&text, &options);
    assert_eq!(found.len(), 1);
    assert!(found[0].ends_with("word=\"${NUMBER}\""), "{found:?}");
    // librdkafka repeats what it refuses; we do not.
    let found = faults(&small_with("[kafka]", "properties.\"sasl.oauthbearer.method\" = \"canary\""));
    assert!(found.len() == 1 && !found[0].contains("canary"), "{found:?}");
}

#[test]
fn secrets_in_the_open_are_warned_of() {
    let warnings = |text: &str, options: &LoadOptions| -> Vec<String> {
        loaded(text, options).warnings.iter().map(ToString::to_string).collect()
    };
    let url = |url: &str| SMALL.replace("sqlite:small.db", url);
    let none = LoadOptions::default();
    let secret = options(&[("P", "canary")], &[]);
    assert!(warnings(&url("postgres://app:${P}@localhost/app"), &secret).is_empty());
    let open = warnings(&url("postgres://app:canary@localhost/app"), &none);
    assert_eq!(open, ["job.toml:6:7: store.url: a password stands in the open here: use url_file or ${VAR}"]);
    assert_eq!(warnings(&url("postgres://app:${P:canary}@localhost/app"), &none).len(), 1);
    let set = options(&[], &[("store.url", "postgres://app:canary@localhost/app")]);
    assert_eq!(warnings(SMALL, &set).len(), 1);
    let environment = options(&[("DIRECTSTREAM__STORE__URL", "postgres://app:canary@localhost/app")], &[]);
    assert!(warnings(SMALL, &environment).is_empty());
    let property = small_with("[kafka]", "properties.\"sasl.password\" = \"canary\"");
    assert_eq!(warnings(&property, &none).len(), 1);
    let remote = warnings(&SMALL.replace("localhost:9092", "kafka:9092"), &none);
    assert!(remote.len() == 1 && remote[0].contains("unencrypted"), "{remote:?}");
    assert_eq!(warnings(&url("postgres://db/app"), &none).len(), 1);
    assert!(warnings(&url("postgres://db/app?sslmode=verify-full"), &none).is_empty());
    assert_eq!(warnings(&format!("{SMALL}[report]\nlisten = \"0.0.0.0:9464\"\n"), &none).len(), 1);
}

#[test]
fn dangerous_keys_pass_when_they_are_asked_for() {
    let options = LoadOptions { allow_unsafe_kafka_options: true, ..LoadOptions::default() };
    let job = loaded(&small_with("[kafka]", "properties.debug = \"consumer\""), &options).job;
    assert_eq!(job.kafka.properties["debug"].expose(), "consumer");
    let text = small_with("[kafka]", "insecure = true\nproperties.\"enable.ssl.certificate.verification\" = false");
    assert!(loaded(&text, &LoadOptions::default()).job.kafka.insecure);
}

#[test]
fn the_url_can_stand_in_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    let text = SMALL.replace("url = \"sqlite:small.db\"", &format!("url_file = \"{}\"", path.display()));
    let found = faults(&text);
    assert!(found.len() == 1 && found[0].contains("cannot read the file: entity not found"), "{found:?}");
    std::fs::write(&path, "postgres://app:canary@localhost/app\n").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(loaded(&text, &LoadOptions::default()).warnings.len(), 1);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let Loaded { job, warnings } = loaded(&text, &LoadOptions::default());
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(job.store.url.expose(), "postgres://app:canary@localhost/app");
    let shown = effective(&job).into_iter().find(|value| value.path == "store.url_file").unwrap();
    assert_eq!(shown.value.as_deref(), Some("postgres://app@localhost/app"));
    assert_eq!(shown.origin.to_string(), "job.toml:6");
    std::fs::write(&path, "canary").unwrap();
    let found = faults(&text);
    assert!(found.len() == 1 && !found[0].contains("canary"), "{found:?}");
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
fn file_with(key: &Key, folder: &std::path::Path) -> Option<String> {
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
    std::fs::write(folder.path().join("url"), "sqlite:t.db").unwrap();
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
    let mirrors = "[report]\nconsumer_group.group = \"g\"\nzookeeper = { connect = \"z\", group = \"g\" }\n";
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
        std::fs::write(path, markdown()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(page == markdown(), "run the tests once with UPDATE_DOCS=1 to write docs/configuration.md anew");
}
