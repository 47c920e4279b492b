//! Every key of a job file, described once: for the documentation, and for what an unknown key was meant to be.

use std::fmt::Write as _;

/// What there is to know about one key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its path; `*` stands for a name that the user makes up.
    pub path: &'static str,
    /// What its value looks like, with the unit.
    pub kind: &'static str,
    /// The value if it is not given.
    pub default: KeyDefault,
    /// What it says.
    pub what: &'static str,
    /// What a larger and a smaller value do, or what each choice does.
    pub effect: &'static str,
    /// The matching key of Kafka or Spark.
    pub like: &'static str,
    /// A value in TOML that loads.
    pub example: &'static str,
}

/// What holds when a key is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyDefault {
    /// The key must be given.
    Required,
    /// Nothing is set.
    Unset,
    /// This value.
    Is(&'static str),
}

use KeyDefault::{Is, Required, Unset};

macro_rules! keys {
    ($($path:literal, $kind:literal, $default:expr, $what:literal, $effect:literal, $like:literal, $example:literal;)*) => {
        /// Every key, in the order of the documentation.
        pub const KEYS: &[Key] = &[$(Key {
            path: $path,
            kind: $kind,
            default: $default,
            what: $what,
            effect: $effect,
            like: $like,
            example: $example,
        }),*];
    };
}

