//! Spark's own REST answers about a stream, by its paths and field names: what reads Spark's reads these.
//!
//! Times are text in GMT, durations are milliseconds, and a field whose value is not known is left out.

use std::sync::Arc;

use serde::Serialize;

use super::{
    api::{Asked, Refused, json},
    build::VERSION,
    history::{BatchEntry, BatchState, History},
    listener::OutputOperationInfo,
    receivers::ReceiverInfo,
    reporter::Reporter,
};

/// Spark: `ApplicationInfo`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApplicationInfo<'a> {
    id: &'a str,
    name: &'a str,
    attempts: [ApplicationAttemptInfo; 1],
}

/// Spark: `ApplicationAttemptInfo`; the one attempt is this process.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApplicationAttemptInfo {
    start_time: String,
    end_time: String,
    last_updated: String,
    duration: u64,
    completed: bool,
    app_spark_version: &'static str,
    start_time_epoch: i64,
    end_time_epoch: i64,
    last_updated_epoch: i64,
}

/// Spark: `VersionInfo`, here with this program's version.
#[derive(Serialize)]
struct Version {
    spark: &'static str,
}

/// Spark: `StreamingStatistics`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StreamingStatistics {
    start_time: String,
    batch_duration: u64,
    num_receivers: usize,
    num_active_receivers: usize,
    num_inactive_receivers: usize,
    num_total_completed_batches: u64,
    num_retained_completed_batches: usize,
    num_active_batches: usize,
    num_processed_records: u64,
    num_received_records: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_input_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_scheduling_delay: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_processing_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_total_delay: Option<u64>,
}

/// Spark: `ReceiverInfo` of its REST answers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Receiver {
    stream_id: usize,
    stream_name: String,
    is_active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error_message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_event_rate: Option<f64>,
    /// Batch time, and records a second.
    event_rates: Vec<(i64, f64)>,
}

/// Spark: `BatchInfo` of its REST answers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchInfo {
    batch_id: i64,
    batch_time: String,
    status: &'static str,
    batch_duration: u64,
    input_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduling_delay: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processing_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_delay: Option<u64>,
    num_active_output_ops: usize,
    num_completed_output_ops: usize,
    num_failed_output_ops: usize,
    num_total_output_ops: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure_reason: Option<String>,
}

/// Spark: `OutputOperationInfo` of its REST answers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutputOperation {
    output_op_id: usize,
    name: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<String>,
    /// There are no jobs of an engine.
    job_ids: [u64; 0],
}

pub(super) fn applications(reporter: &Reporter, _asked: &Asked) -> Result<String, Refused> {
    let (start, now) = (reporter.created_ms(), reporter.vitals().now_ms);
    let attempt = ApplicationAttemptInfo {
        start_time: gmt(start),
        // So Spark says that it runs.
        end_time: gmt(-1),
        last_updated: gmt(now),
        duration: u64::try_from(now.saturating_sub(start)).unwrap_or(0),
        completed: false,
        app_spark_version: VERSION,
        start_time_epoch: start,
        end_time_epoch: -1,
        last_updated_epoch: now,
    };
    let name = reporter.application();
    json(&[ApplicationInfo { id: name, name, attempts: [attempt] }])
}

/// Spark: `VersionInfo`.
pub(super) fn version(_reporter: &Reporter, _asked: &Asked) -> Result<String, Refused> {
    json(&Version { spark: VERSION })
}

pub(super) fn statistics(reporter: &Reporter, asked: &Asked) -> Result<String, Refused> {
    of_application(reporter, asked)?;
    let history = reporter.history();
    let averages = history.averages();
    let active = [BatchState::Waiting, BatchState::Running].map(|state| history.under_way(state).count());
    let receiving = history.receivers.values().filter(|receiver| receiver.is_active).count();
    json(&StreamingStatistics {
        // Before the stream has started it is -1 there, too.
        start_time: gmt(history.start_time_ms.unwrap_or(-1)),
        batch_duration: batch_duration(&history),
        num_receivers: history.receivers.len(),
        num_active_receivers: receiving,
        num_inactive_receivers: history.receivers.len() - receiving,
        num_total_completed_batches: history.sums.completed_batches,
        num_retained_completed_batches: history.completed().len(),
        num_active_batches: active.iter().sum(),
        num_processed_records: history.sums.processed_records,
        num_received_records: history.received_records(),
        avg_input_rate: averages.input_rate,
        avg_scheduling_delay: averages.scheduling_delay_ms,
        avg_processing_time: averages.processing_time_ms,
        avg_total_delay: averages.total_delay_ms,
    })
}

/// In the order of their streams. A direct stream has none.
pub(super) fn receivers(reporter: &Reporter, asked: &Asked) -> Result<String, Refused> {
    of_application(reporter, asked)?;
    let history = reporter.history();
    let all: Vec<_> = history.receivers.values().map(|info| receiver_of(info, &history)).collect();
    drop(history);
    json(&all)
}

pub(super) fn receiver(reporter: &Reporter, asked: &Asked) -> Result<String, Refused> {
    of_application(reporter, asked)?;
    let id: usize = asked.number_of("streamId", "receiver")?;
    let history = reporter.history();
    let found = history.receivers.get(&id).map(|info| receiver_of(info, &history));
    drop(history);
    json(&found.ok_or_else(|| Refused::not_found("receiver", asked.part("streamId")))?)
}

