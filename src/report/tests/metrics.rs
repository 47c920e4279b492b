//! The scrape against its committed snapshot, and the page of all metrics.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use super::{START_MS, batch, completed, range, reporter};
use crate::{
    clock::ManualClock,
    error::Error,
    report::{
        BatchCounts, BatchOutcome, CommitSettled, METRICS, MetricKind, MirrorKind, PARTITION_SERIES_MAX,
        PartitionPosition, Reporter, Status, metrics_reference, mirror,
    },
    types::{BatchTime, DeadLetterStage, LostRangeReason, Offset, TopicPartition},
};

pub(super) fn position(topic: &str, partition: i32, committed: i64, latest: i64) -> PartitionPosition {
    PartitionPosition {
        topic_partition: TopicPartition::new(topic, partition),
        committed: Offset::new(committed),
        latest: Offset::new(latest),
        earliest: Offset::new(0),
    }
}

/// Compares with a committed file; with `DIRECTSTREAM_BLESS=1` the file is written anew.
pub(super) fn compare_with_file(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("DIRECTSTREAM_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{} is out of date: run the tests with DIRECTSTREAM_BLESS=1\n{text}", path.display());
}

/// A reporter that was told everything once.
fn told_everything() -> Reporter {
    let (reporter, clock) = reporter();
    reporter.resumed(BatchTime::from_ms(START_MS - 5_000));
    reporter.owned(3, 6);
    reporter.store(true, 1, 2);
    reporter.kafka_silent(Duration::from_millis(1_500));
    reporter.status(Status::Running);
    reporter.streaming_started(Duration::from_millis(500));
    reporter.plan_completed(Duration::from_millis(4));
    for earliest in 0..3 {
        let mut slow = position("orders", 1, 5, 25 + earliest);
        slow.earliest = Offset::new(earliest);
        reporter.positions(vec![slow, position("orders", 0, 0, 10), position("a\"b\\c\nd", 0, -1, 7)]);
        clock.advance(Duration::from_secs(1));
    }
    let done = batch(7, vec![range("orders", 0, 0, 10), range("orders", 1, 5, 11)]);
    reporter.batch_submitted(&done);
    reporter.batch_started(&done);
    let counts = BatchCounts {
        records: 14,
        gaps: 2,
        bytes: 1_400,
        rows: 12,
        dead_letters: vec![(DeadLetterStage::Convert, 2)],
        late_records: 3,
        lost_ranges: vec![(LostRangeReason::Retention, Some(100)), (LostRangeReason::TopicRecreated, None)],
        ..BatchCounts::default()
    };
    let mut ended = completed(done, counts);
    ended.commit_time = Some(Duration::from_millis(12));
    reporter.batch_completed(&ended);
    reporter.commit_settled(CommitSettled::RolledBack);
    reporter.memory(1 << 20, 1 << 29);
    reporter.read_queued(4_096);
    reporter.rate_limit(Some(1_500.5));
    reporter.mirrors(vec![mirror::tests::told(MirrorKind::ConsumerGroup, Arc::new(ManualClock::at(5_000)))]);
    reporter.error(&Error::unavailable("broker away"));
    reporter
}

/// The scrape without what differs from build to build.
fn scrape(reporter: &Reporter) -> String {
    reporter.render_metrics().replace(&crate::report::librdkafka_version(), "X").replace(crate::report::VERSION, "X")
}

#[test]
fn a_scrape_is_what_it_was() {
    compare_with_file("tests/snapshots/metrics.txt", &scrape(&told_everything()));
}

#[test]
fn the_reference_page_is_up_to_date() {
    compare_with_file("docs/metrics.md", &metrics_reference());
}

