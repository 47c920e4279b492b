//! State against Spark's own examples. The ids are those of the behaviour list in `docs/conformance.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;

use super::{
    BatchScope, DStream, DirectKafkaInputDStream, Graph, LocalRunner, MapWithStateDStream, State, StateSpec,
    tests::{Batch, batch},
};
use crate::types::{BatchTime, SegmentKind, StateSegment};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn graph() -> Graph {
    Graph::with_interval(SECOND)
}

/// The scope of batch number `seq`, `seq` seconds after the zero time, its records in two partitions.
fn scope(seq: u64, values: &[&str]) -> BatchScope {
    let middle = values.len() / 2;
    let Batch { task, inputs } =
        batch(seq, i64::try_from(seq).unwrap() * 1000, &[&values[..middle], &values[middle..]]);
    BatchScope::on_grid(task, Arc::new(LocalRunner::new(2)), inputs, 0)
}

/// Runs a batch as the driver does, before outputs run: its scope, and what is to be stored.
fn run(graph: &Graph, seq: u64, values: &[&str]) -> (BatchScope, Vec<StateSegment>) {
    let scope = scope(seq, values);
    graph.histories().iter().for_each(|history| history.remember(&scope).unwrap());
    let segments = graph.states().iter().flat_map(|state| state.advance(&scope).unwrap()).collect();
    (scope, segments)
}

pub(super) fn items<T: Ord + Send + 'static>(stream: &DStream<T>, scope: &BatchScope) -> Vec<T> {
    let mut items = stream.rdd(scope).unwrap().collect().unwrap();
    items.sort();
    items
}

/// What comes out of some batches, one after the other.
fn outputs<T: Ord + Send + 'static>(stream: &DStream<T>, batches: &[&[&str]]) -> Vec<Vec<T>> {
    (1..).zip(batches).map(|(seq, values)| items(stream, &run(stream.graph(), seq, values).0)).collect()
}

/// `a 3` is the pair (a, 3), `a` alone (a, 1).
fn pairs(graph: &Graph) -> DStream<(String, i64)> {
    DirectKafkaInputDStream::new(graph).map(|record| {
        let text = record.text().unwrap_or_default();
        let (key, value) = text.split_once(' ').unwrap_or((text, "1"));
        (key.to_owned(), value.parse().unwrap())
    })
}

fn summed(state: Option<i64>, values: &[i64]) -> i64 {
    state.unwrap_or(0) + values.iter().sum::<i64>()
}

fn running_count(graph: &Graph, initial: &[(&str, i64)]) -> DStream<(String, i64)> {
    pairs(graph).update_state_by_key_with_initial(|_, ones, count| Some(summed(count, &ones)), named(initial))
}

fn named<V: Copy>(pairs: &[(&str, V)]) -> Vec<(String, V)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

const BIG: &[&[&str]] = &[&["a"], &["a", "b"], &["a", "b", "c"], &["a", "b"], &["a"], &[]];
const BIG_AFTER_NOTHING: &[&[&str]] = &[&[], &["a"], &["a", "b"], &["a", "b", "c"], &["a", "b"], &["a"], &[]];

#[test]
fn st_01_the_full_state_comes_with_every_batch() {
    let expected: [&[(&str, i64)]; 6] = [
        &[("a", 1)],
        &[("a", 2), ("b", 1)],
        &[("a", 3), ("b", 2), ("c", 1)],
        &[("a", 4), ("b", 3), ("c", 1)],
        &[("a", 5), ("b", 3), ("c", 1)],
        &[("a", 5), ("b", 3), ("c", 1)],
    ];
    assert_eq!(outputs(&running_count(&graph(), &[]), BIG), expected.map(named));
}

