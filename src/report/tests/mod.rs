//! Tests of the report stage. Time is a manual clock's; nothing sleeps except where a thread of its own is the subject.

mod api;
mod bus;
mod compatible;
mod dashboards;
mod health;
mod history;
mod log;
mod metrics;
mod progress;
mod rate_limit;
mod server;
mod text;
mod traces;

use std::sync::Arc;

use super::{BatchCounts, BatchOutcome, BatchProgress, CompletedBatch, InputInfo, OutputOperationInfo, Reporter};
use crate::{
    clock::ManualClock,
    types::{BatchInfo, BatchTime, Offset, OffsetRange, TopicPartition},
};

/// 2023-11-14T22:13:20Z, so that times in snapshots are easy to tell.
const START_MS: i64 = 1_700_000_000_000;

fn reporter() -> (Reporter, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(START_MS));
    (Reporter::new("orders", Arc::clone(&clock) as _), clock)
}

fn range(topic: &str, partition: i32, from: i64, until: i64) -> OffsetRange {
    OffsetRange::new(TopicPartition::new(topic, partition), Offset::clamped(from), Offset::clamped(until))
}

/// Batch `batch_seq` of one stream: submitted at its batch time, started 20 ms and ended 150 ms later.
fn batch(batch_seq: u64, ranges: Vec<OffsetRange>) -> BatchProgress {
    let time = START_MS + 1000 * i64::try_from(batch_seq).unwrap();
    let ranges: Arc<[OffsetRange]> = ranges.into();
    let operation = OutputOperationInfo {
        batch_time: BatchTime::from_ms(time),
        id: 0,
        name: "save_to_table orders".to_owned(),
        start_time_ms: Some(time + 30),
        end_time_ms: Some(time + 140),
        failure_reason: None,
    };
    BatchProgress {
        batch: BatchInfo { batch_seq, batch_time: BatchTime::from_ms(time), ranges: Arc::clone(&ranges) },
        inputs: vec![InputInfo { stream_id: 0, ranges, records: None }],
        submission_time_ms: time,
        processing_start_time_ms: Some(time + 20),
        processing_end_time_ms: Some(time + 150),
        output_operations: vec![operation],
    }
}

fn completed(progress: BatchProgress, counts: BatchCounts) -> CompletedBatch {
    CompletedBatch { progress, outcome: BatchOutcome::Completed, counts, commit_time: None, failure: None }
}