/// The last batch before was 5 s before the start, when at most 5 was the latest offset; 25 was at the start. So 11 is of
/// 1.5 s after that batch, and 3 s have passed. Retention went by one in the 2 s since its first
/// move, and has nine to go.
#[test]
fn lag_is_told_in_seconds_and_so_is_the_time_that_retention_leaves() {
    let text = told_everything().render_metrics();
    for line in [
        "directstream_partition_lag_seconds{topic=\"orders\",partition=\"0\"} 0\n",
        "directstream_partition_lag_seconds{topic=\"orders\",partition=\"1\"} 6.5\n",
        "directstream_topic_lag_seconds{topic=\"orders\"} 6.5\n",
        "directstream_lag_seconds 6.5\n",
        "directstream_partition_time_to_retention_loss_seconds{topic=\"orders\",partition=\"1\"} 18\n",
        "directstream_topic_time_to_retention_loss_seconds{topic=\"orders\"} 18\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    // Nothing waits in partition 0, and of the other topic nothing is committed.
    assert!(!text.contains("time_to_retention_loss_seconds{topic=\"orders\",partition=\"0\"}"));
    assert!(!text.contains("lag_seconds{topic=\"a"));
}

#[test]
fn an_owner_that_was_fenced_owns_no_more() {
    let reporter = told_everything();
    assert!(reporter.render_metrics().contains("directstream_owner 1\n"));
    reporter.stopped(Some(&Error::fenced("another process owns it")));
    let text = reporter.render_metrics();
    assert!(text.contains("directstream_owner 0\n") && text.contains("directstream_fenced_total 1\n"), "{text}");
}

/// Families of a scrape: name to kind, and the series of each.
pub(super) fn families(text: &str) -> Vec<(String, String, Vec<String>)> {
    let mut families: Vec<(String, String, Vec<String>)> = Vec::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            families.push((name.to_owned(), kind.to_owned(), Vec::new()));
        } else if !line.starts_with('#') {
            families.last_mut().unwrap().2.push(line.to_owned());
        }
    }
    families
}

#[test]
fn every_metric_of_the_table_is_scraped_and_no_other() {
    let families = families(&told_everything().render_metrics());
    let scraped: BTreeSet<(&str, &str)> = families.iter().map(|(name, kind, _)| (&**name, &**kind)).collect();
    let kinds: Vec<String> = METRICS.iter().map(|metric| metric.kind.to_string()).collect();
    let table: BTreeSet<(&str, &str)> =
        METRICS.iter().zip(&kinds).map(|(metric, kind)| (metric.name, &**kind)).collect();
    assert_eq!(scraped, table);
    assert_eq!(scraped.len(), families.len(), "a family comes twice");
}

#[test]
fn names_and_labels_follow_the_conventions() {
    for metric in METRICS {
        assert!(metric.name.starts_with("directstream_"), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == MetricKind::Counter, "{}", metric.name);
        assert!(metric.help.ends_with('.') && !metric.unit.is_empty(), "{}", metric.name);
        if metric.name.contains("partition_") {
            assert_eq!(metric.labels, ["topic", "partition"]);
        }
    }
}

#[test]
fn each_series_has_just_the_labels_of_the_table() {
    for (name, kind, series) in families(&told_everything().render_metrics()) {
        let metric = METRICS.iter().find(|metric| metric.name == name).unwrap();
        if kind == "histogram" {
            continue;
        }
        assert!(!series.is_empty(), "{name}");
        for line in series {
            let labels: Vec<&str> = match line.split_once('{') {
                // No label of ours holds `="`, and those of the tests neither.
                Some((_, rest)) => {
                    rest.match_indices("=\"").map(|(at, _)| rest[..at].rsplit([',', '{']).next().unwrap()).collect()
                }
                None => Vec::new(),
            };
            assert_eq!(labels, metric.labels, "{line}");
        }
    }
}

