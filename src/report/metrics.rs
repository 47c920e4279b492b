//! Every metric of the program: name, kind, unit, labels and meaning, once. `docs/metrics.md` is written from this table.
//!
//! Labels are a topic, a partition, or one of a few words of our own; never a key, a value, an error's text or an
//! address.

use std::fmt::{self, Write};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::{compatible::compatible_reference, text::push_label_value};
use crate::{
    error::ErrorKind,
    types::{DeadLetterStage, LostRangeReason},
};

/// What a metric's value does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows while the process lives.
    Counter,
    /// Is what it is now.
    Gauge,
    /// How often a value fell below each of some bounds, with sum and count.
    Histogram,
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its full name.
    pub name: &'static str,
    /// What its value does.
    pub kind: MetricKind,
    /// What is counted or measured.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means, in one sentence.
    pub help: &'static str,
}

/// Declares the metrics as constants and lists them all in [`METRICS`], so that none can be missing there.
macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal in $unit:literal by [$($label:literal),*], $help:literal;)*) => {
        $(pub(super) const $constant: Metric = Metric {
            name: concat!("directstream_", $name),
            kind: MetricKind::$kind,
            unit: $unit,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// All metrics, in the order of the reference page.
        pub const METRICS: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    INFO = Gauge "info" in "1" by ["application", "version", "librdkafka"], "What runs; always 1.";
    START_TIME = Gauge "start_time_seconds" in "seconds since 1970" by [], "When the process started.";
    STATUS = Gauge "status" in "0 or 1" by ["status"], "1 for the status the process is in, 0 for the others.";
    OWNER = Gauge "owner" in "0 or 1" by [], "1 while this process owns the application, 0 before, on standby and after.";
    EPOCH = Gauge "epoch" in "1" by [], "The ownership term under which this process took the application over; 0 before. Each take-over has a higher one.";
    FENCED = Counter "fenced_total" in "times" by [], "How often the stream ended because another process owns the application, a refused start included. A process that ends with its stream is gone before it can be scraped: there the epoch tells.";

    BATCHES = Counter "batches_total" in "batches" by ["status"], "Batches that ended: completed (committed), failed, or dropped (to be planned again).";
    RECORDS = Counter "records_total" in "records" by [], "Records of committed batches.";
    GAPS = Counter "gaps_total" in "offsets" by [], "Offsets without a record in committed batches: transaction markers, aborted and compacted records.";
    BYTES = Counter "bytes_total" in "bytes" by [], "Bytes of keys and values in committed batches.";
    ROWS = Counter "rows_total" in "rows" by [], "Rows that committed batches gave to the output tables, after merging by key.";
    DEAD_LETTERS = Counter "dead_letters_total" in "records" by ["stage"], "Records that were refused and kept as dead letters, by the step that refused them.";
    LATE_RECORDS = Counter "late_records_total" in "elements" by [], "Elements of committed batches that came into no window over event time: too late, or without a time that can be used.";
    LOST_RANGES = Counter "lost_ranges_total" in "ranges" by ["reason"], "Ranges that Kafka no longer had and that were skipped by order of the configuration.";
    LOST_OFFSETS = Counter "lost_offsets_total" in "offsets" by ["reason"], "Offsets of the skipped ranges, where it is known how many.";

    BATCH_SEQ = Gauge "batch_seq" in "1" by [], "The number of the last committed batch.";
    BATCH_INTERVAL = Gauge "batch_interval_seconds" in "seconds" by [], "The configured spacing of batches.";
    LAST_BATCH_TIME = Gauge "last_batch_time_seconds" in "seconds since 1970" by [], "The batch time of the last committed batch.";
    LAST_BATCH_RECORDS = Gauge "last_batch_records" in "records" by [], "Records of the last committed batch.";
    WAITING_BATCHES = Gauge "waiting_batches" in "batches" by [], "Batches that were planned and have not started: 0 here, where a batch starts as soon as it is planned.";
    RUNNING_BATCHES = Gauge "running_batches" in "batches" by [], "Batches that are being read, transformed or committed.";
    SCHEDULING_DELAY = Histogram "batch_scheduling_delay_seconds" in "seconds" by [], "How long a batch waited before its first work started.";
    PROCESSING_DELAY = Histogram "batch_processing_delay_seconds" in "seconds" by [], "How long a batch's work took, commit included.";
    TOTAL_DELAY = Histogram "batch_total_delay_seconds" in "seconds" by [], "Scheduling and processing delay together.";
    PLAN_SECONDS = Histogram "plan_seconds" in "seconds" by [], "How long asking Kafka for offsets and planning the ranges took.";
    COMMIT_SECONDS = Histogram "commit_seconds" in "seconds" by [], "How long the batch's transaction was open, answer to COMMIT included.";
    COMMITS_SETTLED = Counter "commits_settled_total" in "commits" by ["outcome"], "Commits whose answer was lost, by what the store then said: committed or rolled_back.";
    ERRORS = Counter "errors_total" in "errors" by ["kind"], "Errors met, retried ones included.";

    STORE_UP = Gauge "store_up" in "0 or 1" by [], "1 while the store answers, 0 while it does not; absent before it was asked.";
    STORE_RECONNECTS = Counter "store_reconnects_total" in "connections" by [], "Connections to the store after the first one.";
    STORE_ERRORS = Counter "store_errors_total" in "errors" by [], "Steps of the store that failed, retried ones included: refused or lost connections, statements that were refused.";
    KAFKA_SILENT = Gauge "kafka_silent_seconds" in "seconds" by [], "How long Kafka has told nothing usable about a partition or topic of the job, the longest of all; 0 while it does.";

    OUTBOX_WAITING = Gauge "outbox_waiting_records" in "records" by [], "Records that wait in the outbox to be sent to Kafka.";
    OUTBOX_SENT = Counter "outbox_sent_records_total" in "records" by [], "Records of the outbox that Kafka has acknowledged.";
    OUTBOX_ERRORS = Counter "outbox_errors_total" in "errors" by [], "Failures of sending the outbox, retried ones included.";

    MIRROR_LAG = Gauge "mirror_lag_offsets" in "offsets" by ["mirror"], "Committed minus mirrored offset, summed over all partitions; absent without a mirror, as are the next two.";
    MIRROR_ERRORS = Counter "mirror_errors_total" in "errors" by ["mirror"], "Failures of copying the committed offsets, retried ones included.";
    MIRROR_LAST_SUCCESS = Gauge "mirror_last_success_time_seconds" in "seconds since 1970" by ["mirror"], "When offsets were last copied; 0 before the first time.";

    MEMORY_USED = Gauge "memory_used_bytes" in "bytes" by [], "What prefetch, records in flight and shuffles hold of the memory budget.";
    MEMORY_MAX = Gauge "memory_max_bytes" in "bytes" by [], "The memory budget.";
    READ_QUEUED = Gauge "read_queued_bytes" in "bytes" by [], "Bytes fetched from Kafka that no batch has taken yet.";
    RATE_LIMIT = Gauge "rate_limit_records_per_second" in "records per second" by [], "The limit set by backpressure; absent while there is none.";

    PARTITIONS = Gauge "partitions" in "partitions" by [], "Partitions of all topics of the job.";
    LAG = Gauge "lag_records" in "offsets" by [], "Latest minus committed offset, summed over all partitions where both are known.";
    LAG_SECONDS = Gauge "lag_seconds" in "seconds" by [], "How old the oldest record is that is not committed, of all partitions; 0 if none waits.";
    TOPIC_PARTITIONS = Gauge "topic_partitions" in "partitions" by ["topic"], "Partitions of the topic.";
    TOPIC_LAG = Gauge "topic_lag_records" in "offsets" by ["topic"], "Latest minus committed offset, summed over the topic's partitions.";
    TOPIC_LAG_SECONDS = Gauge "topic_lag_seconds" in "seconds" by ["topic"], "How old the oldest record of the topic is that is not committed; 0 if none waits.";
    TOPIC_TIME_TO_LOSS = Gauge "topic_time_to_retention_loss_seconds" in "seconds" by ["topic"], "The shortest such time of the topic's partitions.";
    PARTITION_COMMITTED = Gauge "partition_committed_offset" in "offset" by ["topic", "partition"], "The committed offset: the next one to read.";
    PARTITION_LATEST = Gauge "partition_latest_offset" in "offset" by ["topic", "partition"], "The offset after the last readable record, as Kafka last said.";
    PARTITION_EARLIEST = Gauge "partition_earliest_offset" in "offset" by ["topic", "partition"], "The first offset that Kafka still has, as it last said.";
    PARTITION_LAG = Gauge "partition_lag_records" in "offsets" by ["topic", "partition"], "Latest minus committed offset.";
    PARTITION_LAG_SECONDS = Gauge "partition_lag_seconds" in "seconds" by ["topic", "partition"], "How old the oldest record is that is not committed: how long ago the committed offset was the latest one, exact to a batch interval; 0 if none waits.";
    PARTITION_TIME_TO_LOSS = Gauge "partition_time_to_retention_loss_seconds" in "seconds" by ["topic", "partition"], "When the earliest offset reaches the committed one, at the speed of its last moves and if nothing is committed meanwhile; absent while no record waits, and until it was seen to move twice.";

    LISTENER_EVENTS_DROPPED = Counter "listener_events_dropped_total" in "events" by [], "Events that a listener lost because it was too slow.";
    LISTENER_PANICS = Counter "listener_panics_total" in "panics" by [], "Panics of listeners.";
    TRACE_SPANS = Counter "trace_spans_total" in "spans" by ["outcome"], "Spans of batches: sent to the collector, or lost because it did not take them in time.";
}

/// Upper bounds of all histograms, in seconds: from a batch that moves nothing to one that catches up for ten minutes.
const SECONDS_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];

/// How a batch ended, as its label says it.
pub(super) const BATCH_STATUSES: [&str; 3] = ["completed", "failed", "dropped"];
pub(super) const SETTLED_OUTCOMES: [&str; 2] = ["committed", "rolled_back"];
pub(super) const SPAN_OUTCOMES: [&str; 2] = ["sent", "lost"];
pub(super) const DEAD_LETTER_STAGES: [DeadLetterStage; 4] =
    [DeadLetterStage::Decode, DeadLetterStage::Convert, DeadLetterStage::Write, DeadLetterStage::Window];
pub(super) const LOST_RANGE_REASONS: [LostRangeReason; 3] =
    [LostRangeReason::Retention, LostRangeReason::TopicRecreated, LostRangeReason::Truncated];
pub(super) const ERROR_KINDS: [ErrorKind; 9] = [
    ErrorKind::Config,
    ErrorKind::Unavailable,
    ErrorKind::OffsetsLost,
    ErrorKind::Corrupt,
    ErrorKind::Conflict,
    ErrorKind::Fenced,
    ErrorKind::OutcomeUnknown,
    ErrorKind::Transform,
    ErrorKind::Internal,
];

/// The counters, gauges and histograms whose series never vanish. Every series is there from the start, with 0: a
/// counter that appears with its first event hides that event from `rate()`.
pub(super) struct Instruments {
    prometheus: PrometheusHandle,
    pub(super) batches: Vec<Counter>,
    pub(super) records: Counter,
    pub(super) gaps: Counter,
    pub(super) bytes: Counter,
    pub(super) rows: Counter,
    pub(super) dead_letters: Vec<Counter>,
    pub(super) late_records: Counter,
    pub(super) lost_ranges: Vec<Counter>,
    pub(super) lost_offsets: Vec<Counter>,
    pub(super) commits_settled: Vec<Counter>,
    pub(super) fenced: Counter,
    pub(super) store_reconnects: Counter,
    pub(super) store_errors: Counter,
    pub(super) kafka_silent: Gauge,
    pub(super) owner: Gauge,
    pub(super) errors: Vec<Counter>,
    pub(super) listener_events_dropped: Counter,
    pub(super) listener_panics: Counter,
    pub(super) trace_spans: Vec<Counter>,
    pub(super) start_time: Gauge,
    pub(super) epoch: Gauge,
    pub(super) batch_seq: Gauge,
    pub(super) batch_interval: Gauge,
    pub(super) last_batch_time: Gauge,
    pub(super) last_batch_records: Gauge,
    pub(super) waiting_batches: Gauge,
    pub(super) running_batches: Gauge,
    pub(super) outbox_waiting: Gauge,
    pub(super) outbox_sent: Counter,
    pub(super) outbox_errors: Counter,
    pub(super) memory_used: Gauge,
    pub(super) memory_max: Gauge,
    pub(super) read_queued: Gauge,
    pub(super) scheduling_delay: Histogram,
    pub(super) processing_delay: Histogram,
    pub(super) total_delay: Histogram,
    pub(super) plan_seconds: Histogram,
    pub(super) commit_seconds: Histogram,
}

impl Instruments {
    /// Instruments of one reporter. They are not those of the process: several streams may run in one.
    pub(super) fn new() -> Self {
        let builder = PrometheusBuilder::new();
        // Refused only if the list of buckets is empty.
        let builder = builder.set_buckets(SECONDS_BUCKETS).unwrap_or_else(|_| PrometheusBuilder::new());
        let register = Register { recorder: builder.build_recorder() };
        Self {
            batches: register.counters(&BATCHES, &BATCH_STATUSES),
            records: register.counter(&RECORDS),
            gaps: register.counter(&GAPS),
            bytes: register.counter(&BYTES),
            rows: register.counter(&ROWS),
            dead_letters: register.counters(&DEAD_LETTERS, &DEAD_LETTER_STAGES),
            late_records: register.counter(&LATE_RECORDS),
            lost_ranges: register.counters(&LOST_RANGES, &LOST_RANGE_REASONS),
            lost_offsets: register.counters(&LOST_OFFSETS, &LOST_RANGE_REASONS),
            commits_settled: register.counters(&COMMITS_SETTLED, &SETTLED_OUTCOMES),
            fenced: register.counter(&FENCED),
            store_reconnects: register.counter(&STORE_RECONNECTS),
            store_errors: register.counter(&STORE_ERRORS),
            kafka_silent: register.gauge(&KAFKA_SILENT),
            owner: register.gauge(&OWNER),
            errors: register.counters(&ERRORS, &ERROR_KINDS.map(kind_label)),
            listener_events_dropped: register.counter(&LISTENER_EVENTS_DROPPED),
            listener_panics: register.counter(&LISTENER_PANICS),
            trace_spans: register.counters(&TRACE_SPANS, &SPAN_OUTCOMES),
            start_time: register.gauge(&START_TIME),
            epoch: register.gauge(&EPOCH),
            batch_seq: register.gauge(&BATCH_SEQ),
            batch_interval: register.gauge(&BATCH_INTERVAL),
            last_batch_time: register.gauge(&LAST_BATCH_TIME),
            last_batch_records: register.gauge(&LAST_BATCH_RECORDS),
            waiting_batches: register.gauge(&WAITING_BATCHES),
            running_batches: register.gauge(&RUNNING_BATCHES),
            outbox_waiting: register.gauge(&OUTBOX_WAITING),
            outbox_sent: register.counter(&OUTBOX_SENT),
            outbox_errors: register.counter(&OUTBOX_ERRORS),
            memory_used: register.gauge(&MEMORY_USED),
            memory_max: register.gauge(&MEMORY_MAX),
            read_queued: register.gauge(&READ_QUEUED),
            scheduling_delay: register.histogram(&SCHEDULING_DELAY),
            processing_delay: register.histogram(&PROCESSING_DELAY),
            total_delay: register.histogram(&TOTAL_DELAY),
            plan_seconds: register.histogram(&PLAN_SECONDS),
            commit_seconds: register.histogram(&COMMIT_SECONDS),
            prometheus: register.recorder.handle(),
        }
    }

    /// Moves the histograms' single samples into their buckets. Without it they pile up until somebody scrapes.
    pub(super) fn fold_samples(&self) {
        self.prometheus.run_upkeep();
    }

    /// The families in the Prometheus text format, one block of text each, the blocks and their lines in a fixed order.
    pub(super) fn render(&self) -> Vec<String> {
        let text = self.prometheus.render();
        let mut blocks: Vec<String> = text.split("\n\n").filter(|block| !block.trim().is_empty()).map(sorted).collect();
        blocks.sort_unstable();
        blocks
    }
}

impl fmt::Debug for Instruments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instruments")
    }
}

