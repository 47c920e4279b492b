//! Ranges under rates and memory, case by case; then over random ones.

use proptest::prelude::*;

use super::*;

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn at(offset: i64) -> Offset {
    Offset::new(offset).unwrap()
}

/// Positions and latest offsets of partitions 0, 1, 2, ... of one topic.
fn partitions(list: &[(i64, i64)]) -> (Vec<Position>, BTreeMap<TopicPartition, Offset>) {
    let numbered = || list.iter().zip(0..);
    let position = |from| Position {
        topic_partition: tp(0),
        topic_id: None,
        expected: Some(at(from)),
        expected_topic_id: None,
        from: at(from),
        latest_epoch: Some(3),
    };
    let positions = numbered().map(|((from, _), p)| Position { topic_partition: tp(p), ..position(*from) }).collect();
    (positions, numbered().map(|((_, latest), p)| (tp(p), at(*latest))).collect())
}

/// What limits a batch of a test: one second, no rates, records of one byte.
#[derive(Debug)]
struct Setting {
    rates: Rates,
    memory_bytes: Option<u64>,
    record_size: RecordSize,
    stop_at: Option<BTreeMap<TopicPartition, Offset>>,
    ms: u64,
}

impl Default for Setting {
    fn default() -> Self {
        let (rates, record_size) = (Rates::default(), RecordSize::new());
        Self { rates, memory_bytes: None, record_size, stop_at: None, ms: 1000 }
    }
}

impl Setting {
    fn plan(&self, list: &[(i64, i64)]) -> Plan {
        let (positions, latest) = partitions(list);
        plan_batch(&positions, &latest, &self.limits())
    }

    fn limits(&self) -> Limits<'_> {
        Limits {
            batch_interval: Duration::from_millis(self.ms),
            rates: &self.rates,
            memory_bytes: self.memory_bytes,
            record_size: &self.record_size,
            stop_at: self.stop_at.as_ref(),
        }
    }
}

fn spans(plan: &Plan) -> Vec<(i64, i64)> {
    plan.ranges.iter().map(|r| (r.range.from_offset.get(), r.range.until_offset.get())).collect()
}

fn memory(records: u64) -> Setting {
    // 16 KiB is what a record is taken for before one was seen.
    Setting { memory_bytes: Some(records * super::super::RECORD_BYTES_ASSUMED), ..Setting::default() }
}

#[test]
fn without_limits_a_batch_ends_at_the_latest_offsets() {
    let plan = Setting::default().plan(&[(0, 10), (5, 5), (7, 1_000_000)]);
    assert_eq!(spans(&plan), [(0, 10), (5, 5), (7, 1_000_000)]);
    assert_eq!(plan.count(), 10 + 999_993);
    assert!(plan.moves() && !plan.is_empty() && !plan.is_cut_by_memory());
}

#[test]
fn dk_21_an_empty_range_stays_a_partition_of_the_batch() {
    let plan = Setting::default().plan(&[(5, 5), (0, 0)]);
    assert_eq!(plan.ranges.len(), 2);
    assert!(plan.is_empty() && !plan.moves());
    assert!(plan.ranges[0].is_empty());
}

#[test]
fn a_new_partition_moves_even_when_it_is_empty() {
    let (mut positions, latest) = partitions(&[(0, 0)]);
    positions[0].expected = None;
    let plan = plan_batch(&positions, &latest, &Setting::default().limits());
    assert!(plan.moves() && plan.is_empty());
    // And so does a partition that went over a lost range.
    positions[0].expected = Some(at(7));
    assert!(plan_batch(&positions, &latest, &Setting::default().limits()).moves());
    // And one whose topic was created again, even where the offsets happen to be the same.
    positions[0].expected = Some(at(0));
    positions[0].topic_id = Some(TopicId::new("b"));
    assert!(!plan_batch(&positions, &latest, &Setting::default().limits()).moves());
    positions[0].expected_topic_id = Some(TopicId::new("a"));
    assert!(plan_batch(&positions, &latest, &Setting::default().limits()).moves());
}

