//! When a process is alive, and when it is ready.

use std::time::Duration;

use super::{batch, completed, reporter};
use crate::{
    error::Error,
    report::{BatchCounts, HealthAnswer, Reporter, STALL_MAX, Status},
};

fn both(reporter: &Reporter) -> (bool, bool) {
    (reporter.healthy().ok, reporter.ready().ok)
}

fn reason(answer: &HealthAnswer) -> String {
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["ok"], answer.ok);
    body["reason"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn ready_is_the_owner_that_has_planned() {
    let (reporter, _) = reporter();
    assert_eq!(both(&reporter), (true, false));
    assert_eq!(reason(&reporter.ready()), "starting");
    reporter.status(Status::Standby);
    assert_eq!(both(&reporter), (true, false));
    assert_eq!(reason(&reporter.ready()), "standby");
    reporter.status(Status::Running);
    assert_eq!(reason(&reporter.ready()), "starting");
    reporter.plan_completed(Duration::from_millis(3));
    assert_eq!(both(&reporter), (true, true));
    reporter.status(Status::Stopping);
    assert_eq!(both(&reporter), (true, false));
    assert_eq!(reason(&reporter.ready()), "stopping");
}

#[test]
fn no_progress_for_too_long_is_not_healthy_and_progress_heals() {
    let (reporter, clock) = reporter();
    reporter.status(Status::Running);
    clock.advance(STALL_MAX);
    assert!(reporter.healthy().ok);
    clock.advance(Duration::from_millis(1));
    assert_eq!(reason(&reporter.healthy()), "no_progress");
    reporter.progress();
    assert!(reporter.healthy().ok);
}

#[test]
fn every_turn_of_the_loop_is_progress() {
    let told: [fn(&Reporter); 5] = [
        |reporter| reporter.status(Status::Running),
        |reporter| reporter.plan_completed(Duration::ZERO),
        |reporter| reporter.batch_submitted(&batch(1, Vec::new())),
        |reporter| reporter.batch_started(&batch(1, Vec::new())),
        |reporter| reporter.batch_completed(&completed(batch(1, Vec::new()), BatchCounts::default())),
    ];
    for tell in told {
        let (reporter, clock) = reporter();
        clock.advance(STALL_MAX * 2);
        assert!(!reporter.healthy().ok);
        tell(&reporter);
        assert!(reporter.healthy().ok);
    }
}

#[test]
fn a_failed_process_says_the_kind_and_no_more() {
    let (reporter, _) = reporter();
    reporter.stopped(Some(&Error::corrupt("offsets disagree password=hunter2")));
    assert_eq!(both(&reporter), (false, false));
    assert_eq!(reason(&reporter.healthy()), "corrupt");
    assert!(!reporter.healthy().body.contains("hunter2"));
}

#[test]
fn the_answer_is_one_line() {
    let (reporter, clock) = reporter();
    reporter.owned(7, 41);
    clock.advance(Duration::from_millis(250));
    let expected = r#"{"batch_seq":41,"last_progress_ms":250,"ok":true,"reason":null,"status":"starting"}"#;
    assert_eq!(reporter.healthy().body, expected);
}