#[test]
fn st_02_and_08_initial_keys_are_there_in_the_first_batch() {
    let expected: [&[(&str, i64)]; 6] = [
        &[("a", 2), ("c", 2)],
        &[("a", 3), ("b", 1), ("c", 2)],
        &[("a", 4), ("b", 2), ("c", 3)],
        &[("a", 5), ("b", 3), ("c", 3)],
        &[("a", 6), ("b", 3), ("c", 3)],
        &[("a", 6), ("b", 3), ("c", 3)],
    ];
    assert_eq!(outputs(&running_count(&graph(), &[("a", 1), ("c", 2)]), BIG), expected.map(named));
}

#[test]
fn st_04_to_06_every_known_key_is_asked_and_nothing_removes_it() {
    // (value, batches since it came): a key is kept for two batches without a value.
    let graph = graph();
    let stream =
        pairs(&graph).update_state_by_key(|_, values, state: Option<(i64, i64)>| match (values.last(), state) {
            (Some(last), state) => Some((last + state.map_or(0, |(value, _)| value), 0)),
            (None, Some((value, idle))) if idle < 1 => Some((value, idle + 1)),
            (None, _) => None,
        });
    let batches: &[&[&str]] = &[&["a 1"], &["b 2"], &["b 3"], &["a 7"], &[], &[], &[]];
    let expected: [&[(&str, (i64, i64))]; 7] = [
        &[("a", (1, 0))],
        &[("a", (1, 1)), ("b", (2, 0))],
        &[("b", (5, 0))],
        // The state before is forgotten.
        &[("a", (7, 0)), ("b", (5, 1))],
        &[("a", (7, 1))],
        &[],
        &[],
    ];
    assert_eq!(outputs(&stream, batches), expected.map(named));
    assert_eq!([5, 7].map(|last| graph.states()[0].is_due(last, 8000)), [true, false]);
}

#[test]
fn st_10_the_handle_of_a_state() {
    let graph = graph();
    let stream = pairs(&graph).map_with_state(StateSpec::function(|_, value, state: &mut State<i64>| {
        let before = (state.exists(), state.get().copied());
        match value.unwrap() {
            0 => state.remove(),
            value => state.update(value),
        }
        (before, (state.exists(), state.get().copied()))
    }));
    let none = (false, None);
    let is = |value| (true, Some(value));
    let batches: &[&[&str]] = &[&["a 1"], &["a 2"], &["a 0"], &["a 3", "a 0", "a 4"]];
    let expected = [vec![(none, is(1))], vec![(is(1), is(2))], vec![(is(2), none)]];
    let of = outputs(&stream, batches);
    assert_eq!(of[..3], expected);
    assert_eq!(of[3], [(none, is(3)), (none, is(4)), (is(3), none)]);
}

#[test]
fn a_state_is_not_updated_once_it_is_removed() {
    let failed = |change: fn(&mut State<i64>)| {
        let graph = graph();
        let _ = pairs(&graph).map_with_state(StateSpec::function(move |_, _, state: &mut State<i64>| change(state)));
        graph.states()[0].advance(&scope(1, &["a"])).unwrap_err().to_string()
    };
    let twice = failed(|state| {
        state.remove();
        state.remove();
    });
    assert!(twice.contains("removed twice"), "{twice}");
    let late = failed(|state| {
        state.remove();
        state.update(1);
    });
    assert!(late.contains("cannot be updated after it was removed"), "{late}");
}

fn counted(graph: &Graph) -> MapWithStateDStream<String, i64, i64> {
    let spec = StateSpec::function(|_: &String, value: Option<i64>, state: &mut State<i64>| {
        state.update(state.get().copied().unwrap_or(0) + value.unwrap_or(0));
        state.get().copied().unwrap()
    });
    pairs(graph).map_with_state(spec)
}

#[test]
fn st_12_mapped_are_touched_keys_and_the_snapshot_is_full() {
    let mapped = outputs(&counted(&graph()), BIG_AFTER_NOTHING);
    assert_eq!(mapped, [vec![], vec![1], vec![1, 2], vec![1, 2, 3], vec![3, 4], vec![5], vec![]]);
    let snapshots = outputs(&counted(&graph()).state_snapshots(), BIG_AFTER_NOTHING);
    let expected: [&[(&str, i64)]; 7] = [
        &[],
        &[("a", 1)],
        &[("a", 2), ("b", 1)],
        &[("a", 3), ("b", 2), ("c", 1)],
        &[("a", 4), ("b", 3), ("c", 1)],
        &[("a", 5), ("b", 3), ("c", 1)],
        &[("a", 5), ("b", 3), ("c", 1)],
    ];
    assert_eq!(snapshots, expected.map(named));
}

