//! The spans of a batch: what was told of it, and nothing else.

use std::{net::TcpListener, sync::Arc, time::Duration};

use super::{START_MS, batch, completed, range, reporter};
use crate::{
    clock::{Clock, SystemClock},
    config::TracesConfig,
    report::{
        BatchCounts, BatchOutcome, CommitEvent, CompletedBatch, OutputOperationInfo, Reporter, StepInfo, StepKind,
        TaskTimes, TraceParent,
        traces::{Ended, SpanModel, Value, trace_of},
    },
    types::{BatchTime, DeadLetterStage},
};

/// The time of batch 1.
const TICK: i64 = START_MS + 1_000;

fn tell(reporter: &Reporter, kind: StepKind, from: i64, until: i64) {
    let step = StepInfo { kind, start_time_ms: TICK + from, end_time_ms: TICK + until };
    reporter.batch_step(BatchTime::from_ms(TICK), step);
}

fn parent(number: u64) -> TraceParent {
    TraceParent { trace_id: u128::from(number), span_id: number, flags: 1 }
}

/// The trace of a batch that ended, at 200 ms after its tick.
fn trace(reporter: &Reporter, ended: &CompletedBatch) -> SpanModel {
    let (entry, told) = reporter.history().ended(ended);
    let now_ms = TICK + 200;
    let (completed, told) = (ended, &told);
    let application = "orders";
    trace_of(&Ended { application, epoch: 3, reads_kafka: true, entry: &entry, completed, told, now_ms })
}

/// Name, and milliseconds after the tick; below it what is within.
fn tree(span: &SpanModel, depth: usize) -> Vec<String> {
    let error = if span.error.is_some() { " failed" } else { "" };
    let own = format!("{}{} {}..{}{error}", "  ".repeat(depth), span.name, span.start_ms - TICK, span.end_ms - TICK);
    let below = span.children.iter().flat_map(|child| tree(child, depth + 1));
    std::iter::once(own).chain(below).collect()
}

fn attribute<'a>(span: &'a SpanModel, name: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

fn text(span: &SpanModel, name: &str) -> String {
    match attribute(span, name) {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        None => "none".to_owned(),
    }
}

/// Of a batch that was committed, and of which everything was told.
fn whole() -> SpanModel {
    let (reporter, _) = reporter();
    let mut told = batch(1, vec![range("orders", 0, 0, 10), range("returns", 0, 5, 5)]);
    let mut side_effect = told.output_operations[0].clone();
    (side_effect.id, side_effect.name) = (1, "print".to_owned());
    (side_effect.start_time_ms, side_effect.end_time_ms) = (Some(TICK + 143), Some(TICK + 144));
    told.output_operations.push(side_effect);
    reporter.batch_submitted(&told);
    reporter.batch_started(&told);
    tell(&reporter, StepKind::Plan, 2, 19);
    tell(&reporter, StepKind::Read, 31, 120);
    let tasks = TaskTimes { reading: Duration::from_millis(70), transforming: Duration::from_millis(15) };
    reporter.batch_read(BatchTime::from_ms(TICK), tasks, &[parent(1), parent(2)]);
    tell(&reporter, StepKind::Process, 20, 140);
    tell(&reporter, StepKind::Wait, 140, 142);
    tell(&reporter, StepKind::Commit, 144, 150);
    reporter.commit_event(BatchTime::from_ms(TICK), CommitEvent::SettledCommitted, None);
    // Of another batch nothing is kept.
    reporter.batch_step(BatchTime::from_ms(1), StepInfo { kind: StepKind::Plan, start_time_ms: 1, end_time_ms: 2 });
    let counts = BatchCounts {
        records: 9,
        gaps: 1,
        bytes: 900,
        rows: 8,
        dead_letters: vec![(DeadLetterStage::Convert, 1)],
        ..BatchCounts::default()
    };
    let mut ended = completed(told, counts);
    ended.commit_time = Some(Duration::from_millis(5));
    ended.progress.inputs[0].records = Some(9);
    trace(&reporter, &ended)
}

#[test]
fn a_batch_is_one_span_with_its_steps_below_it() {
    let trace = whole();
    assert_eq!(
        tree(&trace, 0),
        [
            "process orders 0..150",
            "  plan 2..19",
            "  read and transform 20..140",
            "    read 31..120",
            "    save_to_table orders 30..140",
            "  wait for the batch before 140..142",
            "  print 143..144",
            "  commit 144..150",
        ]
    );
    assert_eq!(trace.links, [parent(1), parent(2)]);
    assert!(trace.consumes && trace.children.iter().all(|child| !child.consumes && child.links.is_empty()));
}

