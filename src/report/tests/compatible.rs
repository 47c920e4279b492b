//! The names of other exporters.

use std::{collections::BTreeSet, time::Duration};

use super::{
    metrics::{compare_with_file, families, position},
    reporter,
};
use crate::{
    config::CompatibleNames,
    report::{PARTITION_SERIES_MAX, Reporter, compatible::compatible_metrics},
};

/// A job of two topics, and the names of `names` told.
fn told(names: &[CompatibleNames]) -> Reporter {
    let (reporter, clock) = reporter();
    reporter.compatible_names(names.iter().copied(), "shop");
    reporter.cluster("5L6g3nShT");
    reporter.owned(1, 0);
    reporter.positions(vec![position("orders", 0, 10, 10), position("orders", 1, 10, 10), position("a\"b", 0, -1, 7)]);
    clock.advance(Duration::from_secs(1));
    reporter.positions(vec![position("orders", 0, 10, 30), position("orders", 1, 10, 10), position("a\"b", 0, -1, 7)]);
    clock.advance(Duration::from_secs(2));
    reporter
}

/// What is told beside the program's own names, without the name of this machine.
fn foreign(reporter: &Reporter) -> String {
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let text = reporter.render_metrics();
    let lines = text.lines().filter(|line| line.contains(" kafka_") || line.starts_with("kafka_"));
    lines.map(|line| line.replace(&format!("member_host=\"{host}\""), "member_host=\"H\"") + "\n").collect()
}

#[test]
fn other_exporters_names_are_told_where_the_job_asks_for_them() {
    assert_eq!(foreign(&told(&[])), "");
    compare_with_file("tests/snapshots/compatible.txt", &foreign(&told(&CompatibleNames::ALL)));
}

#[test]
fn each_exporter_has_its_own_names() {
    for names in CompatibleNames::ALL {
        let text = foreign(&told(&[names]));
        let found: BTreeSet<String> = families(&text).into_iter().map(|(name, _, _)| name).collect();
        let own = compatible_metrics().filter(|(of, _)| *of == names).map(|(_, metric)| metric.name.to_owned());
        assert_eq!(found, own.collect(), "{names:?}");
    }
}

/// With the labels that dashboards for them ask for.
#[test]
fn the_numbers_are_those_of_our_own_names() {
    let text = foreign(&told(&CompatibleNames::ALL));
    for line in [
        "kafka_consumergroup_lag{consumergroup=\"shop\",topic=\"orders\",partition=\"0\"} 20\n",
        "kafka_consumergroup_current_offset_sum{consumergroup=\"shop\",topic=\"orders\"} 20\n",
        "kafka_consumergroup_members{consumergroup=\"shop\"} 1\n",
        "kafka_consumergroup_group_max_lag_seconds{cluster_name=\"5L6g3nShT\",group=\"shop\"} 3\n",
        "kafka_consumergroup_group_topic_sum_lag{cluster_name=\"5L6g3nShT\",group=\"shop\",topic=\"orders\"} 20\n",
        "kafka_topic_partition_current_offset{topic=\"a\\\"b\",partition=\"0\"} 7\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert!(!text.contains("kafka_consumergroup_current_offset{consumergroup=\"shop\",topic=\"a"), "{text}");
}

#[test]
fn series_of_too_many_partitions_are_left_out_of_them_too() {
    let (reporter, _) = reporter();
    reporter.compatible_names(CompatibleNames::ALL, "shop");
    let too_many = 0..=i32::try_from(PARTITION_SERIES_MAX).unwrap();
    reporter.positions(too_many.map(|partition| position("t", partition, 0, 2)).collect());
    let text = foreign(&reporter);
    assert!(!text.contains("partition=\""));
    assert!(text.contains("kafka_consumergroup_lag_sum{consumergroup=\"shop\",topic=\"t\"} 4002\n"));
}