#[test]
fn a_commit_moves_the_offset_and_the_lag() {
    let text = told_everything().render_metrics();
    for line in [
        "directstream_partition_committed_offset{topic=\"orders\",partition=\"1\"} 11\n",
        "directstream_partition_latest_offset{topic=\"orders\",partition=\"1\"} 27\n",
        "directstream_partition_lag_records{topic=\"orders\",partition=\"1\"} 16\n",
        "directstream_partition_lag_records{topic=\"orders\",partition=\"0\"} 0\n",
        "directstream_topic_lag_records{topic=\"orders\"} 16\n",
        "directstream_lag_records 16\n",
        "directstream_partition_latest_offset{topic=\"a\\\"b\\\\c\\nd\",partition=\"0\"} 7\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    // Nothing is committed there yet, so there is neither an offset nor a lag.
    assert!(!text.contains("directstream_partition_committed_offset{topic=\"a"));
    assert!(!text.contains("directstream_partition_lag_records{topic=\"a"));
}

#[test]
fn series_of_a_vanished_partition_vanish() {
    let (reporter, _) = reporter();
    reporter.positions(vec![position("t", 0, 0, 1), position("t", 1, 0, 1)]);
    assert!(reporter.render_metrics().contains("partition=\"1\""));
    reporter.positions(vec![position("t", 0, 0, 1)]);
    assert!(!reporter.render_metrics().contains("partition=\"1\""));
}

#[test]
fn too_many_partitions_are_shown_per_topic_only() {
    let (reporter, _) = reporter();
    let most = i32::try_from(PARTITION_SERIES_MAX).unwrap();
    reporter.positions((0..most).map(|partition| position("t", partition, 0, 2)).collect());
    assert!(reporter.render_metrics().contains("directstream_partition_lag_records{"));
    reporter.positions((0..=most).map(|partition| position("t", partition, 0, 2)).collect());
    let text = reporter.render_metrics();
    assert!(!text.contains("directstream_partition_lag_records{"));
    assert!(text.contains("directstream_topic_lag_records{topic=\"t\"} 4002\n"));
    reporter.positions((0..=most).map(|topic| position(&format!("t{topic}"), 0, 0, 2)).collect());
    let text = reporter.render_metrics();
    assert!(!text.contains("topic=\""));
    assert!(text.contains("directstream_lag_records 4002\n") && text.contains("directstream_partitions 2001\n"));
    assert!(!text.contains("lag_seconds{") && !text.contains("\ndirectstream_lag_seconds "));
}

#[test]
fn only_a_committed_batch_counts_records() {
    let (reporter, _) = reporter();
    for outcome in [BatchOutcome::Failed, BatchOutcome::Dropped] {
        let counts = BatchCounts { records: 5, ..BatchCounts::default() };
        let mut ended = completed(batch(1, vec![range("t", 0, 0, 5)]), counts);
        ended.outcome = outcome;
        reporter.batch_completed(&ended);
    }
    let text = reporter.render_metrics();
    assert!(text.contains("directstream_records_total 0\n"));
    assert!(text.contains("directstream_batches_total{status=\"failed\"} 1\n"));
    assert!(text.contains("directstream_batches_total{status=\"dropped\"} 1\n"));
    assert!(text.contains("directstream_batches_total{status=\"completed\"} 0\n"));
}

/// UI-08: waiting and running batches.
#[test]
fn batches_in_hand_are_counted() {
    let (reporter, _) = reporter();
    let in_hand = |waiting: u64, running: u64| {
        let text = reporter.render_metrics();
        assert!(text.contains(&format!("directstream_waiting_batches {waiting}\n")), "{text}");
        assert!(text.contains(&format!("directstream_running_batches {running}\n")), "{text}");
    };
    let done = batch(1, Vec::new());
    reporter.batch_submitted(&done);
    in_hand(1, 0);
    reporter.batch_started(&done);
    in_hand(0, 1);
    reporter.batch_completed(&completed(done, BatchCounts::default()));
    in_hand(0, 0);
}

#[test]
fn reporters_of_one_process_do_not_mix() {
    let (one, _) = reporter();
    let (other, _) = reporter();
    one.error(&Error::internal("x"));
    assert!(one.render_metrics().contains("directstream_errors_total{kind=\"internal\"} 1\n"));
    assert!(other.render_metrics().contains("directstream_errors_total{kind=\"internal\"} 0\n"));
}