#[test]
fn the_span_of_a_batch_says_what_it_moved() {
    let trace = whole();
    for (name, value) in [
        ("messaging.system", "kafka"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "orders"),
        ("messaging.batch.message_count", "9"),
        ("directstream.application", "orders"),
        ("directstream.batch_seq", "1"),
        ("directstream.epoch", "3"),
        ("directstream.outcome", "completed"),
        ("directstream.ranges", "1"),
        ("directstream.records", "9"),
        ("directstream.gaps", "1"),
        ("directstream.bytes", "900"),
        ("directstream.rows", "8"),
        ("directstream.dead_letters", "1"),
        ("directstream.processing_delay_ms", "130"),
        ("error.type", "none"),
    ] {
        assert_eq!(text(&trace, name), value, "{name}");
    }
    let read = &trace.children[1].children[0];
    assert_eq!(
        (text(read, "directstream.tasks_reading_ms"), text(read, "directstream.tasks_transforming_ms")),
        ("70".into(), "15".into())
    );
    let commit = trace.children.last().unwrap();
    assert_eq!(text(commit, "directstream.transaction_ms"), "5");
    assert_eq!((commit.events.len(), commit.events[0].name), (1, "commit outcome settled"));
    assert_eq!(commit.events[0].attributes, [("directstream.outcome", Value::Text("committed".to_owned()))]);
}

/// Of a batch that was not transformed whole, operations are told one by one alone, and it has no end of its own.
#[test]
fn a_batch_that_failed_says_why_and_how_far_it_came() {
    let (reporter, _) = reporter();
    let mut told = batch(1, vec![range("orders", 0, 0, 10)]);
    let operation = OutputOperationInfo {
        failure_reason: Some("division by zero".to_owned()),
        ..told.output_operations[0].clone()
    };
    told.output_operations.clear();
    told.processing_end_time_ms = None;
    reporter.batch_submitted(&told);
    reporter.batch_started(&told);
    reporter.output_operation_completed(&operation);
    tell(&reporter, StepKind::Process, 20, 145);
    let (outcome, failure) = (BatchOutcome::Failed, Some("division by zero, and more".to_owned()));
    let trace = trace(&reporter, &CompletedBatch { outcome, failure, ..completed(told, BatchCounts::default()) });
    let spans =
        ["process orders 0..200 failed", "  read and transform 20..145", "    save_to_table orders 30..140 failed"];
    assert_eq!(tree(&trace, 0), spans);
    assert_eq!(trace.error.as_deref(), Some("division by zero, and more"));
    assert_eq!((text(&trace, "error.type"), text(&trace, "directstream.records")), ("failed".into(), "none".into()));
}

#[test]
fn a_commit_that_was_tried_in_vain_says_so() {
    let (reporter, _) = reporter();
    let told = batch(1, vec![range("orders", 0, 0, 10)]);
    reporter.batch_submitted(&told);
    reporter.batch_started(&told);
    for _ in 0..100 {
        reporter.commit_event(BatchTime::from_ms(TICK), CommitEvent::NotCommitted, Some("the disk is full"));
    }
    tell(&reporter, StepKind::Commit, 144, 150);
    let (outcome, failure) = (BatchOutcome::Dropped, Some("given up".to_owned()));
    let trace = trace(&reporter, &CompletedBatch { outcome, failure, ..completed(told, BatchCounts::default()) });
    let commit = trace.children.last().unwrap();
    assert_eq!((commit.error.as_deref(), commit.events.len()), (Some("given up"), 16));
    let reason = ("directstream.reason", Value::Text("the disk is full".to_owned()));
    assert_eq!((commit.events[0].name, &commit.events[0].attributes[..]), ("not committed", &[reason][..]));
    // The event is told by the wall clock, which stood still: it lies within its span all the same.
    assert!(commit.events.iter().all(|event| event.at_ms == commit.start_ms));
}