/// A family's text with its series in order. Histograms have one series, whose buckets come in order already.
fn sorted(block: &str) -> String {
    let mut lines: Vec<&str> = block.lines().collect();
    if !block.contains(" histogram\n") {
        // Stable, and comment lines compare equal among themselves: HELP stays before TYPE.
        lines.sort_by_key(|line| if line.starts_with('#') { "" } else { line });
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

struct Register {
    recorder: PrometheusRecorder,
}

impl Register {
    fn counter(&self, metric: &Metric) -> Counter {
        self.recorder.describe_counter(metric.name.into(), None, metric.help.into());
        self.recorder.register_counter(&Key::from_static_name(metric.name), &METADATA)
    }

    /// One counter per value of the metric's only label.
    fn counters(&self, metric: &Metric, values: &[impl fmt::Display]) -> Vec<Counter> {
        self.recorder.describe_counter(metric.name.into(), None, metric.help.into());
        let label = metric.labels.first().copied().unwrap_or("label");
        let of_value = |value: String| Key::from_parts(metric.name, vec![Label::new(label, value)]);
        values.iter().map(|value| self.recorder.register_counter(&of_value(value.to_string()), &METADATA)).collect()
    }

    fn gauge(&self, metric: &Metric) -> Gauge {
        self.recorder.describe_gauge(metric.name.into(), None, metric.help.into());
        self.recorder.register_gauge(&Key::from_static_name(metric.name), &METADATA)
    }

    fn histogram(&self, metric: &Metric) -> Histogram {
        self.recorder.describe_histogram(metric.name.into(), None, metric.help.into());
        self.recorder.register_histogram(&Key::from_static_name(metric.name), &METADATA)
    }
}

const METADATA: Metadata<'static> = Metadata::new("directstream", Level::INFO, None);

/// An error's kind as a label's value and in the answers of the health check.
pub(super) fn kind_label(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Config => "config",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::OffsetsLost => "offsets_lost",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::Conflict => "conflict",
        ErrorKind::Fenced => "fenced",
        ErrorKind::OutcomeUnknown => "outcome_unknown",
        ErrorKind::Transform => "transform",
        ErrorKind::Internal => "internal",
    }
}

/// One family that is rendered from our own state: its series may vanish.
pub(super) struct Family {
    name: &'static str,
    labels: &'static [&'static str],
    text: String,
}