keys! {
    "name", "string", Required,
    "The application id. Offsets, ledger and dead letters are kept under it; two running jobs never share one.",
    "Another name is another application: it begins anew.",
    "group.id, spark.app.name", "\"orders\"";

    "kafka.bootstrap_servers", "string: `host:port,host:port`", Required,
    "Brokers to begin with; the others are learnt from them.",
    "More than one, so that the job starts while one is down.",
    "bootstrap.servers", "\"localhost:9092\"";
    "kafka.topics", "list of strings", Required,
    "The topics to read. Either this or `kafka.topic_pattern`.",
    "Topics can be added and taken away later; an added one is read from its earliest offset.",
    "ConsumerStrategies.Subscribe", "[\"orders\"]";
    "kafka.topic_pattern", "string: regular expression", Unset,
    "Reads every topic whose whole name matches. New topics join in the batch that discovers them, at their earliest offset.",
    "A wider pattern can bring in topics that nobody meant.",
    "ConsumerStrategies.SubscribePattern", "\"orders-.*\"";
    "kafka.start", "`earliest`, `latest`, `none`", Is("earliest"),
    "Where reading begins at the first start. Later starts go on from the stored offsets, and partitions found later begin at the earliest offset.",
    "`latest` leaves out what is there already; `none` refuses to start without stored offsets.",
    "auto.offset.reset, startingOffsets", "\"latest\"";
    "kafka.start.timestamp", "string: RFC 3339 time with a zone", Unset,
    "Instead of a word: begin at the first record of each partition with this timestamp or a later one.",
    "Where there is none, reading begins at the latest offset.",
    "startingTimestamp", "\"2026-01-01T00:00:00Z\"";
    "kafka.start.offsets.*.*", "integer: offset", Unset,
    "Instead of a word: begin at this offset, by topic and partition, such as `start = { offsets = { orders = { \"0\" = 23 } } }`. Partitions not named begin at the earliest offset.",
    "An offset outside of what Kafka has refuses the start.",
    "fromOffsets, startingOffsets", "23";
    "kafka.isolation_level", "`read_committed`, `read_uncommitted`", Is("read_committed"),
    "Which records of transactional producers are read.",
    "`read_uncommitted` also reads what is aborted later.",
    "isolation.level", "\"read_uncommitted\"";
    "kafka.on_data_loss", "`fail`, `skip`", Is("fail"),
    "What happens when Kafka no longer has what was to be read.",
    "`fail` ends the job with exit code 4; `skip` records the lost range in the batch's transaction and goes on after it.",
    "failOnDataLoss", "\"skip\"";
    "kafka.insecure", "boolean", Is("false"),
    "Allows properties that switch off the check of the servers' certificates or names.",
    "`true` lets anybody in between read and change the records.",
    "", "true";
    "kafka.properties.*", "string, number or boolean", Unset,
    "librdkafka's own keys by their own names. Keys that the program owns and keys that load code or run commands are refused by name. `sasl.username.file` and `sasl.password.file` name files that hold the user and the password; they are read again each second: what is changed there needs no restart.",
    "Values are shown only if they are known to be harmless.",
    "spark's kafkaParams", "\"SASL_SSL\"";

    "stream.batch_interval", "string: duration, 10ms to 1d", Is("1s"),
    "The time from batch to batch.",
    "Longer: fewer and larger transactions. Shorter: results are seen sooner.",
    "StreamingContext batchDuration", "\"500ms\"";
    "stream.max_rate_per_partition", "integer: offsets a second, from 1", Unset,
    "The most that one partition gives a batch: this times the interval.",
    "Larger: a backlog is read faster. Smaller: batches stay short. Without it only memory limits a batch.",
    "spark.streaming.kafka.maxRatePerPartition", "10000";
    "stream.min_rate_per_partition", "integer: records per batch, from 1", Is("1"),
    "What a rate limit leaves of one partition at least.",
    "Larger: small partitions are not starved by large ones. It may go above the maximum rate.",
    "spark.streaming.kafka.minRatePerPartition", "10";
    "stream.memory_max", "string: size, from 1MiB", Is("512MiB"),
    "The one budget for prefetch, records in flight and shuffles.",
    "Larger: larger batches where there is a backlog. Smaller: less memory, more transactions.",
    "queued.max.messages.kbytes, fetch.max.bytes", "\"64MiB\"";
    "stream.backpressure.enabled", "boolean", Is("false"),
    "Lets the rate of all partitions together follow the speed of processing, by Spark's PID estimator. It counts as a rate limit: batches keep to the grid, lag shares the rate out, and `max_rate_per_partition` and `min_rate_per_partition` hold as well.",
    "`true`: batches come to take as long as their interval. The rate is not stored: a restart begins with `initial_rate`.",
    "spark.streaming.backpressure.enabled", "true";
    "stream.backpressure.initial_rate", "integer: records a second, from 1", Unset,
    "The total rate until two batches with records were measured, one to begin with and one to compare. Without `enabled` it does nothing.",
    "Larger: a backlog is read faster at first. Smaller: the first batches stay short. Without it only `max_rate_per_partition` and memory limit them.",
    "spark.streaming.backpressure.initialRate", "5000";
    "stream.backpressure.proportional", "number, from 0", Is("1.0"),
    "The weight of the difference between the last rate and the speed of the last batch.",
    "Larger: the rate follows the speed at once, also where it varies. Smaller: it follows slowly.",
    "spark.streaming.backpressure.pid.proportional", "0.5";
    "stream.backpressure.integral", "number, from 0", Is("0.2"),
    "The weight of the records that wait because batches start late or wait for the commit before them.",
    "Larger: lateness is made up for sooner, with smaller batches. Smaller: lateness stays longer.",
    "spark.streaming.backpressure.pid.integral", "0.1";
    "stream.backpressure.derived", "number, from 0", Is("0.0"),
    "The weight of the change of that difference since the batch before.",
    "Larger: the rate anticipates, and answers noise. `0.0`: it does not.",
    "spark.streaming.backpressure.pid.derived", "0.1";
    "stream.backpressure.min_rate", "integer: records a second, from 1", Is("100"),
    "The total rate below which backpressure never goes.",
    "Larger: a stalled store cannot slow the job down to nothing. Smaller: jobs whose single records take long stay on time.",
    "spark.streaming.backpressure.pid.minRate", "10";
    "stream.start_timeout", "string: duration", Is("30s"),
    "Servers must answer within this at start; otherwise exit code 3.",
    "Longer: the job can be started before its servers. Shorter: a mistake is told sooner.",
    "", "\"1m\"";
    "stream.unavailable_max", "string: duration", Is("10m"),
    "Servers may be away for so long while the job runs; then exit code 3.",
    "Longer: the job outlives longer outages. Shorter: whoever watches it is told sooner.",
    "", "\"1h\"";
    "stream.batch_deadline", "string: duration", Is("30m"),
    "Reading and transforming one batch, its side effects, and its own SQL (`foreach_rdd_in`) may each take so long; then the batch is dropped whole: exit code 6.",
    "Longer: for user code that is slow and not stuck. Shorter: code that never returns is told sooner.",
    "", "\"5m\"";
    "stream.max_failures", "integer: batches, from 1", Is("1000"),
    "More batches than these may not fail at first within `stream.failures_validity_interval`: one that is dropped and planned again, or whose commit is tried again, is one failure however often that is repeated. Above it the job ends with the last failure's exit code.",
    "Larger: servers may come and go more often. Smaller: whoever watches it is told of a server that comes and goes.",
    "spark.yarn.maxAppAttempts", "20";
    "stream.failures_validity_interval", "string: duration", Is("1h"),
    "How long a failed batch counts towards `stream.max_failures`.",
    "Longer: rare failures are added up. Shorter: only what fails often ends the job.",
    "spark.yarn.am.attemptFailuresValidityInterval", "\"10m\"";

    "input.format", "`json`, `text`, `bytes`", Is("json"),
    "What the value of a record is.",
    "Pointers such as `value:/id` need `json`. `text` refuses what is not UTF-8.",
    "value.deserializer", "\"json\"";
    "input.on_error", "`fail`, `dead_letter`", Is("fail"),
    "What happens to a record that does not fit.",
    "`fail` ends the job with exit code 6; `dead_letter` keeps the record whole in the batch's transaction and goes on.",
    "errors.tolerance", "\"dead_letter\"";

    "store.url", "string: URL", Required,
    "The database of results and offsets: `postgres://app@localhost/app` or `sqlite:orders.db`. Passwords come from `${VAR}` or `store.url_file`. `checkpoint:FOLDER` keeps offsets and ledger alone, for programs in Rust.",
    "With `checkpoint:` a job file has no `[[output]]`, and serves to look at the folder.",
    "", "\"sqlite:orders.db\"";
    "store.url_file", "string: path", Unset,
    "A file that holds the URL, instead of `store.url`.",
    "Nobody but the job should be able to read it. It is read again for each connection: a password that is changed there needs no restart.",
    "", "\"URL_FILE\"";
    "store.migrate", "`auto`, `off`", Is("auto"),
    "Whether the program's own tables are made and changed at start.",
    "`off`: only `directstream migrate` does it, with a role that may.",
    "", "\"off\"";
    "store.ledger_retention", "string: duration, from 1m", Is("30d"),
    "How long the ledger keeps its batches; the last 100 stay in any case.",
    "Longer: `batches` reaches further back. Shorter: a smaller database.",
    "spark.streaming.ui.retainedBatches", "\"7d\"";

    "output", "list of tables", Required,
    "The tables to write, each an `[[output]]`. All of them commit in one transaction.",
    "",
    "", "";
    "output.table", "string: `table` or `schema.table`", Required,
    "The table.",
    "Without a schema it follows the role's `search_path` at start.",
    "", "\"orders\"";
    "output.mode", "`append`, `upsert`", Is("append"),
    "What happens to rows that are there already.",
    "`append` inserts every row; `upsert` merges rows with the same key, column by column.",
    "outputMode", "\"upsert\"";
    "output.key", "list of strings", Unset,
    "The columns of an upsert's key. The table must have a unique constraint on them.",
    "",
    "", "[\"id\"]";
    "output.create", "boolean", Is("false"),
    "Whether the table is created if it is missing.",
    "`false`: it must be there, and is checked at start.",
    "", "true";
    "output.columns", "table", Required,
    "The columns by name; in their order here they are created.",
    "",
    "", "";
    "output.columns.*", "table", Required,
    "One column.",
    "",
    "", "";
    "output.columns.*.from", "string", Required,
    "Where the value comes from: `key`, `value`, `key:/json/pointer`, `value:/json/pointer`, `header:NAME`, `topic`, `partition`, `offset`, `timestamp`, `batch_time`, `one` (the constant 1).",
    "A pointer that finds nothing and a JSON null are SQL NULL.",
    "", "\"value:/id\"";
    "output.columns.*.type", "string: SQL type", Unset,
    "The column's type: boolean, smallint, integer, bigint, double precision, numeric, text, bytea, timestamptz, jsonb. Without it the table tells, and a table that is created gets text.",
    "Values that do not fit exactly are refused.",
    "", "\"bigint\"";
    "output.columns.*.merge", "`last`, `first`, `add`, `min`, `max`", Is("last"),
    "How two values of an upsert with the same key become one, in the order of topic, partition and offset.",
    "`add`, `min` and `max` ignore NULL.",
    "", "\"add\"";

    "report.listen", "string: `address:port` or `off`", Is("127.0.0.1:9464"),
    "Where the web page `/`, its API, `/metrics`, `/healthz` and `/readyz` are served.",
    "An address other than the loopback one lets other machines read them.",
    "spark.ui.port", "\"127.0.0.1:9465\"";
    "report.retained_batches", "integer: batches, from 1 to 10,000", Is("1000"),
    "How many completed batches the web page and its API show. The ledger has them all.",
    "More take more memory, about 1 kB each without their ranges, and longer to draw.",
    "spark.streaming.ui.retainedBatches", "100";
    "report.compatible_names", "list of `kafka_exporter`, `kafka-lag-exporter`", Unset,
    "Tells the metrics under the names of these exporters as well, for dashboards and alerts that exist already: `docs/metrics.md` lists them.",
    "Leave it out where such an exporter watches the same consumer group: sums would count it twice.",
    "", "[\"kafka_exporter\", \"kafka-lag-exporter\"]";
    "report.consumer_group", "table", Unset,
    "Copies the committed offsets into a Kafka consumer group of the cluster that is read, for tools that look there.",
    "The copy is written after the commit, once a second at most, and never read.",
    "", "{ group = \"orders\" }";
    "report.consumer_group.group", "string", Required,
    "The consumer group. It is not joined: it has offsets and no members.",
    "A group of its own: while a consumer subscribes with it, Kafka refuses the copy.",
    "group.id", "\"orders\"";
    "report.zookeeper", "table", Unset,
    "Copies the committed offsets into ZooKeeper, where Kafka's old consumer had them.",
    "The copy is written after the commit, once a second at most, and never read.",
    "", "{ connect = \"localhost:2181/kafka\", group = \"orders\" }";
    "report.zookeeper.connect", "string: `host:port,host:port/path`", Required,
    "The ZooKeeper servers, and the path below which to write. What is missing of the path is created.",
    "",
    "zookeeper.connect", "\"localhost:2181\"";
    "report.zookeeper.group", "string", Unset,
    "The consumer group in `/consumers/<group>/offsets/<topic>/<partition>`. Without it: the job's `name`.",
    "",
    "group.id", "";
    "report.zookeeper.digest", "string: `user:password`", Unset,
    "The user of ZooKeeper's scheme `digest`.",
    "With it only this user changes the nodes that are created from then on, and everybody reads them. Without it everybody does both. It goes over the network as it is.",
    "", "";
    "report.traces", "table", Unset,
    "Sends a trace of every batch to an OpenTelemetry collector, by OTLP over plain HTTP. Without it: where `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT` says; nowhere if neither is set, or if `OTEL_SDK_DISABLED=true` or `OTEL_TRACES_EXPORTER=none`.",
    "No batch waits for it: what the collector does not take in time is lost and counted.",
    "", "{ endpoint = \"http://127.0.0.1:4318\" }";
    "report.traces.endpoint", "string: `http://host:port`", Required,
    "The collector. `/v1/traces` is added.",
    "A collector beside the job may send it on with TLS. Secrets of the collector go into `OTEL_EXPORTER_OTLP_HEADERS`.",
    "", "";
}