fn receiver_of(info: &ReceiverInfo, history: &History) -> Receiver {
    let seconds = history.batch_interval.as_secs_f64();
    let rate = |entry: &Arc<BatchEntry>| {
        let records = *entry.stream_records.get(info.stream_id)?;
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown, not counted")]
        let rate = if seconds > 0.0 { records as f64 / seconds } else { 0.0 };
        Some((entry.batch_time.as_ms(), rate))
    };
    let event_rates: Vec<_> = history.completed().rev().filter_map(rate).collect();
    #[expect(clippy::cast_precision_loss, reason = "a mean is shown, not counted")]
    let mean = event_rates.iter().map(|(_, rate)| rate).sum::<f64>() / event_rates.len() as f64;
    Receiver {
        stream_id: info.stream_id,
        stream_name: info.name.clone(),
        is_active: info.is_active,
        last_error_time: info.last_error_time_ms.map(gmt),
        last_error_message: info.last_error.clone(),
        avg_event_rate: Some(mean).filter(|mean| mean.is_finite()),
        event_rates,
    }
}

/// Those that run or wait, and those that ended, the newest first; `status` may be given more than once.
pub(super) fn batches(reporter: &Reporter, asked: &Asked) -> Result<String, Refused> {
    of_application(reporter, asked)?;
    let wanted: Vec<&str> = asked.all("status").collect();
    if let Some(word) = wanted.iter().find(|word| !["COMPLETED", "QUEUED", "PROCESSING"].contains(word)) {
        return Err(Refused::Invalid(format!(
            "not one of COMPLETED, QUEUED, PROCESSING status={}",
            super::printable(word)
        )));
    }
    let history = reporter.history();
    let duration = batch_duration(&history);
    let waiting = history.under_way(BatchState::Waiting);
    let running = history.under_way(BatchState::Running);
    let ended = history.completed().map(|entry| &**entry);
    let all = waiting.chain(running).chain(ended);
    let infos: Vec<_> = all
        .filter(|entry| wanted.is_empty() || wanted.contains(&status(entry)))
        .map(|entry| batch_info(entry, duration))
        .collect();
    drop(history);
    json(&infos)
}

pub(super) fn batch(reporter: &Reporter, asked: &Asked) -> Result<String, Refused> {
    let entry = entry(reporter, asked)?;
    let duration = batch_duration(&reporter.history());
    json(&batch_info(&entry, duration))
}

pub(super) fn operations(reporter: &Reporter, asked: &Asked) -> Result<String, Refused> {
    let entry = entry(reporter, asked)?;
    json(&entry.operations.iter().map(operation_info).collect::<Vec<_>>())
}

pub(super) fn operation(reporter: &Reporter, asked: &Asked) -> Result<String, Refused> {
    let entry = entry(reporter, asked)?;
    let id: usize = asked.number_of("outputOpId", "output operation")?;
    let found = entry.operations.iter().find(|known| known.id == id);
    json(&operation_info(found.ok_or_else(|| Refused::not_found("output operation", asked.part("outputOpId")))?))
}

fn of_application(reporter: &Reporter, asked: &Asked) -> Result<(), Refused> {
    let app = asked.part("app");
    if app == reporter.application() { Ok(()) } else { Err(Refused::not_found("app", app)) }
}

/// The batch of the path, which names it by its batch time.
fn entry(reporter: &Reporter, asked: &Asked) -> Result<Arc<BatchEntry>, Refused> {
    of_application(reporter, asked)?;
    let id: i64 = asked.number_of("batchId", "batch")?;
    let found = reporter.history().find(|entry| entry.batch_time.as_ms() == id);
    found.ok_or_else(|| Refused::not_found("batch", asked.part("batchId")))
}

fn status(entry: &BatchEntry) -> &'static str {
    match entry.state {
        BatchState::Waiting => "QUEUED",
        BatchState::Running => "PROCESSING",
        BatchState::Completed | BatchState::Failed | BatchState::Dropped => "COMPLETED",
    }
}

fn batch_info(entry: &BatchEntry, batch_duration: u64) -> BatchInfo {
    let [active, completed, failed] = entry.operations_by_state();
    BatchInfo {
        batch_id: entry.batch_time.as_ms(),
        batch_time: gmt(entry.batch_time.as_ms()),
        status: status(entry),
        batch_duration,
        input_size: entry.num_records,
        scheduling_delay: entry.scheduling_delay_ms,
        processing_time: entry.processing_delay_ms,
        total_delay: entry.total_delay_ms,
        num_active_output_ops: active,
        num_completed_output_ops: completed,
        num_failed_output_ops: failed,
        num_total_output_ops: entry.operations.len(),
        first_failure_reason: entry.first_failure().map(str::to_owned),
    }
}

fn operation_info(operation: &OutputOperationInfo) -> OutputOperation {
    OutputOperation {
        output_op_id: operation.id,
        name: operation.name.clone(),
        description: operation.description(),
        start_time: operation.start_time_ms.map(gmt),
        end_time: operation.end_time_ms.map(gmt),
        duration: operation.duration_ms(),
        failure_reason: operation.failure_reason.clone(),
        job_ids: [],
    }
}

fn batch_duration(history: &History) -> u64 {
    u64::try_from(history.batch_interval.as_millis()).unwrap_or(u64::MAX)
}

/// A time as Spark writes it: `2023-11-14T22:13:20.000GMT`.
fn gmt(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fGMT").to_string()
}