#[test]
fn st_13_a_function_of_the_batch_time_that_may_give_nothing() {
    let graph = graph();
    let spec = StateSpec::function_with_time(|time: BatchTime, key: &String, value, state: &mut State<i64>| {
        state.update(summed(state.get().copied(), &[value.unwrap_or(0)]));
        (key != "c").then(|| format!("{key}{key} at {}", time.as_ms()))
    });
    let doubled = outputs(&pairs(&graph).map_with_state(spec), &[&[], &["a"], &["a", "b", "c"]]);
    assert_eq!(
        doubled,
        [vec![], vec!["aa at 2000".to_owned()], vec!["aa at 3000".to_owned(), "bb at 3000".to_owned()]]
    );
}

#[test]
fn st_14_initial_state_is_in_the_first_snapshot() {
    let with_initial = |graph: &Graph| {
        let spec = StateSpec::function_with_time(|_, _: &String, value: Option<i64>, state: &mut State<i64>| {
            state.update(summed(state.get().copied(), &[value.unwrap_or(0)]));
            None::<i64>
        });
        pairs(graph).map_with_state(spec.initial_state(named(&[("a", 5), ("b", 10), ("c", -20), ("d", 0)])))
    };
    assert!(outputs(&with_initial(&graph()), BIG_AFTER_NOTHING).concat().is_empty());
    let snapshots = outputs(&with_initial(&graph()).state_snapshots(), BIG_AFTER_NOTHING);
    let of = |a, b, c| named(&[("a", a), ("b", b), ("c", c), ("d", 0)]);
    let expected = [
        of(5, 10, -20),
        of(6, 10, -20),
        of(7, 11, -20),
        of(8, 12, -19),
        of(9, 13, -19),
        of(10, 13, -19),
        of(10, 13, -19),
    ];
    assert_eq!(snapshots, expected);
}

#[test]
fn st_16_once_per_record_in_order() {
    let graph = graph();
    let spec = StateSpec::function(|_: &String, value: Option<i64>, state: &mut State<Vec<i64>>| {
        let mut seen = state.get().cloned().unwrap_or_default();
        seen.extend(value);
        state.update(seen);
    });
    let stream = pairs(&graph).map_with_state(spec).state_snapshots();
    let of = outputs(&stream, &[&["k 1", "k 2", "j 9", "k 3"], &["k 4"]]);
    assert_eq!(of[1], [("j".to_owned(), vec![9]), ("k".to_owned(), vec![1, 2, 3, 4])]);
}

#[test]
fn st_17_and_23_only_touched_keys_are_asked_and_doing_nothing_changes_nothing() {
    for timeout in [None, Some(10 * SECOND)] {
        let graph = graph();
        let spec = StateSpec::function(|key: &String, value: Option<i64>, state: &mut State<i64>| {
            if value.unwrap() > 0 {
                state.update(value.unwrap());
            }
            key.clone()
        });
        let spec = if let Some(timeout) = timeout { spec.timeout(timeout) } else { spec };
        let stream = pairs(&graph).map_with_state(spec);
        let (first, _) = run(&graph, 1, &["a 1", "b 2"]);
        assert_eq!(items(&stream, &first), ["a", "b"]);
        let (second, segments) = run(&graph, 2, &["a 0", "c 0"]);
        assert_eq!(items(&stream, &second), ["a", "c"]);
        assert_eq!(items(&stream.state_snapshots(), &second), named(&[("a", 1), ("b", 2)]));
        // A record of a key that can time out is life of it.
        let changed: u64 = segments.iter().map(|segment| segment.keys).sum();
        assert_eq!(changed, u64::from(timeout.is_some()));
    }
}

