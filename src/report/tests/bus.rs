//! Listeners hear all events in Spark's order, and a slow one holds nothing up.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use super::{batch, completed, range, reporter};
use crate::{
    error::Error,
    report::{
        BatchCounts, BatchOutcome, BatchProgress, ListenerBus, OutputOperationInfo, StreamStopped, StreamingListener,
        StreamingStarted,
    },
};

/// Writes down every event in one line.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl StreamingListener for Notes {
    fn on_streaming_started(&mut self, started: &StreamingStarted) {
        self.note(format!("started {}", started.time_ms));
    }
    fn on_batch_submitted(&mut self, batch: &BatchProgress) {
        self.note(format!("submitted {} {:?}", batch.batch.batch_seq, batch.scheduling_delay_ms()));
    }
    fn on_batch_started(&mut self, batch: &BatchProgress) {
        self.note(format!("begun {} {:?}", batch.batch.batch_seq, batch.scheduling_delay_ms()));
    }
    fn on_output_operation_started(&mut self, operation: &OutputOperationInfo) {
        self.note(format!("operation {} started", operation.id));
    }
    fn on_output_operation_completed(&mut self, operation: &OutputOperationInfo) {
        self.note(format!("operation {} completed {:?}", operation.id, operation.duration_ms()));
    }
    fn on_batch_completed(&mut self, batch: &BatchProgress) {
        self.note(format!("completed {} {:?} {}", batch.batch.batch_seq, batch.total_delay_ms(), batch.num_records()));
    }
    fn on_stream_stopped(&mut self, stopped: &StreamStopped) {
        self.note(format!("stopped {:?}", stopped.failure));
    }
}

/// Waits at each batch until it is let go.
struct Slow {
    go: Receiver<()>,
    seen: Notes,
}

impl StreamingListener for Slow {
    fn on_batch_submitted(&mut self, batch: &BatchProgress) {
        let _ = self.go.recv();
        self.seen.note(format!("submitted {}", batch.batch.batch_seq));
    }
}

fn slow() -> (Slow, Sender<()>, Notes) {
    let (let_go, go) = channel();
    let seen = Notes::default();
    (Slow { go, seen: seen.clone() }, let_go, seen)
}

/// UI-01, UI-02, SC-03: the order of events, and which delays each of them knows.
#[test]
fn events_come_in_sparks_order() {
    let (reporter, _) = reporter();
    let notes = Notes::default();
    reporter.listeners().add(Box::new(notes.clone())).unwrap();
    let done = batch(1, vec![range("t", 0, 0, 10), range("t", 1, 5, 11)]);
    let submitted = BatchProgress { processing_start_time_ms: None, processing_end_time_ms: None, ..done.clone() };
    let started = BatchProgress { processing_end_time_ms: None, ..done.clone() };

    reporter.streaming_started(Duration::from_secs(1));
    reporter.batch_submitted(&submitted);
    reporter.batch_started(&started);
    for operation in &done.output_operations {
        reporter.output_operation_started(operation);
        reporter.output_operation_completed(operation);
    }
    reporter.batch_completed(&completed(done, BatchCounts::default()));
    reporter.stopped(Some(&Error::fenced("another owner")));

    let expected = [
        "started 1700000000000",
        "submitted 1 None",
        "begun 1 Some(20)",
        "operation 0 started",
        "operation 0 completed Some(110)",
        "completed 1 Some(150) 16",
        "stopped Some((Fenced, \"another owner\"))",
    ];
    assert_eq!(notes.lines(), expected);
}

#[test]
fn a_dropped_batch_is_told_to_no_listener() {
    let (reporter, _) = reporter();
    let notes = Notes::default();
    reporter.listeners().add(Box::new(notes.clone())).unwrap();
    let mut dropped = completed(batch(1, vec![range("t", 0, 0, 10)]), BatchCounts::default());
    dropped.outcome = BatchOutcome::Dropped;
    reporter.batch_completed(&dropped);
    reporter.stopped(None);
    assert_eq!(notes.lines(), ["stopped None"]);
}

#[test]
fn a_slow_listener_loses_events_and_holds_nobody_up() {
    let (reporter, _) = reporter();
    let (slow, let_go, seen) = slow();
    let quick = Notes::default();
    reporter.listeners().add_with_queue(Box::new(slow), 2).unwrap();
    reporter.listeners().add(Box::new(quick.clone())).unwrap();
    for batch_seq in 1..=10 {
        reporter.batch_submitted(&batch(batch_seq, Vec::new()));
    }
    let dropped = reporter.listeners().dropped_events();
    // One event may be with the listener already, two wait.
    assert!((7..=8).contains(&dropped), "{dropped}");
    assert!(reporter.render_metrics().contains(&format!("directstream_listener_events_dropped_total {dropped}\n")));
    for _ in 0..10 {
        let_go.send(()).unwrap();
    }
    reporter.stopped(None);
    assert_eq!(quick.lines().len(), 11);
    let kept = seen.lines();
    assert_eq!(kept.len(), 10 - usize::try_from(dropped).unwrap());
    assert!(kept.is_sorted() && kept[0] == "submitted 1", "{kept:?}");
}

#[test]
fn a_listener_that_hangs_does_not_hold_the_end_up() {
    let bus = ListenerBus::new();
    let (slow, let_go, _) = slow();
    bus.add(Box::new(slow)).unwrap();
    let (reporter, _) = reporter();
    let reporter = crate::report::Reporter::with_listeners("orders", crate::clock::SystemClock::shared(), {
        drop(reporter);
        bus.clone()
    });
    reporter.batch_submitted(&batch(1, Vec::new()));
    bus.close(Duration::from_millis(20));
    // Reached, though nobody let it go.
    drop(let_go);
}

#[test]
fn a_listener_that_panics_sees_the_next_event() {
    struct Panics(Notes);
    impl StreamingListener for Panics {
        fn on_batch_submitted(&mut self, batch: &BatchProgress) {
            if batch.batch.batch_seq == 1 {
                // Without the hook that prints where it was: on a busy machine that takes longer than the end waits.
                std::panic::resume_unwind(Box::new("the listener's own bug"));
            }
            self.0.note(format!("submitted {}", batch.batch.batch_seq));
        }
    }
    let (reporter, _) = reporter();
    let notes = Notes::default();
    reporter.listeners().add(Box::new(Panics(notes.clone()))).unwrap();
    reporter.batch_submitted(&batch(1, Vec::new()));
    reporter.batch_submitted(&batch(2, Vec::new()));
    reporter.stopped(None);
    assert_eq!(notes.lines(), ["submitted 2"]);
    assert!(reporter.render_metrics().contains("directstream_listener_panics_total 1\n"));
}

/// UI-05, UI-13: reasons are kept per operation.
#[test]
fn a_failed_operation_makes_a_failed_batch() {
    let mut failed = batch(1, Vec::new());
    assert!(!failed.is_failed());
    failed.output_operations[0].failure_reason = Some("no such column".to_owned());
    assert!(failed.is_failed() && failed.output_operations[0].is_failed());
    failed.output_operations[0].end_time_ms = None;
    assert!(failed.output_operations[0].is_active());
    assert_eq!(failed.output_operations[0].duration_ms(), None);
}

#[test]
fn a_clock_that_went_back_gives_no_negative_delay() {
    let mut odd = batch(1, Vec::new());
    odd.processing_end_time_ms = Some(0);
    assert_eq!(odd.processing_delay_ms(), Some(0));
}