/// What an unknown key was probably meant to be. `pattern` is its path, `leaf` its last key and what it was given as a
/// dotted path, as `bootstrap.servers = ...` makes a table of it.
pub(super) fn suggest(pattern: &str, leaf: Option<&str>) -> Option<String> {
    let (parent, key) = pattern.rsplit_once('.').unwrap_or(("", pattern));
    let folded = fold(key);
    let siblings = || {
        KEYS.iter().flat_map(|known| prefixes(known.path)).filter_map(|path| {
            let (known_parent, known_key) = path.rsplit_once('.').unwrap_or(("", path));
            (same_path(known_parent, parent) && known_key != "*").then_some(known_key)
        })
    };
    let near = siblings()
        .map(|known| (distance(&folded, &fold(known)), known))
        .filter(|(distance, known)| *distance <= 1.max(known.len() / 3))
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, known)) = near {
        return Some(format!("did you mean {known}?"));
    }
    let elsewhere = KEYS.iter().find(|known| {
        let alike = |name: &str| name == key || leaf.is_some_and(|leaf| name == leaf);
        known.path.rsplit('.').next() == Some(key) || known.like.split(", ").any(alike)
    });
    if let Some(known) = elsewhere {
        return Some(format!("did you mean {}?", known.path));
    }
    (parent == "kafka" && leaf.is_some_and(|leaf| leaf.contains('.')))
        .then(|| "librdkafka's own keys go into kafka.properties".to_owned())
}