fn timing_out(graph: &Graph) -> MapWithStateDStream<String, i64, Option<String>> {
    let spec = StateSpec::function(|key: &String, value: Option<i64>, state: &mut State<i64>| match value {
        Some(value) => {
            state.update(value);
            None
        }
        None => {
            assert!(state.is_timing_out() && state.exists());
            Some(key.clone())
        }
    });
    pairs(graph).map_with_state(spec.timeout(3 * SECOND))
}

#[test]
fn st_19_keys_that_are_idle_for_longer_than_the_timeout_leave_once() {
    let start: &[&[&str]] = &[&["a", "b", "c"], &["a", "b"], &["a"], &[], &[], &["a"]];
    let batches = [start, &[start[2]; 20]].concat();
    let (first, second) = (graph(), graph());
    let left = outputs(&timing_out(&first), &batches);
    let left: Vec<(usize, String)> = left
        .into_iter()
        .enumerate()
        .flat_map(|(n, keys)| keys.into_iter().flatten().map(move |key| (n + 1, key)))
        .collect();
    // c came with batch 1, b with batch 2: four seconds later they were idle for longer than three.
    assert_eq!(left, [(5, "c".to_owned()), (6, "b".to_owned())]);
    let snapshots = outputs(&timing_out(&second).state_snapshots(), &batches);
    assert_eq!(snapshots[0], named(&[("a", 1), ("b", 1), ("c", 1)]));
    assert_eq!(*snapshots.last().unwrap(), named(&[("a", 1)]));
}

#[test]
fn a_timeout_is_due_at_its_tick_and_not_before() {
    let graph = graph();
    let _ = timing_out(&graph);
    run(&graph, 1, &["a", "b"]);
    run(&graph, 2, &["a"]);
    let state = &graph.states()[0];
    let due = |last, second: i64| state.is_due(last, second * 1000);
    assert_eq!([3, 4, 5, 6].map(|second| due(2, second)), [false, false, true, true]);
    // Had batch 2 not been committed, the same.
    assert_eq!([4, 5].map(|second| due(1, second)), [false, true]);
    run(&graph, 3, &[]);
    run(&graph, 4, &["b"]);
    assert_eq!([5, 6, 7].map(|second| due(4, second)), [false, true, true]);
    assert_eq!(state.keys(4), 2);
    run(&graph, 6, &[]);
    assert_eq!((state.keys(6), due(6, 7), due(6, 8)), (1, false, true));
}

#[test]
fn st_24_a_key_that_is_removed_when_it_would_time_out_does_not() {
    let graph = graph();
    let spec = StateSpec::function(|_: &String, value: Option<i64>, state: &mut State<i64>| {
        match value {
            Some(0) => state.remove(),
            Some(value) => state.update(value),
            None => {}
        }
        (value, state.is_timing_out())
    });
    let stream = pairs(&graph).map_with_state(spec.timeout(SECOND));
    let of = outputs(&stream, &[&["a 1", "b 1"], &[], &["a 0"], &[], &[]]);
    assert_eq!(of[2], [(None, true), (Some(0), false)]);
    assert!(of[3].is_empty() && of[4].is_empty());
    assert_eq!(graph.states()[0].keys(5), 0);
}

#[test]
fn st_26_a_batch_without_records_and_one_between_slides_have_their_segments() {
    let graph = graph();
    let windowed = pairs(&graph).window(2 * SECOND, 2 * SECOND).unwrap();
    let stream = windowed.update_state_by_key(|_, values, sum| Some(summed(sum, &values)));
    let batches: &[&[&str]] = &[&["a 1"], &["a 2"], &[], &[]];
    let mut sums = Vec::new();
    for (seq, values) in (1..).zip(batches) {
        let (scope, segments) = run(&graph, seq, values);
        assert_eq!(segments.iter().map(|segment| segment.batch_seq).collect::<BTreeSet<_>>(), BTreeSet::from([seq]));
        assert_eq!(segments.len(), 16);
        sums.extend(stream.is_due(&scope).then(|| items(&stream, &scope)));
    }
    assert_eq!(sums, [named(&[("a", 3)]), named(&[("a", 3)])]);
    stream.foreach_rdd(|_| Ok(()));
    graph.check().unwrap();
    let _ = stream.window(2 * SECOND, 2 * SECOND).unwrap();
    assert!(graph.check().unwrap_err().to_string().contains("cannot look back on state"));
}

