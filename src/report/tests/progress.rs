//! How far work with a known end has come.

use std::{sync::Arc, time::Duration};

use super::{START_MS, batch, completed, range, reporter};
use crate::{
    clock::ManualClock,
    report::{
        BatchCounts, PartitionPosition, Progress,
        progress::{Face, Lines, Pace, TEMPLATES},
    },
    types::{Offset, TopicPartition},
};

#[test]
fn lines_come_every_few_seconds_with_rate_and_time_left() {
    let clock = Arc::new(ManualClock::at(START_MS));
    let mut lines = Lines::start("reading", Some(100_000), Arc::clone(&clock) as _);
    assert_eq!(lines.due(10), None);
    clock.advance(Duration::from_millis(4_999));
    assert_eq!(lines.due(10), None);
    clock.advance(Duration::from_millis(5_001));
    let pace = Pace { records: 40_000, per_second: 4_000, seconds_left: Some(15) };
    assert_eq!(lines.due(40_000), Some(pace));
    assert_eq!(lines.due(50_000), None);
}

#[test]
fn without_a_total_or_a_rate_no_time_left_is_made_up() {
    let clock = Arc::new(ManualClock::at(START_MS));
    let mut endless = Lines::start("reading", None, Arc::clone(&clock) as _);
    let mut stuck = Lines::start("reading", Some(10), Arc::clone(&clock) as _);
    clock.advance(Duration::from_secs(10));
    assert_eq!(endless.due(100), Some(Pace { records: 100, per_second: 10, seconds_left: None }));
    assert_eq!(stuck.due(0), Some(Pace { records: 0, per_second: 0, seconds_left: None }));
}

#[test]
fn the_bars_templates_can_be_read() {
    for template in TEMPLATES {
        assert!(indicatif::ProgressStyle::with_template(template).is_ok());
    }
}

/// The total is fixed once: what is produced later is not part of the work.
#[test]
fn the_total_is_what_is_done_and_the_first_lag_known() {
    let (reporter, clock) = reporter();
    let position = |latest| PartitionPosition {
        topic_partition: TopicPartition::new("t", 0),
        committed: Some(Offset::ZERO),
        latest: Some(Offset::clamped(latest)),
        earliest: None,
    };
    let mut progress = Progress { face: Face::Lines(Lines::start("t", None, Arc::clone(&clock) as _)), done: 0 };
    let total = |progress: &Progress| match &progress.face {
        Face::Lines(lines) => lines.total,
        Face::Bar { .. } => None,
    };
    progress.follow(&reporter);
    assert_eq!(total(&progress), None);
    reporter.positions(vec![position(10)]);
    progress.follow(&reporter);
    let counts = BatchCounts { records: 3, gaps: 1, ..BatchCounts::default() };
    reporter.batch_completed(&completed(batch(1, vec![range("t", 0, 0, 4)]), counts));
    reporter.positions(vec![position(99)]);
    progress.follow(&reporter);
    assert_eq!((total(&progress), progress.done), (Some(10), 4));
}