/// The path and every path above it.
fn prefixes(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.match_indices('.').map(move |(at, _)| &path[..at]).chain([path])
}

/// Whether a path of the reference, with its `*`, is the path of a file.
fn same_path(known: &str, path: &str) -> bool {
    known.split('.').count() == path.split('.').count()
        && known.split('.').zip(path.split('.')).all(|(known, word)| known == "*" || known == word)
}

fn fold(key: &str) -> String {
    key.to_ascii_lowercase().replace(['-', '_', '.'], "")
}

/// How many letters must be changed, put in, left out or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().take(64).collect(), other.chars().take(64).collect());
    let mut rows = vec![vec![0; other.len() + 1]; one.len() + 1];
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i.max(j);
                continue;
            }
            let change = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[one.len()][other.len()]
}

const INTRODUCTION: &str = "# The job file

This page is written from the program's own table of keys; a test keeps it up to date.

Values come in layers, and a higher one wins: defaults, the file, the environment, `--set`.

- Environment: `DIRECTSTREAM__STREAM__BATCH_INTERVAL=2s` sets `stream.batch_interval`. Below `kafka.properties`, underscores
  stand for dots: `DIRECTSTREAM__KAFKA__PROPERTIES__SECURITY_PROTOCOL=SSL`.
- Command line: `--set stream.batch_interval=2s`, once for each key. The tables of a list go by their number:
  `--set output.0.create=true`. Everything after `kafka.properties.` is one key.