#[test]
fn a_fingerprint_names_operators_and_types_without_their_modules() {
    let graph = graph();
    let _ = running_count(&graph, &[]);
    let _ = timing_out(&graph);
    let spec = StateSpec::function(|_: &String, _: Option<i64>, _: &mut State<Vec<Option<BatchCount>>>| ());
    let _ = pairs(&graph).map_with_state(spec);
    let told = "1 update_state_by_key<String, i64>; 2 map_with_state<String, i64> with timeout; \
         3 map_with_state<String, Vec<Option<BatchCount>>>";
    assert_eq!(graph.fingerprint(), told);
    assert_eq!(Graph::default().fingerprint(), "");
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct BatchCount(i64);

/// The table of stored segments: a base takes the place of all before it.
#[derive(Default)]
pub(super) struct Table {
    pub(super) stored: BTreeMap<u32, Vec<StateSegment>>,
}

impl Table {
    pub(super) fn commit(&mut self, segments: Vec<StateSegment>) {
        for segment in segments {
            let stored = self.stored.entry(segment.partition).or_default();
            if segment.kind == SegmentKind::Base {
                stored.clear();
            }
            stored.push(segment);
        }
    }

    pub(super) fn restore(&self, graph: &Graph, last: u64) -> crate::Result<()> {
        let state = &graph.states()[0];
        state.clear();
        (0..state.partitions()).try_for_each(|partition| {
            let segments = self.stored.get(&partition).map(Vec::as_slice).unwrap_or_default();
            state.restore(partition, segments, last)
        })
    }
}

#[test]
fn st_27_state_that_was_stored_by_other_partitions_is_stored_anew() {
    let (old, new) = (graph(), graph());
    let _ = timing_out(&old);
    let (stream, mut table) = (timing_out(&new).state_snapshots(), Table::default());
    let values = ["a 1", "b 2", "c 3", "d 4", "e 5"];
    let (_, segments) = run(&old, 1, &values);
    // Each partition's entries under the name of the next one, as if keys had had other hashes.
    for segment in segments {
        let name = super::state_segment::Name { operator: 1, partition: (segment.partition + 1) % 16, batch_seq: 1 };
        let mut draft = super::state_segment::Draft::new();
        super::state_segment::read(&segment, |key: String, kept: Option<super::keyed_state::Kept<i64>>| {
            draft.add(&key, kept.as_ref()).unwrap();
        })
        .unwrap();
        table.commit(vec![draft.sealed(name, SegmentKind::Base)]);
    }
    table.restore(&new, 1).unwrap();
    let (second, segments) = run(&new, 2, &[]);
    assert!(segments.iter().all(|segment| segment.kind == SegmentKind::Base));
    assert_eq!(items(&stream, &second), named(&[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)]));
    table.commit(segments);
    // With the times of their updates.
    let again = graph();
    let _ = timing_out(&again);
    table.restore(&again, 2).unwrap();
    assert_eq!([4, 5].map(|second| again.states()[0].is_due(2, second * 1000)), [false, true]);
}

