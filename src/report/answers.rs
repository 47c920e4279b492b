//! What the web page asks for: answers of our own, beside Spark's. Times and durations are milliseconds, and a value that is
//! not known is null.

use std::time::Duration;

use serde::Serialize;

use super::{
    api::{Asked, Refused, json},
    build::VERSION,
    history::{BATCH_RANGES_MAX, BatchEntry, BatchState, KeptRanges, STREAMS_MAX, stage_name},
    job_graph::{GraphNode, GraphOutput},
    listener::OutputOperationInfo,
    metrics::DEAD_LETTER_STAGES,
    partitions::PartitionPosition,
    receivers::ReceiverInfo,
    reporter::Reporter,
};
use crate::types::{Offset, OffsetRange};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Overview<'a> {
    application: &'a str,
    version: &'static str,
    /// When the process began: where it is another one, so is everything else.
    process_start_ms: i64,
    now_ms: i64,
    status: String,
    failure_kind: Option<&'static str>,
    failure: Option<String>,
    /// -1 before the stream has planned its first batch.
    start_time_ms: i64,
    batch_interval_ms: u64,
    epoch: u64,
    batch_seq: u64,
    lag: u64,
    partitions: usize,
    rate_limit: Option<f64>,
    memory_used_bytes: u64,
    memory_max_bytes: u64,
    total_completed_batches: u64,
    total_dropped_batches: u64,
    retained_completed_batches: usize,
    retained_batches_max: usize,
    processed_records: u64,
    received_records: u64,
    averages: Averages,
    streams: Vec<String>,
    receivers: Vec<Receiver>,
    points: Points,
    waiting: Vec<BatchRow>,
    running: Vec<BatchRow>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Averages {
    input_rate: Option<f64>,
    scheduling_delay_ms: Option<u64>,
    processing_time_ms: Option<u64>,
    total_delay_ms: Option<u64>,
}