- Both are read by the type of their key. Lists are separated by commas.
- `${VAR}` and `${VAR:default}` in a string of the file are filled in from the environment; `$${` is a `${` as it stands.
- Durations are whole numbers with `ms`, `s`, `m`, `h` or `d`, such as `1h30m`; sizes are whole numbers with `B`, `KiB`,
  `MiB`, `GiB`, `kB`, `MB` or `GB`.
- Unknown keys and every other fault are reported together, each with its place, before any connection is made; the exit
  code is 2. `directstream check-config JOB.toml` shows every value and where it came from.
";

/// The reference of all keys, as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut section = "";
    for key in KEYS {
        let of = key.path.split_once('.').map_or(key.path, |(section, _)| section);
        if of != section {
            section = of;
            let title = match section {
                "name" => "The job".to_owned(),
                "output" => "`[[output]]`".to_owned(),
                _ => format!("`[{section}]`"),
            };
            // Writing into a string cannot fail.
            let _ = write!(page, "\n## {title}\n");
        }
        let default = match key.default {
            Required => "required".to_owned(),
            Unset => "unset".to_owned(),
            Is(value) => format!("default `{value}`"),
        };
        let _ = write!(page, "\n### `{}`\n\n{}; {default}.\n\n{}", key.path, key.kind, key.what);
        if !key.effect.is_empty() {
            let _ = write!(page, " {}", key.effect);
        }
        page.push('\n');
        if !key.like.is_empty() {
            let _ = write!(page, "\nLike: {}\n", key.like);
        }
    }
    page
}