impl Family {
    pub(super) fn new(metric: &Metric) -> Self {
        let text = format!("# HELP {0} {1}\n# TYPE {0} {2}\n", metric.name, metric.help, metric.kind);
        Self { name: metric.name, labels: metric.labels, text }
    }

    /// Adds one series: the labels' values in the metric's order, and its value.
    pub(super) fn add(&mut self, values: &[&str], value: impl fmt::Display) {
        self.text.push_str(self.name);
        for (index, (label, value)) in self.labels.iter().zip(values).enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            push_label_value(&mut self.text, value);
            self.text.push('"');
        }
        if !self.labels.is_empty() {
            self.text.push('}');
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, " {value}");
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// The reference page of all metrics, in Markdown.
#[must_use]
pub fn metrics_reference() -> String {
    let mut page = String::from(
        "# Metrics\n\n<!-- Written from src/report/metrics.rs: do not edit by hand. -->\n\n\
         `GET /metrics` on `report.listen` answers in the Prometheus text format 0.0.4.\n\n\
         | Name | Kind | Unit | Labels | Meaning |\n|---|---|---|---|---|\n",
    );
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            metric.name,
            metric.kind,
            metric.unit,
            labels.join(", "),
            metric.help
        );
    }
    let _ = write!(page, "\n{REFERENCE_NOTES}\n{}", compatible_reference());
    page
}

const REFERENCE_NOTES: &str = "\
- Counters count what was committed, and start at 0 with the process: the ledger (`directstream batches`) is the record
  that outlives it.
- Series of a partition that no longer exists disappear with the next batch.
- Above 2,000 partitions the `directstream_partition_*` series and all ages are left out and the sums per topic stay; above
  2,000 topics these are left out too.
- Lag in seconds comes from the offsets that are asked for each batch anyway: of each partition up to 64 answers are kept,
  and the time between two of them is shared out evenly. Where the record lies far back, answers are thinned out, and its age
  is exact to a twentieth. Of what lies there at a start it is taken that nothing had been waiting at the last batch of the
  process before: an age may be too high by the silence that followed. Without such a batch it counts from the first answer,
  and may be too low.
- Time to retention loss is a warning, no promise: retention goes by whole segments, every few minutes.
- Histograms use the same bounds, from 5 ms to 10 minutes.
";