#[test]
fn stored_state_that_is_not_whole_is_refused() {
    let first = graph();
    let _ = running_count(&first, &[]);
    let mut table = Table::default();
    for seq in 1..=3 {
        table.commit(run(&first, seq, &["a", "b", "c", "d", "e", "f", "g", "h"]).1);
    }
    let refused = |last: u64, damage: &dyn Fn(&mut Vec<StateSegment>)| {
        let again = graph();
        let _ = running_count(&again, &[]);
        let mut damaged = Table { stored: table.stored.clone() };
        // One that has a key.
        let has_keys = |segments: &&mut Vec<StateSegment>| segments[0].keys > 0;
        damage(damaged.stored.values_mut().find(has_keys).unwrap());
        let error = damaged.restore(&again, last).unwrap_err();
        assert_eq!(error.kind().exit_code(), 4, "{error}");
        error.to_string()
    };
    assert!(refused(3, &|segments| segments.clear()).contains("segments are missing"));
    assert!(refused(3, &|segments| drop(segments.remove(0))).contains("base before a segment is missing"));
    assert!(refused(3, &|segments| drop(segments.remove(1))).contains("a segment is missing batch_seq=2"));
    assert!(refused(3, &|segments| drop(segments.pop())).contains("a segment is missing batch_seq=3"));
    assert!(refused(2, &|_| {}).contains("was not committed batch_seq=3"));
    for at in [0, 1, 8, 9, 11] {
        let bit = 1 << (at % 8);
        let again = graph();
        let _ = running_count(&again, &[]);
        let mut damaged = Table { stored: table.stored.clone() };
        damaged.stored.values_mut().find(|segments| segments[0].keys > 0).unwrap()[0].data[at] ^= bit;
        let error = damaged.restore(&again, 3).unwrap_err();
        assert!(error.kind().exit_code() == 4 && error.to_string().contains("checksum"), "{error}");
    }
    assert!(refused(3, &|segments| segments[1].keys += 1).contains("checksum"));
    assert!(refused(3, &|segments| segments[0].data.truncate(5)).contains("cut off"));
}

/// Bytes of a value that does not shrink.
fn wide(graph: &Graph) -> DStream<(String, Vec<u8>)> {
    let pairs = pairs(graph);
    pairs
        .map_with_state(StateSpec::function(|_, value: Option<i64>, state: &mut State<Vec<u8>>| {
            state.update(vec![u8::try_from(value.unwrap() % 256).unwrap(); 2000]);
        }))
        .state_snapshots()
}

#[test]
fn st_29_deltas_that_outweigh_their_base_give_way_to_a_new_one_a_partition_at_a_time() {
    let (first, second) = (graph(), graph());
    let (stream, again, mut table) = (wide(&first), wide(&second), Table::default());
    let (mut most, mut last) = (0, Vec::new());
    for seq in 1..=600_u64 {
        let texts: Vec<String> = (0..4).map(|n| format!("k{} {seq}", (seq * 4 + n) % 100)).collect();
        let (scope, segments) = run(&first, seq, &texts.iter().map(String::as_str).collect::<Vec<_>>());
        let bases = segments.iter().filter(|segment| segment.kind == SegmentKind::Base).count();
        assert!(if seq == 1 { bases == 16 } else { bases <= 1 }, "{bases}");
        table.commit(segments);
        most = most.max(table.stored.values().map(Vec::len).max().unwrap());
        last = items(&stream, &scope);
    }
    assert!((40..140).contains(&most), "{most}");
    table.restore(&second, 600).unwrap();
    assert_eq!(last.len(), 100);
    // Nothing in it: what was restored.
    assert_eq!(items(&again, &run(&second, 601, &[]).0), last);
}

/// What a batch may be.
fn batches() -> impl Strategy<Value = Vec<Vec<(u8, i64)>>> {
    proptest::collection::vec(proptest::collection::vec((0_u8..5, -3_i64..4), 0..5), 1..25)
}

