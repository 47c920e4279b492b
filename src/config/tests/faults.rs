//! What is wrong, and where it is said to be.

use super::*;

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
    ("[kafka]", "properties.\"socket.timeout.ms\" = \"many\"", "librdkafka does not take this value word=\"many\""),
    ("[kafka]", "properties.\"socket.timeout.ms\" = [1]", "expected a string, a number or a boolean, found a list"),
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
fn values_of_the_stream_and_input_sections_are_checked() {
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
        // SC-17, with its place.
        (
            "stream",
            "backpressure.initial_rate = 0",
            "job.toml:12:29: stream.backpressure.initial_rate: must be at least 1",
        ),
        (
            "stream",
            "backpressure.proportional = -1",
            ":12:29: stream.backpressure.proportional: must be a finite number",
        ),
        (
            "stream",
            "backpressure.integral = -0.1",
            ":12:25: stream.backpressure.integral: must be a finite number from 0",
        ),
        ("stream", "backpressure.derived = inf", ":12:24: stream.backpressure.derived: must be a finite number from 0"),
        ("stream", "backpressure.derived = \"0.1\"", "expected a number, found a string word=\"0.1\""),
        ("stream", "backpressure.min_rate = 0", ":12:25: stream.backpressure.min_rate: must be at least 1 word=\"0\""),
        ("stream", "backpressure.min_rate = -10", "must be at least 1 word=\"-10\""),
        ("stream", "backpressure.min_rate = 0.5", "expected an integer, found a floating point number"),
        ("stream", "backpressure.rate_estimator = \"pid\"", "stream.backpressure.rate_estimator: unknown key"),
        ("stream", "backpressure.initialRate = 5", "did you mean initial_rate?"),
        ("stream", "backpressure = true", "stream.backpressure: expected a table, found a boolean"),
        ("stream", "start_timeout = \"0s\"", "must be at least 1ms"),
        ("stream", "maxRatePerPartition = 5", "did you mean max_rate_per_partition?"),
        ("stream", "spark.streaming.kafka.maxRatePerPartition = 5", "did you mean stream.max_rate_per_partition?"),
        ("input", "format = \"avro\"", "input.format: not one of \"json\", \"text\", \"bytes\" word=\"avro\""),
        ("input", "on_error = \"skip\"", "not one of \"fail\", \"dead_letter\""),
        ("raport", "listen = \"off\"", "job.toml:11:2: raport: unknown key; did you mean report? word=\"raport\""),
    ] {
        let found = faults(&format!("{SMALL}[{section}]\n{line}\n"));
        assert_eq!(found.len(), 1, "{line}: {found:?}");
        assert!(found[0].contains(expected), "{line}: {found:?}");
    }
}

#[test]
fn values_of_the_report_section_are_checked() {
    for (section, line, expected) in [
        ("report", "listen = \"9464\"", "report.listen: not an address and a port"),
        ("report", "consumer_group.group = \"\"", "report.consumer_group.group: not the name of a consumer group"),
        ("report", "consumer_group = {}", "report.consumer_group.group: missing"),
        ("report", "zookeeper.group = \"g\"", "report.zookeeper.connect: missing"),
        ("report", "retained_batches = 0", "report.retained_batches: must be between 1 and 10000 word=\"0\""),
        (
            "report",
            "compatible_names = [\"kafka_exporter\", \"burrow\"]",
            "report.compatible_names.1: not one of \"kafka_exporter\", \"kafka-lag-exporter\" word=\"burrow\"",
        ),
        ("report", "compatible_names = \"kafka_exporter\"", "expected a list of strings, found a string"),
        (
            "report",
            "zookeeper = { connect = \"z:1\", group = \"a/b\" }",
            "report.zookeeper.group: not the name of a node",
        ),
        ("report", "zookeeper.connect = \"z:x\"", "report.zookeeper.connect: not a list of host:port"),
        (
            "report",
            "zookeeper = { connect = \"z\", digest = \"canary\" }",
            "report.zookeeper.digest: not user:password",
        ),
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
