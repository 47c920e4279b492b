//! What is kept of the last batches: in Spark's counts, and within its bounds.

use std::{sync::Arc, time::Duration};

use super::{START_MS, batch, completed, range, reporter};
use crate::{
    report::{
        BatchCounts, BatchOutcome, BatchProgress, CompletedBatch, CountedRange, InputInfo, OutputOperationInfo,
        Reporter,
        history::{Averages, BATCH_RANGES_MAX, BatchState, KeptRanges, RANGES_MAX},
    },
    types::{DeadLetterStage, LostRangeReason, OffsetRange},
};

/// Waiting, running, completed; received and processed records: Spark's `StreamingJobProgressListener`.
fn counts(reporter: &Reporter) -> (usize, usize, u64, u64, u64) {
    let history = reporter.history();
    let of = |state| history.under_way(state).count();
    (
        of(BatchState::Waiting),
        of(BatchState::Running),
        history.sums.completed_batches,
        history.received_records(),
        history.sums.processed_records,
    )
}

/// A batch of two streams with 300 records each, before it began.
fn of_two_streams() -> BatchProgress {
    let ranges = [range("a", 0, 0, 300), range("b", 0, 0, 300)];
    let input =
        |stream_id: usize| InputInfo { stream_id, ranges: Arc::new([ranges[stream_id].clone()]), records: None };
    BatchProgress {
        inputs: vec![input(0), input(1)],
        processing_start_time_ms: None,
        processing_end_time_ms: None,
        output_operations: Vec::new(),
        ..batch(1, ranges.to_vec())
    }
}

fn ended(batch_seq: u64, ranges: Vec<OffsetRange>) -> CompletedBatch {
    let counted = |range: &OffsetRange| CountedRange { range: range.clone(), records: range.count(), gaps: 0 };
    let counts = BatchCounts {
        records: ranges.iter().map(OffsetRange::count).sum(),
        ranges: ranges.iter().map(counted).collect(),
        ..BatchCounts::default()
    };
    completed(batch(batch_seq, ranges), counts)
}

#[test]
fn ui_08_records_are_received_when_a_batch_begins_and_processed_when_it_is_committed() {
    let (reporter, _) = reporter();
    let mut told = of_two_streams();
    reporter.batch_submitted(&told);
    assert_eq!(counts(&reporter), (1, 0, 0, 0, 0));
    told.processing_start_time_ms = Some(told.submission_time_ms + 20);
    reporter.batch_started(&told);
    assert_eq!(counts(&reporter), (0, 1, 0, 600, 0));
    told.processing_end_time_ms = Some(told.submission_time_ms + 150);
    let counted = BatchCounts { records: 600, ..BatchCounts::default() };
    reporter.batch_completed(&completed(told, counted));
    assert_eq!(counts(&reporter), (0, 0, 1, 600, 600));
}

/// A batch of which nothing remains was never received: its records come again.
#[test]
fn a_dropped_batch_is_listed_apart_with_its_error_and_counts_for_nothing() {
    let (reporter, _) = reporter();
    let told = of_two_streams();
    reporter.batch_submitted(&told);
    reporter.batch_started(&told);
    let failed =
        OutputOperationInfo { failure_reason: Some("no".to_owned()), ..batch(1, vec![]).output_operations[0].clone() };
    reporter.output_operation_started(&OutputOperationInfo {
        failure_reason: None,
        end_time_ms: None,
        ..failed.clone()
    });
    reporter.output_operation_completed(&failed);
    let outcome = BatchOutcome::Dropped;
    let dropped = completed(told, BatchCounts::default());
    reporter.batch_completed(&CompletedBatch { outcome, failure: Some("broker away".to_owned()), ..dropped });
    assert_eq!(counts(&reporter), (0, 0, 0, 0, 0));
    let history = reporter.history();
    let [entry] = &history.dropped().collect::<Vec<_>>()[..] else { panic!("{history:?}") };
    assert_eq!((entry.first_failure(), entry.operations_by_state()), (Some("broker away"), [0, 0, 1]));
    assert!(history.find(|_| true).is_none());
}

#[test]
fn ui_10_the_oldest_completed_batches_are_dropped_above_the_limit() {
    let (reporter, _) = reporter();
    reporter.retain_batches(20);
    for batch_seq in 1..=30 {
        reporter.batch_completed(&ended(batch_seq, vec![range("t", 0, 0, 10)]));
    }
    let history = reporter.history();
    let kept: Vec<u64> = history.completed().map(|entry| entry.batch_seq).collect();
    assert_eq!((kept, history.sums.completed_batches), ((11..=30).rev().collect(), 30));
    assert_eq!(history.sums.processed_records, 300);
}

#[test]
fn lost_ranges_are_kept_as_one_sum_per_reason() {
    let (reporter, _) = reporter();
    let lost = |reason, count: u64, offsets| std::iter::repeat_n((reason, offsets), usize::try_from(count).unwrap());
    let lost_ranges = lost(LostRangeReason::Retention, 1_000, Some(3));
    let lost_ranges = lost_ranges.chain(lost(LostRangeReason::TopicRecreated, 2, None)).collect();
    let counts = BatchCounts { lost_ranges, ..BatchCounts::default() };
    reporter.batch_completed(&completed(batch(1, vec![]), counts));
    let history = reporter.history();
    let kept = &history.completed().next().unwrap().counts.lost_ranges;
    assert_eq!(*kept, [(LostRangeReason::Retention, Some(3_000)), (LostRangeReason::TopicRecreated, None)]);
}

#[test]
fn ui_10_by_default_as_many_are_kept_as_spark_keeps() {
    assert_eq!(reporter().0.history().retained_max, 1_000);
}