#[test]
fn ranges_come_in_the_order_of_topic_and_partition() {
    let names = [("b", 0), ("a", 10), ("a", 2), ("B", 1)];
    let positions: Vec<_> = names
        .iter()
        .map(|(topic, partition)| Position {
            topic_partition: TopicPartition::new(*topic, *partition),
            topic_id: Some(TopicId::new("id")),
            expected: None,
            expected_topic_id: None,
            from: Offset::ZERO,
            latest_epoch: None,
        })
        .collect();
    let latest = positions.iter().map(|position| (position.topic_partition.clone(), at(1))).collect();
    let plan = plan_batch(&positions, &latest, &Setting::default().limits());
    let order: Vec<_> = plan.offset_ranges().iter().map(|range| range.topic_partition.to_string()).collect();
    assert_eq!(order, ["B-1", "a-2", "a-10", "b-0"]);
    assert_eq!(plan.ranges[0].topic_id, Some(TopicId::new("id")));
}

#[test]
fn a_partition_without_an_answer_is_left_out() {
    let (positions, mut latest) = partitions(&[(0, 10), (0, 10)]);
    latest.remove(&tp(0));
    let plan = plan_batch(&positions, &latest, &Setting::default().limits());
    assert_eq!(spans(&plan), [(0, 10)]);
    assert_eq!(plan.problems, [Problem::of_partition(&tp(0), ProblemKind::NoAnswer)]);
}

#[test]
fn dk_16_a_log_that_went_back_is_a_problem_and_never_a_range() {
    let plan = Setting::default().plan(&[(100, 50)]);
    assert!(plan.ranges.is_empty());
    let kind = ProblemKind::Truncated { committed: at(100), latest: at(50) };
    assert_eq!(plan.problems, [Problem::of_partition(&tp(0), kind)]);
}

#[test]
fn one_partition_given_twice_has_one_range() {
    let (mut positions, latest) = partitions(&[(0, 10)]);
    positions.push(Position { from: at(5), ..positions[0].clone() });
    assert_eq!(spans(&plan_batch(&positions, &latest, &Setting::default().limits())), [(0, 10)]);
}

#[test]
fn dk_49_dk_51_a_rate_limits_the_span_of_offsets() {
    let max_rate = |rate: f64| Rates { max_rate_per_partition: Some(rate), ..Rates::default() };
    let setting = Setting { rates: max_rate(100.0), ms: 100, ..Setting::default() };
    let plan = setting.plan(&[(0, 50), (20, 25), (0, 0)]);
    assert_eq!(spans(&plan), [(0, 10), (20, 25), (0, 0)]);
    let cuts: Vec<_> = plan.ranges.iter().map(|range| range.cut).collect();
    assert_eq!(cuts, [Some(Cut::Rate), None, None]);
    // A batch that a rate cut short waits for the next tick.
    assert!(!plan.is_cut_by_memory());
}

#[test]
fn dk_55_dk_56_a_total_rate_gives_the_same_batches_one_after_the_other() {
    let mut from = 0;
    for (rate, expected) in [(100.0, 50), (50.0, 25), (20.0, 10)] {
        let rates = Rates { max_rate_per_partition: Some(100.0), total_rate: Some(rate), ..Rates::default() };
        let setting = Setting { rates, ms: 500, ..Setting::default() };
        let plan = setting.plan(&[(from, 5000)]);
        assert_eq!(plan.count(), expected);
        from = plan.ranges[0].range.until_offset.get();
    }
}

#[test]
fn dk_52_without_lag_nothing_is_limited_and_nothing_read() {
    let rates = Rates { total_rate: Some(100.0), ..Rates::default() };
    assert!(Setting { rates, ..Setting::default() }.plan(&[(0, 0), (7, 7)]).is_empty());
}

