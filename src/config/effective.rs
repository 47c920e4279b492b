//! The values a job runs with, and where each came from.

use super::{
    Origin,
    finding::Origins,
    job::{Job, StartPolicy, Subscription},
    output::{merge_word, source_text},
    properties::is_printable,
    secret::offending_word,
    values::{format_duration, format_size},
};
use crate::types::{TableSpec, WriteMode};

/// One key with the value that the job runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveValue {
    /// The key path, as `--set` takes it.
    pub path: String,
    /// The value; `[hidden]` where it may be a secret, `None` where nothing is set.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

const HIDDEN: &str = "[hidden]";

/// Every key of the job with its value and where it came from. Secrets are hidden.
#[must_use]
pub fn effective(job: &Job) -> Vec<EffectiveValue> {
    let mut values = Values { origins: &job.origins, list: Vec::new() };
    values.put("name", &job.name);
    kafka(&mut values, job);
    let stream = &job.stream;
    values.put("stream.batch_interval", format_duration(stream.batch_interval));
    values.put_option("stream.max_rate_per_partition", stream.max_rate_per_partition);
    values.put("stream.min_rate_per_partition", stream.min_rate_per_partition);
    values.put("stream.memory_max", format_size(stream.memory_max));
    values.put("stream.backpressure.enabled", stream.backpressure.enabled);
    values.put_option("stream.backpressure.initial_rate", stream.backpressure.initial_rate);
    // With its point, so that it is seen to take one.
    let number = |number: f64| format!("{number:?}");
    values.put("stream.backpressure.proportional", number(stream.backpressure.proportional));
    values.put("stream.backpressure.integral", number(stream.backpressure.integral));
    values.put("stream.backpressure.derived", number(stream.backpressure.derived));
    values.put("stream.backpressure.min_rate", stream.backpressure.min_rate);
    values.put("stream.start_timeout", format_duration(stream.start_timeout));
    values.put("stream.unavailable_max", format_duration(stream.unavailable_max));
    values.put("stream.batch_deadline", format_duration(stream.batch_deadline));
    values.put("stream.max_failures", stream.max_failures);
    values.put("stream.failures_validity_interval", format_duration(stream.failures_validity_interval));
    values.put("input.format", job.input.format.as_str());
    values.put("input.on_error", job.input.on_error.as_str());
    // A URL that came out of a file is shown under the key that names the file.
    let url = if job.origins.of("store.url_file") == Origin::Default { "store.url" } else { "store.url_file" };
    values.put(url, &job.store.url);
    values.put("store.migrate", job.store.migrate.as_str());
    values.put("store.ledger_retention", format_duration(job.store.ledger_retention));
    for (index, output) in job.outputs.iter().enumerate() {
        table(&mut values, index, output);
    }
    let report = &job.report;
    values.put("report.listen", report.listen.map_or_else(|| "off".to_owned(), |address| address.to_string()));
    values.put("report.retained_batches", report.retained_batches);
    let names: Vec<&str> = report.compatible_names.iter().map(|names| names.as_str()).collect();
    values.put_option("report.compatible_names", Some(names.join(",")).filter(|names| !names.is_empty()));
    if let Some(mirror) = &report.consumer_group {
        values.put("report.consumer_group.group", &mirror.group);
    }
    if let Some(mirror) = &report.zookeeper {
        values.put("report.zookeeper.connect", &mirror.connect);
        values.put("report.zookeeper.group", &mirror.group);
        values.put_option("report.zookeeper.digest", mirror.digest.as_ref().map(|_| HIDDEN));
    }
    if let Some(traces) = &report.traces {
        values.put("report.traces.endpoint", traces.url());
    }
    values.list
}

struct Values<'a> {
    origins: &'a Origins,
    list: Vec<EffectiveValue>,
}

impl Values<'_> {
    fn put(&mut self, path: &str, value: impl ToString) {
        self.put_option(path, Some(value));
    }

    fn put_option(&mut self, path: &str, value: Option<impl ToString>) {
        let value = value.map(|value| value.to_string());
        self.list.push(EffectiveValue { path: path.to_owned(), value, origin: self.origins.of(path) });
    }
}

fn kafka(values: &mut Values<'_>, job: &Job) {
    let kafka = &job.kafka;
    values.put("kafka.bootstrap_servers", &kafka.bootstrap_servers);
    match &kafka.subscription {
        Subscription::Topics(topics) => values.put("kafka.topics", topics.join(",")),
        Subscription::Pattern(pattern) => values.put("kafka.topic_pattern", pattern),
        // No key of a job file says so.
        Subscription::Partitions(_) => {}
    }
    match &kafka.start {
        StartPolicy::Earliest => values.put("kafka.start", "earliest"),
        StartPolicy::Latest => values.put("kafka.start", "latest"),
        StartPolicy::None => values.put("kafka.start", "none"),
        StartPolicy::Timestamp(ms) => {
            let time = jiff::Timestamp::from_millisecond(*ms).map_or_else(|_| ms.to_string(), |time| time.to_string());
            values.put("kafka.start.timestamp", time);
        }
        StartPolicy::Offsets(topics) => {
            for (topic, partitions) in topics {
                for (partition, offset) in partitions {
                    values.put(&format!("kafka.start.offsets.{topic}.{partition}"), offset);
                }
            }
        }
    }
    values.put("kafka.isolation_level", kafka.isolation_level.as_str());
    values.put("kafka.on_data_loss", kafka.on_data_loss.as_str());
    values.put("kafka.insecure", kafka.insecure);
    for (key, value) in &kafka.properties {
        let value = if is_printable(key) { offending_word(value.expose()) } else { HIDDEN.to_owned() };
        values.put(&format!("kafka.properties.{key}"), value);
    }
}

fn table(values: &mut Values<'_>, index: usize, output: &TableSpec) {
    let at = |key: &str| format!("output.{index}.{key}");
    values.put(&at("table"), &output.table);
    values.put(&at("mode"), if output.mode == WriteMode::Upsert { "upsert" } else { "append" });
    if output.mode == WriteMode::Upsert {
        values.put(&at("key"), output.key.join(","));
    }
    values.put(&at("create"), output.create);
    for column in &output.columns {
        let at = |key: &str| format!("output.{index}.columns.{}.{key}", column.name);
        values.put_option(&at("from"), column.source.as_ref().map(source_text));
        values.put_option(&at("type"), column.column_type);
        if output.mode == WriteMode::Upsert && !output.key.contains(&column.name) {
            values.put(&at("merge"), merge_word(column.merge));
        }
    }
}