/// The completed batches column by column, the oldest first.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Points {
    batch_seq: Vec<u64>,
    batch_time_ms: Vec<i64>,
    records: Vec<u64>,
    scheduling_delay_ms: Vec<Option<u64>>,
    processing_time_ms: Vec<Option<u64>>,
    total_delay_ms: Vec<Option<u64>>,
    failed: Vec<bool>,
    /// Stream by stream, where there are several.
    stream_records: Vec<Vec<u64>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchRow {
    batch_seq: u64,
    batch_time_ms: i64,
    status: &'static str,
    records: u64,
    scheduling_delay_ms: Option<u64>,
    processing_time_ms: Option<u64>,
    total_delay_ms: Option<u64>,
    output_ops_succeeded: usize,
    output_ops_total: usize,
    failed: bool,
    failure: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Receiver {
    stream: usize,
    name: String,
    active: bool,
    last_error: Option<String>,
    last_error_time_ms: Option<i64>,
}

#[derive(Serialize)]
struct BatchPage {
    total: usize,
    from: usize,
    batches: Vec<BatchRow>,
}

#[derive(Serialize)]
struct DroppedBatches {
    total: u64,
    batches: Vec<BatchRow>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchDetails {
    #[serde(flatten)]
    row: BatchRow,
    batch_interval_ms: u64,
    submission_time_ms: i64,
    processing_start_time_ms: Option<i64>,
    processing_end_time_ms: Option<i64>,
    plan_time_ms: Option<u64>,
    read_time_ms: Option<u64>,
    wait_time_ms: Option<u64>,
    commit_time_ms: Option<u64>,
    gaps: u64,
    bytes: u64,
    rows: u64,
    late_records: u64,
    dead_letters: Vec<StageCount>,
    lost_ranges: Vec<LostRange>,
    streams: Vec<StreamRecords>,
    outputs: Vec<Output>,
    /// How many ranges the batch has that are not empty; `ranges` may hold fewer.
    ranges_total: usize,
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct StageCount {
    stage: &'static str,
    records: u64,
}

#[derive(Serialize)]
struct LostRange {
    reason: String,
    offsets: Option<u64>,
}

#[derive(Serialize)]
struct StreamRecords {
    name: String,
    records: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    id: usize,
    name: String,
    description: String,
    status: &'static str,
    start_time_ms: Option<i64>,
    end_time_ms: Option<i64>,
    duration_ms: Option<u64>,
    failure: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Range {
    topic: String,
    partition: i32,
    from_offset: i64,
    until_offset: i64,
    records: Option<u64>,
    gaps: Option<u64>,
}

#[derive(Serialize)]
struct PartitionPage {
    /// All partitions of the job, and those that the filter lets through.
    total: usize,
    matching: usize,
    from: usize,
    lag: u64,
    partitions: Vec<Partition>,
}

#[derive(Serialize)]
struct Partition {
    topic: String,
    partition: i32,
    committed: Option<i64>,
    latest: Option<i64>,
    earliest: Option<i64>,
    lag: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Graph {
    streams: Vec<Stream>,
    operators: Vec<Operator>,
    outputs: Vec<GraphedOutput>,
    left_out: usize,
}

#[derive(Serialize)]
struct Stream {
    name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Operator {
    id: usize,
    name: String,
    inputs: Vec<usize>,
    stream: Option<usize>,
    slide_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GraphedOutput {
    name: String,
    inputs: Vec<usize>,
    transactional: bool,
    tables: Vec<String>,
    slide_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeadLetters {
    total: u64,
    stages: Vec<StageCount>,
    late_records: u64,
}

/// All that the first paint needs; with `after` the points of later batches alone.
pub(super) fn overview(reporter: &Reporter, asked: &Asked) -> Result<String, Refused> {
    let after = asked.number("after")?.unwrap_or(0);
    let (vitals, streams) = (reporter.vitals(), stream_names(reporter));
    let history = reporter.history();
    let mut points = Points::default();
    let several = streams.len() > 1;
    if several {
        points.stream_records.resize_with(streams.len(), Vec::new);
    }
    for entry in history.completed().rev().filter(|entry| entry.batch_seq > after) {
        points.add(entry);
    }
    let averages = history.averages();
    let overview = Overview {
        application: reporter.application(),
        version: VERSION,
        process_start_ms: reporter.created_ms(),
        now_ms: vitals.now_ms,
        status: vitals.status.to_string(),
        failure_kind: vitals.failure,
        failure: history.failure.clone(),
        start_time_ms: history.start_time_ms.unwrap_or(-1),
        batch_interval_ms: milliseconds(history.batch_interval),
        epoch: history.epoch,
        batch_seq: vitals.batch_seq,
        lag: vitals.lag,
        partitions: vitals.partitions,
        rate_limit: vitals.rate_limit,
        memory_used_bytes: history.memory_bytes.0,
        memory_max_bytes: history.memory_bytes.1,
        total_completed_batches: history.sums.completed_batches,
        total_dropped_batches: history.sums.dropped_batches,
        retained_completed_batches: history.completed().len(),
        retained_batches_max: history.retained_max,
        processed_records: history.sums.processed_records,
        received_records: history.received_records(),
        averages: Averages {
            input_rate: averages.input_rate,
            scheduling_delay_ms: averages.scheduling_delay_ms,
            processing_time_ms: averages.processing_time_ms,
            total_delay_ms: averages.total_delay_ms,
        },
        streams,
        receivers: history.receivers.values().map(receiver).collect(),
        points,
        waiting: history.under_way(BatchState::Waiting).map(row).collect(),
        running: history.under_way(BatchState::Running).map(row).collect(),
    };
    drop(history);
    json(&overview)
}

fn receiver(info: &ReceiverInfo) -> Receiver {
    Receiver {
        stream: info.stream_id,
        name: info.name.clone(),
        active: info.is_active,
        last_error: info.last_error.clone(),
        last_error_time_ms: info.last_error_time_ms,
    }
}

impl Points {
    fn add(&mut self, entry: &BatchEntry) {
        self.batch_seq.push(entry.batch_seq);
        self.batch_time_ms.push(entry.batch_time.as_ms());
        self.records.push(entry.num_records);
        self.scheduling_delay_ms.push(entry.scheduling_delay_ms);
        self.processing_time_ms.push(entry.processing_delay_ms);
        self.total_delay_ms.push(entry.total_delay_ms);
        self.failed.push(entry.is_failed());
        for (index, records) in self.stream_records.iter_mut().enumerate() {
            records.push(entry.stream_records.get(index).copied().unwrap_or(0));
        }
    }
}

/// The streams whose records are kept one by one.
fn stream_names(reporter: &Reporter) -> Vec<String> {
    reporter.graph().0.streams.iter().take(STREAMS_MAX).map(|stream| stream.name.clone()).collect()
}

pub(super) fn batches(reporter: &Reporter, asked: &Asked) -> Result<String, Refused> {
    let (from, count) = asked.page()?;
    let history = reporter.history();
    let total = history.completed().len();
    let batches = history.completed().skip(from).take(count).map(|entry| row(entry)).collect();
    drop(history);
    json(&BatchPage { total, from, batches })
}

pub(super) fn dropped(reporter: &Reporter, _asked: &Asked) -> Result<String, Refused> {
    let history = reporter.history();
    let total = history.sums.dropped_batches;
    let batches = history.dropped().map(|entry| row(entry)).collect();
    drop(history);
    json(&DroppedBatches { total, batches })
}

pub(super) fn batch(reporter: &Reporter, asked: &Asked) -> Result<String, Refused> {
    let seq: u64 = asked.number_of("batchSeq", "batch")?;
    let (found, interval) = {
        let history = reporter.history();
        (history.find(|entry| entry.batch_seq == seq), history.batch_interval)
    };
    let entry = found.ok_or_else(|| Refused::not_found("batch", asked.part("batchSeq")))?;
    let counts = &entry.counts;
    let lost = |(reason, offsets): &(_, Option<u64>)| LostRange { reason: format!("{reason}"), offsets: *offsets };
    let streams = stream_names(reporter).into_iter().zip(&entry.stream_records);
    json(&BatchDetails {
        row: row(&entry),
        batch_interval_ms: milliseconds(interval),
        submission_time_ms: entry.submission_time_ms,
        processing_start_time_ms: entry.processing_start_time_ms,
        processing_end_time_ms: entry.processing_end_time_ms,
        plan_time_ms: entry.steps.plan.map(|plan| plan.took_ms()),
        read_time_ms: entry.steps.read_time_ms(),
        wait_time_ms: entry.steps.wait.map(|wait| wait.took_ms()),
        commit_time_ms: entry.commit_time_ms,
        gaps: counts.gaps,
        bytes: counts.bytes,
        rows: counts.rows,
        late_records: counts.late_records,
        dead_letters: counts
            .dead_letters
            .iter()
            .filter(|(_, records)| *records > 0)
            .map(|(stage, records)| StageCount { stage: stage_name(*stage), records: *records })
            .collect(),
        lost_ranges: counts.lost_ranges.iter().map(lost).collect(),
        streams: streams.map(|(name, records)| StreamRecords { name, records: *records }).collect(),
        outputs: entry.operations.iter().map(output).collect(),
        ranges_total: entry.ranges_total,
        ranges: ranges(&entry.ranges),
    })
}

/// Sorted and filtered here: of ten thousand partitions a page is all that is sent.
pub(super) fn partitions(reporter: &Reporter, asked: &Asked) -> Result<String, Refused> {
    const SORTS: [&str; 5] = ["partition", "committed", "latest", "earliest", "lag"];
    let (from, count) = asked.page()?;
    let sort = asked.one_of("sort", &SORTS)?.unwrap_or(0);
    let descending = asked.one_of("order", &["asc", "desc"])? == Some(1);
    let topic = asked.first("topic").unwrap_or_default().to_lowercase();
    let mut all = reporter.partitions();
    let total = all.len();
    let lag = all.iter().filter_map(PartitionPosition::lag).fold(0, u64::saturating_add);
    all.retain(|position| position.topic_partition.topic.to_lowercase().contains(&topic));
    let offset = |offset: Option<Offset>| offset.map(Offset::get);
    // Stable: what is equal stays in the order of topic and partition.
    match sort {
        1 => all.sort_by_key(|position| offset(position.committed)),
        2 => all.sort_by_key(|position| offset(position.latest)),
        3 => all.sort_by_key(|position| offset(position.earliest)),
        4 => all.sort_by_key(PartitionPosition::lag),
        _ => {}
    }
    if descending {
        all.reverse();
    }
    let partition = |position: &PartitionPosition| Partition {
        topic: position.topic_partition.topic.to_string(),
        partition: position.topic_partition.partition,
        committed: offset(position.committed),
        latest: offset(position.latest),
        earliest: offset(position.earliest),
        lag: position.lag(),
    };
    let partitions = all.iter().skip(from).take(count).map(partition).collect();
    json(&PartitionPage { total, matching: all.len(), from, lag, partitions })
}

pub(super) fn graph(reporter: &Reporter, _asked: &Asked) -> Result<String, Refused> {
    let graph = reporter.graph();
    let (graph, left_out) = &*graph;
    let operator =
        |GraphNode { id, name, inputs, stream, slide_ms }: GraphNode| Operator { id, name, inputs, stream, slide_ms };
    let output = |GraphOutput { name, inputs, transactional, tables, slide_ms }: GraphOutput| GraphedOutput {
        name,
        inputs,
        transactional,
        tables,
        slide_ms,
    };
    json(&Graph {
        streams: graph.streams.iter().map(|stream| Stream { name: stream.name.clone() }).collect(),
        operators: graph.operators.iter().cloned().map(operator).collect(),
        outputs: graph.outputs.iter().cloned().map(output).collect(),
        left_out: *left_out,
    })
}

pub(super) fn dead_letters(reporter: &Reporter, _asked: &Asked) -> Result<String, Refused> {
    let sums = reporter.history().sums.clone();
    let count = |stage| {
        let stage = stage_name(stage);
        StageCount { stage, records: sums.dead_letters.get(stage).copied().unwrap_or(0) }
    };
    let stages: Vec<_> = DEAD_LETTER_STAGES.into_iter().map(count).collect();
    let total = stages.iter().map(|count| count.records).sum();
    json(&DeadLetters { total, stages, late_records: sums.late_records })
}

fn row(entry: &BatchEntry) -> BatchRow {
    let [_, succeeded, _] = entry.operations_by_state();
    BatchRow {
        batch_seq: entry.batch_seq,
        batch_time_ms: entry.batch_time.as_ms(),
        status: match entry.state {
            BatchState::Waiting => "queued",
            BatchState::Running => "processing",
            BatchState::Completed => "completed",
            BatchState::Failed => "failed",
            BatchState::Dropped => "dropped",
        },
        records: entry.num_records,
        scheduling_delay_ms: entry.scheduling_delay_ms,
        processing_time_ms: entry.processing_delay_ms,
        total_delay_ms: entry.total_delay_ms,
        output_ops_succeeded: succeeded,
        output_ops_total: entry.operations.len(),
        failed: entry.is_failed(),
        failure: entry.first_failure().map(str::to_owned),
    }
}

fn output(operation: &OutputOperationInfo) -> Output {
    Output {
        id: operation.id,
        name: operation.name.clone(),
        description: operation.description(),
        status: match (operation.is_failed(), operation.end_time_ms) {
            (true, _) => "failed",
            (false, Some(_)) => "succeeded",
            (false, None) => "running",
        },
        start_time_ms: operation.start_time_ms,
        end_time_ms: operation.end_time_ms,
        duration_ms: operation.duration_ms(),
        failure: operation.failure_reason.clone(),
    }
}

fn ranges(kept: &KeptRanges) -> Vec<Range> {
    let of = |range: &OffsetRange, counts: Option<(u64, u64)>| Range {
        topic: range.topic().to_owned(),
        partition: range.partition(),
        from_offset: range.from_offset.get(),
        until_offset: range.until_offset.get(),
        records: counts.map(|(records, _)| records),
        gaps: counts.map(|(_, gaps)| gaps),
    };
    match kept {
        KeptRanges::Planned(ranges) => {
            let shown = ranges.iter().filter(|range| !range.is_empty()).take(BATCH_RANGES_MAX);
            shown.map(|range| of(range, None)).collect()
        }
        KeptRanges::Counted(ranges) => {
            let counted = ranges.iter().filter(|counted| !counted.range.is_empty());
            counted.map(|counted| of(&counted.range, Some((counted.records, counted.gaps)))).collect()
        }
        KeptRanges::Forgotten => Vec::new(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