/// UI-13: failed has a reason, active has no end, and the rest is completed.
#[test]
fn ui_13_operations_are_counted_by_how_they_ended() {
    let (reporter, _) = reporter();
    let told = of_two_streams();
    reporter.batch_submitted(&told);
    reporter.batch_started(&told);
    let operation = |id, end_time_ms, failure: Option<&str>| OutputOperationInfo {
        id,
        end_time_ms,
        failure_reason: failure.map(str::to_owned),
        ..batch(1, vec![]).output_operations[0].clone()
    };
    for operation in [operation(0, Some(5), None), operation(1, None, None), operation(2, Some(9), Some("refused"))] {
        reporter.output_operation_started(&OutputOperationInfo {
            end_time_ms: None,
            failure_reason: None,
            ..operation.clone()
        });
        if operation.end_time_ms.is_some() {
            reporter.output_operation_completed(&operation);
        }
    }
    let entry = reporter.history().find(|_| true).unwrap();
    assert_eq!(
        (entry.operations_by_state(), entry.is_failed(), entry.first_failure()),
        ([1, 1, 1], true, Some("refused"))
    );
}

#[test]
fn ui_14_the_start_is_not_known_before_the_stream_has_started() {
    let (reporter, _) = reporter();
    assert_eq!(reporter.history().start_time_ms, None);
    reporter.streaming_started(Duration::from_secs(1));
    assert_eq!(reporter.history().start_time_ms, Some(START_MS));
}

/// UI-23: whole milliseconds, over the batches that have the value; rates over all, those that wait among them.
#[test]
fn ui_23_averages_leave_out_what_waits() {
    let (reporter, _) = reporter();
    assert_eq!(reporter.history().averages(), Averages::default());
    reporter.streaming_started(Duration::from_millis(500));
    reporter.batch_completed(&ended(1, vec![range("t", 0, 0, 100)]));
    let mut slower = ended(2, vec![range("t", 0, 0, 300)]);
    slower.progress.processing_end_time_ms = slower.progress.processing_end_time_ms.map(|ms| ms + 101);
    reporter.batch_completed(&slower);
    let mut waiting = batch(3, vec![range("t", 0, 0, 200)]);
    (waiting.processing_start_time_ms, waiting.processing_end_time_ms) = (None, None);
    reporter.batch_submitted(&waiting);
    let averages = reporter.history().averages();
    assert_eq!(averages.input_rate, Some(400.0));
    // 130 and 231 of processing after 20 and 20 of waiting.
    assert_eq!(averages.scheduling_delay_ms, Some(20));
    assert_eq!(averages.processing_time_ms, Some(180));
    assert_eq!(averages.total_delay_ms, Some(200));
}

#[test]
fn of_very_many_ranges_the_longest_are_kept_and_old_batches_lose_theirs() {
    let (reporter, _) = reporter();
    let many =
        |most: i32| (0..most).map(|partition| range("t", partition, 0, i64::from(partition) + 1)).collect::<Vec<_>>();
    let kept = |batch_seq| {
        let entry = reporter.history().find(|entry| entry.batch_seq == batch_seq).unwrap();
        let ranges = match &entry.ranges {
            KeptRanges::Counted(ranges) => ranges.to_vec(),
            KeptRanges::Planned(_) | KeptRanges::Forgotten => Vec::new(),
        };
        (entry.ranges_total, ranges)
    };
    reporter.batch_completed(&ended(1, many(3_000)));
    let (total, ranges) = kept(1);
    assert_eq!((total, ranges.len()), (3_000, BATCH_RANGES_MAX));
    assert!(ranges.is_sorted_by_key(|counted| counted.range.partition()) && ranges[0].range.partition() == 1_000);

    let batches = u64::try_from(RANGES_MAX / BATCH_RANGES_MAX).unwrap();
    let most = many(2_000);
    for batch_seq in 2..=batches {
        reporter.batch_completed(&ended(batch_seq, most.clone()));
    }
    assert_eq!(kept(1).1.len(), BATCH_RANGES_MAX);
    reporter.batch_completed(&ended(batches + 1, most.clone()));
    assert_eq!((kept(1).0, kept(1).1.len(), kept(2).1.len()), (3_000, 0, BATCH_RANGES_MAX));
    // What goes with its batch frees its room as well.
    reporter.retain_batches(1);
    reporter.batch_completed(&ended(batches + 2, most.clone()));
    reporter.retain_batches(1_000);
    for batch_seq in batches + 3..=2 * batches + 1 {
        reporter.batch_completed(&ended(batch_seq, most.clone()));
    }
    assert_eq!(kept(batches + 2).1.len(), BATCH_RANGES_MAX);
}

#[test]
fn sums_are_those_of_committed_batches() {
    let (reporter, _) = reporter();
    let counts = BatchCounts {
        records: 9,
        gaps: 1,
        dead_letters: vec![(DeadLetterStage::Decode, 2), (DeadLetterStage::Write, 1)],
        late_records: 4,
        ..BatchCounts::default()
    };
    let one = completed(batch(1, vec![range("t", 0, 0, 10)]), counts.clone());
    reporter.batch_completed(&one);
    reporter.batch_completed(&CompletedBatch { outcome: BatchOutcome::Failed, ..one });
    let sums = reporter.history().sums.clone();
    assert_eq!((sums.completed_batches, sums.processed_records, sums.gaps, sums.late_records), (2, 9, 1, 4));
    assert_eq!(sums.dead_letters.into_iter().collect::<Vec<_>>(), [("decode", 2), ("write", 1)]);
}