#[test]
fn no_span_leaves_the_one_above_it_where_the_clock_went_back() {
    let (reporter, _) = reporter();
    let told = batch(1, vec![range("a", 0, 0, 1), range("b", 0, 0, 1)]);
    reporter.batch_submitted(&told);
    reporter.batch_started(&told);
    tell(&reporter, StepKind::Plan, -5, -1);
    tell(&reporter, StepKind::Read, 10, 900);
    tell(&reporter, StepKind::Process, 20, 15);
    tell(&reporter, StepKind::Commit, 140, 7_000);
    let trace = trace(&reporter, &completed(told, BatchCounts::default()));
    assert_eq!(
        tree(&trace, 0),
        [
            "process a, b -5..150",
            "  plan -5..-1",
            "  read and transform 20..20",
            "    read 20..20",
            "  save_to_table orders 30..140",
            "  commit 140..150",
        ]
    );
    assert_eq!(text(&trace, "messaging.destination.name"), "none");
}

#[test]
fn the_share_of_reading_is_that_of_the_tasks() {
    let (reporter, _) = reporter();
    reporter.batch_submitted(&batch(1, vec![range("orders", 0, 0, 10)]));
    tell(&reporter, StepKind::Read, 10, 110);
    let (entry, _) = reporter.history().ended(&completed(batch(1, vec![]), BatchCounts::default()));
    assert_eq!(entry.steps.read_time_ms(), Some(0));
    reporter.batch_submitted(&batch(1, vec![range("orders", 0, 0, 10)]));
    tell(&reporter, StepKind::Read, 10, 110);
    let tasks = TaskTimes { reading: Duration::from_millis(60), transforming: Duration::from_millis(140) };
    reporter.batch_read(BatchTime::from_ms(TICK), tasks, &[]);
    let (entry, _) = reporter.history().ended(&completed(batch(1, vec![]), BatchCounts::default()));
    assert_eq!(entry.steps.read_time_ms(), Some(30));
}

/// A collector that takes connections and never answers.
fn hangs() -> (TcpListener, TracesConfig) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let traces = TracesConfig::to_collector(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    (listener, traces)
}

#[test]
fn what_the_queue_has_no_room_for_is_lost_and_counted_and_so_is_the_rest_at_the_end() {
    let (_hangs, traces) = hangs();
    let (reporter, _) = reporter();
    reporter.trace_to(&traces, true).unwrap();
    assert!(reporter.traces());
    // Two spans each: the batch and its output.
    for _ in 0..1_100 {
        reporter.batch_completed(&completed(batch(1, vec![range("orders", 0, 0, 10)]), BatchCounts::default()));
    }
    assert_eq!(reporter.trace_spans(), [0, 2_200 - 2_048]);
    let clock = SystemClock::new();
    reporter.stopped(None);
    assert!(clock.monotonic() < Duration::from_secs(5));
    assert_eq!(reporter.trace_spans(), [0, 2_200]);
    let text = reporter.render_metrics();
    assert!(text.contains("directstream_trace_spans_total{outcome=\"lost\"} 2200\n"), "{text}");
    // Nothing is sent any more.
    reporter.batch_completed(&completed(batch(2, vec![]), BatchCounts::default()));
    assert_eq!(reporter.trace_spans(), [0, 2_200]);
}

/// `cargo test --lib -- --ignored --nocapture what_a_trace_costs`
#[test]
#[ignore = "measures"]
fn what_a_trace_costs() {
    let (_hangs, traces) = hangs();
    let links: Vec<_> = (1..=128).map(parent).collect();
    let clock: Arc<dyn Clock> = SystemClock::shared();
    let mut took = [Duration::ZERO; 2];
    for (traced, took) in [false, true].into_iter().zip(&mut took) {
        let (reporter, _) = reporter();
        if traced {
            reporter.trace_to(&traces, true).unwrap();
        }
        let ended = completed(batch(1, vec![range("orders", 0, 0, 10)]), BatchCounts::default());
        for _ in 0..200 {
            reporter.batch_submitted(&ended.progress);
            reporter.batch_read(BatchTime::from_ms(TICK), TaskTimes::default(), &links);
            for kind in [StepKind::Plan, StepKind::Read, StepKind::Process, StepKind::Wait, StepKind::Commit] {
                tell(&reporter, kind, 0, 150);
            }
            let started = clock.monotonic();
            reporter.batch_completed(&ended);
            *took += clock.monotonic() - started;
        }
    }
    println!(
        "a batch that ends: {:?} without traces, {:?} with seven spans and 128 links",
        took[0] / 200,
        took[1] / 200
    );
}