#[test]
fn dk_63_ranges_that_are_read_again_are_not_planned_again() {
    // A batch that is read again takes its ranges from its ledger row; a plan never looks at a range, only at positions.
    let setting = Setting { rates: Rates { max_rate_per_partition: Some(1.0), ..Rates::default() }, ..memory(1) };
    let (positions, latest) = partitions(&[(0, 10)]);
    let one = plan_batch(&positions, &latest, &setting.limits());
    assert_eq!(one, plan_batch(&positions, &latest, &setting.limits()));
}

#[test]
fn memory_limits_the_first_batch_of_a_backlog() {
    let plan = memory(1000).plan(&[(0, 5_000_000)]);
    assert_eq!(plan.count(), 1000);
    assert!(plan.is_cut_by_memory());
    assert!(!memory(1000).plan(&[(0, 1000)]).is_cut_by_memory());
}

#[test]
fn memory_is_shared_by_lag_and_cold_partitions_are_served_in_every_batch() {
    // One partition has nearly all of it; the others have a few records each.
    let plan = memory(1000).plan(&[(0, 1_000_000), (0, 10), (0, 1), (5, 5)]);
    let counts: Vec<_> = plan.ranges.iter().map(|range| range.range.count()).collect();
    assert_eq!(counts[1..], [10, 1, 0]);
    assert!(counts[0] > 850 && counts[0] <= 1000, "{counts:?}");
    // The same lag, the same share.
    let plan = memory(1000).plan(&[(0, 5000), (0, 5000), (0, 10_000)]);
    let counts: Vec<_> = plan.ranges.iter().map(|range| range.range.count()).collect();
    assert_eq!(counts, [266, 266, 466]);
}

#[test]
fn every_partition_with_records_gives_one_however_small_the_budget() {
    let plan = Setting { memory_bytes: Some(1), ..Setting::default() }.plan(&[(0, 50), (3, 9), (2, 2)]);
    assert_eq!(spans(&plan), [(0, 1), (3, 4), (2, 2)]);
}

#[test]
fn what_was_seen_of_the_records_decides_how_many_fit() {
    let mut setting = memory(100);
    setting.record_size.observe(&tp(0), 10, 10 * (16_384 / 4 - 256));
    assert_eq!(setting.plan(&[(0, 1_000_000)]).count(), 400);
}

#[test]
fn a_run_until_the_latest_offsets_stops_there() {
    let stop_at = [(tp(0), at(10)), (tp(1), at(5))].into();
    let setting = Setting { stop_at: Some(stop_at), ..Setting::default() };
    // Partition 2 was found later: the next run reads it.
    let plan = setting.plan(&[(0, 50), (5, 50), (0, 50)]);
    assert_eq!(spans(&plan), [(0, 10), (5, 5)]);
    assert_eq!(plan.ranges[0].cut, Some(Cut::Stop));
    let stop_at = setting.stop_at.unwrap();
    assert!(!reached([(&tp(0), at(10))], &stop_at));
    assert!(!reached([(&tp(0), at(9)), (&tp(1), at(5))], &stop_at));
    assert!(reached([(&tp(0), at(10)), (&tp(1), at(6)), (&tp(2), at(0))], &stop_at));
    assert!(reached([], &BTreeMap::new()));
}

fn any_setting() -> impl Strategy<Value = Setting> {
    let rates = (proptest::option::of(0.0..1e6_f64), 1_u64..100, proptest::option::of(0.0..1e7_f64));
    let memory = proptest::option::of(0_u64..100_000_000);
    let stop = proptest::option::of(proptest::collection::vec(0_i64..2_000_000, 0..6));
    (rates, memory, stop, 1_u64..10_000, 1_u64..100_000).prop_map(|(rates, memory_bytes, stop, ms, bytes)| {
        let (max_rate_per_partition, min_rate_per_partition, total_rate) = rates;
        let mut record_size = RecordSize::new();
        record_size.observe(&tp(0), 1, bytes);
        let rates = Rates { max_rate_per_partition, min_rate_per_partition, total_rate, ..Rates::default() };
        let stop_at = stop.map(|list| list.into_iter().zip(0..).map(|(offset, p)| (tp(p), at(offset))).collect());
        Setting { rates, memory_bytes, record_size, stop_at, ms }
    })
}