proptest! {
    /// Whatever is run and dropped, and wherever the process ends and starts again: the states, what is told of them, and
    /// the stored segments are those of a plain map over the batches that were committed.
    #[test]
    fn states_survive_dropped_batches_and_restarts(
        batches in batches(),
        dropped in proptest::collection::vec(0_u8..4, 25),
        ends in proptest::collection::vec(0_u8..6, 25),
    ) {
        let mut sums = BTreeMap::<String, (i64, i64)>::new();
        let mut table = Table::default();
        let mut timed = started(&table, 0);
        // Committed with the batch after it, or lost.
        let mut pending: Option<(u64, Vec<StateSegment>)> = None;
        for (seq, batch) in (1_u64..).zip(&batches) {
            let time = i64::try_from(seq).unwrap() * 1000;
            let texts: Vec<String> = batch.iter().map(|(key, value)| format!("k{key} {value}")).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let before = sums.clone();
            let mut expected = Vec::new();
            for (key, value) in batch {
                let key = format!("k{key}");
                match value {
                    0 => _ = sums.remove(&key),
                    value => {
                        let sum = sums.entry(key.clone()).or_insert((0, 0));
                        *sum = (sum.0 + value, time);
                    }
                }
                expected.push(format!("{key} {:?}", sums.get(&key).map(|sum| sum.0)));
            }
            let idle: Vec<String> =
                sums.iter().filter(|(_, sum)| sum.1 < time - 2000).map(|(key, _)| key.clone()).collect();
            for key in idle {
                expected.push(format!("{key} left with {}", sums.remove(&key).unwrap().0));
            }
            expected.sort();
            if ends[usize::try_from(seq).unwrap() - 1] == 0 {
                // The process is killed while it runs this batch, after the commit of the one before.
                run(&timed.0, seq, &["k0 77", "k9 5"]);
                if let Some((_, segments)) = pending.take() {
                    table.commit(segments);
                }
                timed = started(&table, seq - 1);
            }
            match dropped[usize::try_from(seq).unwrap() - 1] {
                0 => _ = run(&timed.0, seq, &["k0 50", "k1 0", "k7 7"]),
                // The one before was not committed after all, and is run again.
                1 if pending.is_some() => {
                    run(&timed.0, seq, &["k0 50", "k1 0", "k7 7"]);
                    let (seq, _) = pending.take().unwrap();
                    let last: Vec<String> =
                        batches[usize::try_from(seq).unwrap() - 1].iter().map(|(key, value)| format!("k{key} {value}")).collect();
                    let last: Vec<&str> = last.iter().map(String::as_str).collect();
                    let (scope, segments) = run(&timed.0, seq, &last);
                    let states: Vec<(String, i64)> = before.iter().map(|(key, sum)| (key.clone(), sum.0)).collect();
                    prop_assert_eq!(items(&timed.1.state_snapshots(), &scope), states);
                    pending = Some((seq, segments));
                }
                _ => {}
            }
            let due = timed.0.states()[0].is_due(seq - 1, time);
            let idle_before = before.iter().any(|(_, sum)| sum.1 < time - 2000);
            prop_assert_eq!(due, idle_before);
            let (scope, segments) = run(&timed.0, seq, &texts);
            if let Some((_, segments)) = pending.replace((seq, segments)) {
                table.commit(segments);
            }
            prop_assert_eq!(items(&timed.1, &scope), expected);
            let states: Vec<(String, i64)> = sums.iter().map(|(key, sum)| (key.clone(), sum.0)).collect();
            prop_assert_eq!(timed.0.states()[0].keys(seq), states.len() as u64);
            prop_assert_eq!(items(&timed.1.state_snapshots(), &scope), states);
        }
    }
}

/// A process that starts after batch `last`: adds up, removes at 0, and forgets what was idle for more than two seconds.
fn started(table: &Table, last: u64) -> (Graph, MapWithStateDStream<String, i64, String>) {
    let graph = graph();
    let spec = StateSpec::function(|key: &String, value: Option<i64>, state: &mut State<i64>| {
        match value {
            None => return format!("{key} left with {}", state.get().unwrap()),
            Some(0) => state.remove(),
            Some(value) => state.update(summed(state.get().copied(), &[value])),
        }
        format!("{key} {:?}", state.get())
    });
    let stream = pairs(&graph).map_with_state(spec.timeout(2 * SECOND));
    if last > 0 {
        table.restore(&graph, last).unwrap();
    }
    (graph, stream)
}