proptest! {
    #[test]
    fn ranges_stay_between_position_and_latest_and_within_the_limits(
        list in proptest::collection::vec((0_i64..1_000_000, 0_i64..2_000_000), 0..6),
        setting in any_setting(),
    ) {
        let (positions, latest) = partitions(&list);
        let plan = plan_batch(&positions, &latest, &setting.limits());
        prop_assert!(plan.ranges.windows(2).all(|two| two[0].range.topic_partition < two[1].range.topic_partition));
        prop_assert_eq!(&plan, &plan_batch(&positions, &latest, &setting.limits()));
        let mut bytes = 0;
        for planned in &plan.ranges {
            let topic_partition = &planned.range.topic_partition;
            let position = positions.iter().find(|position| position.topic_partition == *topic_partition).unwrap();
            let end = latest[topic_partition];
            prop_assert_eq!(planned.range.from_offset, position.from);
            prop_assert!(planned.range.until_offset >= position.from && planned.range.until_offset <= end);
            prop_assert_eq!(planned.cut.is_some(), planned.range.until_offset < end);
            if let Some(rate) = setting.rates.max_rate_per_partition.filter(|rate| *rate > 0.0) {
                let most = whole(rate * to_f64(setting.ms) / 1000.0).max(setting.rates.min_rate_per_partition);
                prop_assert!(planned.range.count() <= most);
            }
            let stop = setting.stop_at.as_ref().map(|stop_at| stop_at[topic_partition]);
            prop_assert!(stop.is_none_or(|stop| planned.range.until_offset <= stop.max(position.from)));
            // Whoever has something to read gets some of it.
            let wanted = position.from.offsets_until(stop.map_or(end, |stop| stop.min(end)));
            prop_assert_eq!(planned.is_empty(), wanted == 0);
            if planned.range.count() > 1 {
                bytes += planned.range.count() * setting.record_size.estimate(topic_partition);
            }
        }
        prop_assert!(setting.memory_bytes.is_none_or(|budget| bytes <= budget), "{bytes}");
        let planned = plan.ranges.len() + plan.problems.len();
        prop_assert!(planned == positions.len() || setting.stop_at.is_some());
    }

    #[test]
    fn batch_after_batch_reads_everything_once(
        ends in proptest::collection::vec(0_i64..500, 1..4),
        setting in any_setting(),
    ) {
        let setting = Setting { stop_at: None, ..setting };
        let list: Vec<_> = ends.iter().map(|end| (0, *end)).collect();
        let (mut positions, latest) = partitions(&list);
        for _ in 0..=ends.iter().sum::<i64>() {
            let plan = plan_batch(&positions, &latest, &setting.limits());
            if plan.is_empty() {
                break;
            }
            for (position, planned) in positions.iter_mut().zip(&plan.ranges) {
                prop_assert_eq!(planned.range.from_offset, position.from);
                position.from = planned.range.until_offset;
            }
        }
        for position in &positions {
            prop_assert_eq!(position.from, latest[&position.topic_partition]);
        }
    }

    #[test]
    fn no_number_overflows(
        from in 0_i64..=i64::MAX,
        end in 0_i64..=i64::MAX,
        rate: f64,
        memory_bytes: u64,
        bytes: u64,
        ms: u64,
    ) {
        let mut record_size = RecordSize::new();
        record_size.observe(&tp(0), 1, bytes);
        let rates = Rates { max_rate_per_partition: Some(rate), total_rate: Some(rate), ..Rates::default() };
        let setting = Setting { rates, memory_bytes: Some(memory_bytes), record_size, stop_at: None, ms };
        let plan = setting.plan(&[(from, end), (0, end)]);
        prop_assert!(plan.ranges.iter().all(|planned| planned.range.until_offset <= at(end)));
    }
}
