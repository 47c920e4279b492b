//! Windows over event time: their arithmetic against plain counting, the operator against a sequential model.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;

use super::{
    BatchScope, DStream, DirectKafkaInputDStream, EventWindow, EventWindowDStream, EventWindows, Graph, Input, Late,
    LateReason, LocalRunner, Output,
    event_window::Grid,
    state_tests::{Table, graph, items},
    tests::{Batch, batch},
};
use crate::types::{
    BatchInfo, BatchTime, Chunk, DeadLetterStage, MemoryChunk, MemoryRecord, Offset, Record, SegmentKind, StateSegment,
    Task, TopicPartition,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn sliding(length: u64, slide: u64) -> EventWindows {
    EventWindows::sliding(ms(length), ms(slide))
}

fn starts(grid: Grid, time: i64, watermark: Option<i64>) -> Vec<i64> {
    grid.open(time, watermark).collect()
}

#[test]
fn a_window_has_its_start_and_not_its_end() {
    let minutes = Grid::of(EventWindows::tumbling(ms(60))).unwrap();
    let of = |time| starts(minutes, time, None);
    assert_eq!([-61, -60, -1, 0, 59, 60].map(of), [vec![-120], vec![-60], vec![-60], vec![0], vec![0], vec![60]]);
    let last = Grid::of(sliding(60, 20)).unwrap();
    assert_eq!(starts(last, 0, None), [0, -20, -40]);
    assert_eq!(starts(last, 19, None), [0, -20, -40]);
    assert_eq!(starts(last, -1, None), [-20, -40, -60]);
    // Those that end at or before the watermark are over.
    assert_eq!(starts(last, 0, Some(19)), [0, -20, -40]);
    assert_eq!(starts(last, 0, Some(20)), [0, -20]);
    assert_eq!(starts(last, 0, Some(59)), [0]);
    assert_eq!(starts(last, 0, Some(60)), Vec::<i64>::new());
}

#[test]
fn durations_are_checked_when_the_windows_are_defined() {
    let refused = |windows: EventWindows| {
        let graph = graph();
        let stream = events(&graph).with_watermark(|_| None, ms(0)).unwrap();
        let error = stream.reduce_by_key_and_event_window(windows, |event| (event.key, 1), |a, b| a + b).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
        assert!(graph.states().is_empty());
        error.to_string()
    };
    for (length, slide) in [(60, 0), (0, 0), (60, 25), (60, 120), (0, 60)] {
        let told = refused(sliding(length, slide));
        let expected = format!("divide the window window_ms={length} slide_ms={slide}");
        assert!(told.contains(&expected), "{told}");
    }
    for duration in [Duration::from_micros(1), Duration::from_micros(60_001), Duration::MAX] {
        assert!(refused(EventWindows::tumbling(duration)).contains("whole milliseconds"));
        let graph = graph();
        assert!(events(&graph).with_watermark(|_| None, duration).is_err());
        assert!(events(&graph).with_watermark(|_| None, ms(0)).unwrap().ahead_max(duration).is_err());
    }
}

proptest! {
    /// Whatever the time: the windows are those of the grid that have it between start and end, and they have numbers.
    #[test]
    fn windows_of_any_time(
        time in prop_oneof![any::<i64>(), -1000_i64..1000, Just(i64::MIN), Just(i64::MAX)],
        slide in prop_oneof![1_u64..50, Just(86_400_000)],
        count in 1_u64..20,
        watermark in prop_oneof![Just(None), any::<i64>().prop_map(Some), (-1000_i64..1000).prop_map(Some)],
    ) {
        let grid = Grid::of(sliding(slide * count, slide)).unwrap();
        let (time, slide, length) = (i128::from(time), i128::from(slide), i128::from(slide * count));
        let inside = |number: i128| i64::try_from(number).is_ok();
        if !inside(time - length) || !inside(time + length) {
            prop_assert!(!grid.holds(i64::try_from(time).unwrap()));
            return Ok(());
        }
        prop_assert!(grid.holds(i64::try_from(time).unwrap()));
        // Every multiple of the slide near it.
        let near = time.div_euclid(slide) + 2;
        let expected: Vec<i64> = (0..count + 4)
            .map(|before| (near - i128::from(before)) * slide)
            .filter(|start| *start <= time && time < start + length)
            .filter(|start| watermark.is_none_or(|watermark| start + length > i128::from(watermark)))
            .map(|start| i64::try_from(start).unwrap())
            .collect();
        prop_assert_eq!(starts(grid, i64::try_from(time).unwrap(), watermark), expected);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    time: Option<i64>,
    key: String,
    value: i64,
}

/// `a 120 3`: key, time, value. A time of `-` is none.
fn events(graph: &Graph) -> DStream<Event> {
    DirectKafkaInputDStream::new(graph).map(|record| {
        let mut words = record.text().unwrap().split(' ');
        let mut word = || words.next().unwrap();
        Event { key: word().to_owned(), time: word().parse().ok(), value: word().parse().unwrap() }
    })
}

type Stream = EventWindowDStream<Event, String, Vec<i64>>;
type Row = (EventWindow, String, Vec<i64>);

/// The values of each window and key, in order.
fn windowed(graph: &Graph, windows: EventWindows, lateness: u64) -> Stream {
    let events = events(graph).with_watermark(|event| event.time, ms(lateness)).unwrap();
    let events = events.ahead_max(ms(1_000_000)).unwrap();
    let pair = |event: Event| (event.key, vec![event.value]);
    events.reduce_by_key_and_event_window(windows, pair, |a, b| [a, b].concat()).unwrap()
}

/// Building it once took the graph's lock twice, and waited for ever.
#[test]
fn windows_over_a_stream_that_others_use_too() {
    let graph = graph();
    let events = events(&graph);
    let _counted = events.count();
    let windows = |events: &DStream<Event>| {
        let events = events.with_watermark(|event| event.time, ms(0)).unwrap();
        events.reduce_by_key_and_event_window(EventWindows::tumbling(ms(60)), |event| (event.key, 1), |a, b| a + b)
    };
    let _both = (windows(&events).unwrap(), windows(&events).unwrap());
    assert_eq!(graph.states().len(), 2);
    assert!(!graph.reads_once());
}

/// A batch of these partitions, seen by the state operators.
fn run_parts(graph: &Graph, seq: u64, partitions: &[&[&str]]) -> (BatchScope, Vec<StateSegment>) {
    let Batch { task, inputs } = batch(seq, i64::try_from(seq).unwrap() * 1000, partitions);
    let scope = BatchScope::on_grid(task, Arc::new(LocalRunner::new(2)), inputs, 0);
    let segments = graph.states().iter().flat_map(|state| state.advance(&scope).unwrap()).collect();
    (scope, segments)
}

fn run(graph: &Graph, seq: u64, events: &[&str]) -> BatchScope {
    let middle = events.len() / 2;
    run_parts(graph, seq, &[&events[..middle], &events[middle..]]).0
}

fn row(start_ms: i64, length: i64, key: &str, values: &[i64]) -> Row {
    (EventWindow { start_ms, end_ms: start_ms + length }, key.to_owned(), values.to_vec())
}

fn is_due(graph: &Graph, last: u64) -> bool {
    graph.states().iter().any(|state| state.is_due(last, 0))
}

#[test]
fn a_window_is_told_once_when_the_watermark_has_reached_its_end() {
    let graph = graph();
    let minutes = windowed(&graph, EventWindows::tumbling(ms(60)), 10);
    // Watermark of the next batch: 59.
    let first = run(&graph, 1, &["a 0 1", "b 61 2", "a 59 3", "b 69 4"]);
    assert_eq!(items(&minutes, &first), []);
    assert!(!is_due(&graph, 1));
    // Not yet; from now on it is 60.
    let second = run(&graph, 2, &["a 70 5"]);
    assert_eq!(items(&minutes, &second), []);
    assert!(is_due(&graph, 2) && !is_due(&graph, 1));
    // Also without any record, and no second time.
    let third = run(&graph, 3, &[]);
    assert_eq!(items(&minutes, &third), [row(0, 60, "a", &[1, 3])]);
    assert!(!is_due(&graph, 3));
    assert_eq!(items(&minutes, &run(&graph, 4, &[])), []);
    // While nothing comes, what is open stays open.
    for seq in 5..50 {
        assert_eq!(items(&minutes, &run(&graph, seq, &[])), []);
    }
    assert_eq!(graph.states()[0].keys(49), 2);
    run(&graph, 50, &["c 1000 6"]);
    let last = run(&graph, 51, &["c 1001 7"]);
    assert_eq!(items(&minutes, &last), [row(60, 60, "a", &[5]), row(60, 60, "b", &[2, 4])]);
    assert_eq!(graph.states()[0].keys(51), 1);
}

#[test]
fn an_element_is_late_when_all_of_its_windows_are_over() {
    let graph = graph();
    let stream = windowed(&graph, sliding(60, 20), 0);
    let late = stream.late();
    run(&graph, 1, &["a 75 1"]);
    // Of the windows of 30, those from -20 and 0 are over, and that from 20 is not; of 10 all are.
    let second = run(&graph, 2, &["b 30 2", "b 10 3", "b - 4", "b 15 5"]);
    let told = |time: Option<i64>, value, watermark_ms, reason| Late {
        element: Event { time, key: "b".to_owned(), value },
        event_time_ms: time,
        watermark_ms,
        reason,
    };
    let closed = LateReason::WindowsClosed;
    let none = told(None, 4, Some(75), LateReason::NoTime);
    assert_eq!(items(&late, &second), [none, told(Some(10), 3, Some(75), closed), told(Some(15), 5, Some(75), closed)]);
    assert_eq!(graph.states()[0].late_records(2), 3);
    assert_eq!(graph.states()[0].late_records(1), 0);
    run(&graph, 3, &["a 500 0"]);
    let fourth = run(&graph, 4, &[]);
    assert!(items(&stream, &fourth).contains(&row(20, 60, "b", &[2])));
    assert_eq!(items(&stream, &fourth).iter().filter(|row| row.1 == "b").count(), 1);
    assert_eq!(items(&late, &fourth), []);
}

#[test]
fn times_that_cannot_be_used_move_no_watermark() {
    let graph = graph();
    let stream = windowed(&graph, EventWindows::tumbling(ms(60)), 0);
    let late = stream.late();
    // The batch time is 1,000; a million later is too much.
    let texts = ["- 1", "1001001 2", "9223372036854775807 3", "-9223372036854775808 4"].map(|rest| format!("a {rest}"));
    let first = run(&graph, 1, &texts.each_ref().map(String::as_str));
    let mut reasons: Vec<_> = items(&late, &first).into_iter().map(|late| (late.reason, late.watermark_ms)).collect();
    reasons.sort();
    let expected = [LateReason::NoTime, LateReason::TooFarAhead, LateReason::OutOfRange, LateReason::OutOfRange];
    assert_eq!(reasons, expected.map(|reason| (reason, None)));
    assert_eq!(graph.states()[0].late_records(1), 4);
    // Nothing is over: the next one is in time, and so is one at the limit.
    let second = run(&graph, 2, &["a -5000 5", "a 1002000 6"]);
    assert_eq!(items(&late, &second), []);
    assert_eq!(items(&stream, &run(&graph, 3, &[])), [row(-5040, 60, "a", &[5])]);
}

#[test]
fn late_elements_and_updates_are_kept_only_if_they_are_asked_for() {
    let graph = graph();
    let stream = windowed(&graph, EventWindows::tumbling(ms(60)), 0);
    run(&graph, 1, &["a 1000 1"]);
    let second = run(&graph, 2, &["a 0 1", "a 1000 1"]);
    assert_eq!(graph.states()[0].late_records(2), 1);
    assert_eq!((items(&stream.late(), &second).len(), items(&stream.updates(), &second).len()), (0, 0));
    let third = run(&graph, 3, &["a 0 1", "a 1000 1"]);
    assert_eq!((items(&stream.late(), &third).len(), items(&stream.updates(), &third).len()), (1, 1));
}

#[test]
fn updates_are_the_windows_that_a_batch_changed() {
    let graph = graph();
    let stream = windowed(&graph, EventWindows::tumbling(ms(60)), 100);
    let updates = stream.updates();
    let first = run(&graph, 1, &["a 0 1", "b 60 2"]);
    assert_eq!(items(&updates, &first), [row(0, 60, "a", &[1]), row(60, 60, "b", &[2])]);
    let second = run(&graph, 2, &["a 59 3", "a 170 4"]);
    assert_eq!(items(&updates, &second), [row(0, 60, "a", &[1, 3]), row(120, 60, "a", &[4])]);
    // That it is over is no change.
    let third = run(&graph, 3, &[]);
    assert_eq!(items(&updates, &third), []);
    assert_eq!(items(&stream, &third), [row(0, 60, "a", &[1, 3])]);
}

#[test]
fn windows_over_windows_are_told_after_them() {
    let graph = graph();
    let minutes = windowed(&graph, EventWindows::tumbling(ms(60)), 0);
    let counted = minutes.map(|(minute, key, values)| (minute, key, values.len()));
    let hours = counted
        .with_watermark(|(minute, ..)| Some(minute.start_ms), ms(0))
        .unwrap()
        .reduce_by_key_and_event_window(EventWindows::tumbling(ms(120)), |(_, key, count)| (key, count), |a, b| a + b)
        .unwrap();
    let mut told = Vec::new();
    run(&graph, 1, &["a 0 1", "a 70 2", "a 80 3", "a 130 4", "a 500 5"]);
    let mut seq = 1;
    while is_due(&graph, seq) {
        seq += 1;
        told.extend(items(&hours, &run(&graph, seq, &[])));
    }
    assert_eq!(told, [(EventWindow { start_ms: 0, end_ms: 120 }, "a".to_owned(), 3)]);
    assert!(graph.check().unwrap_err().to_string().contains("no output"));
}

#[test]
fn a_smaller_or_larger_allowed_lateness_does_not_move_the_watermark_back() {
    let (first, mut table) = (graph(), Table::default());
    windowed(&first, EventWindows::tumbling(ms(60)), 10);
    for (seq, events) in [(1, ["a 0 1", "a 130 2"]), (2, ["a 121 3", "a 125 4"])] {
        table.commit(run_parts(&first, seq, &[&events]).1);
    }
    for lateness in [0, 1000] {
        let again = graph();
        let stream = windowed(&again, EventWindows::tumbling(ms(60)), lateness);
        let late = stream.late();
        table.restore(&again, 2).unwrap();
        let third = run(&again, 3, &["a 59 5", "a 119 6", "a 120 7"]);
        // The first two minutes were over with the watermark of 120.
        assert_eq!(items(&late, &third).len(), 2);
        assert_eq!(again.states()[0].keys(3), 1);
    }
}

#[test]
fn a_fingerprint_names_the_windows() {
    let graph = graph();
    windowed(&graph, sliding(60, 20), 10);
    let told = "1 reduce_by_key_and_event_window<String, Vec<i64>> of 60 ms every 20 ms";
    assert_eq!(graph.fingerprint(), told);
}

#[test]
fn a_stored_watermark_that_is_not_whole_is_refused() {
    let (first, mut table) = (graph(), Table::default());
    windowed(&first, EventWindows::tumbling(ms(60)), 0);
    for seq in 1..=3 {
        table.commit(run_parts(&first, seq, &[&["a 1000 1"]]).1);
    }
    let stored = table.stored[&16].clone();
    assert_eq!(
        stored.iter().map(|segment| (segment.batch_seq, segment.kind)).collect::<Vec<_>>(),
        [(3, SegmentKind::Base)]
    );
    let damages: [fn(&mut Vec<StateSegment>); 4] = [
        Vec::clear,
        |segments| segments[0].batch_seq = 2,
        |segments| segments[0].data[10] ^= 1,
        |segments| segments[0].kind = SegmentKind::Delta,
    ];
    for damage in damages {
        let again = graph();
        windowed(&again, EventWindows::tumbling(ms(60)), 0);
        let mut damaged = Table { stored: table.stored.clone() };
        damage(damaged.stored.get_mut(&16).unwrap());
        let error = damaged.restore(&again, 3).unwrap_err();
        assert!(error.kind().exit_code() == 4 && error.to_string().contains("partition=16"), "{error}");
    }
}

#[test]
fn a_late_record_becomes_a_dead_letter_with_all_that_it_has() {
    let graph = graph();
    let minutes = DirectKafkaInputDStream::new(&graph)
        .with_watermark(|record: &Record| record.timestamp().as_ms(), ms(0))
        .unwrap()
        .reduce_by_key_and_event_window(EventWindows::tumbling(ms(60)), |_| ((), 1), |a, b| a + b)
        .unwrap();
    minutes.late().save_as_dead_letters("minutes");
    let prepared = |seq: u64, timestamps: &[Option<i64>]| {
        let topic_partition = TopicPartition::new("orders", 3);
        let record = |(n, timestamp_ms): (u64, &Option<i64>)| MemoryRecord {
            offset: Offset::ZERO.advanced_by(seq * 10 + n),
            key: Some(vec![0, 159]),
            value: None,
            headers: vec![("h".to_owned(), Some(vec![1])), ("h".to_owned(), None)],
            timestamp_ms: *timestamp_ms,
        };
        let records = (0..).zip(timestamps).map(record).collect();
        let chunk = Arc::new(Chunk::Memory(MemoryChunk { topic_partition, records }));
        let ranges: Arc<[_]> = Arc::new([]);
        let info = BatchInfo { batch_seq: seq, batch_time: BatchTime::from_ms(1000), ranges: Arc::clone(&ranges) };
        let records = super::Rdd::parallelize(chunk.records().collect::<Vec<_>>(), 2);
        let input = Input { records: Arc::clone(records.compute()), ranges };
        let scope = BatchScope::on_grid(Task::new(info), Arc::new(LocalRunner::new(2)), vec![input], 0);
        graph.states()[0].advance(&scope).unwrap();
        let outputs = graph.outputs();
        let Output::Transactional(output) = &outputs[0] else { panic!("it is in the transaction") };
        output.prepare(&scope, &[]).unwrap().dead_letters
    };
    assert_eq!(prepared(1, &[Some(0), Some(500)]), []);
    let letters = prepared(2, &[Some(700), Some(7), None]);
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0].topic_partition, TopicPartition::new("orders", 3));
    assert_eq!(letters.iter().map(|letter| letter.offset.get()).collect::<Vec<_>>(), [21, 22]);
    assert_eq!(letters.iter().map(|letter| letter.timestamp_ms).collect::<Vec<_>>(), [Some(7), None]);
    assert_eq!((letters[0].stage, letters[0].output.as_deref()), (DeadLetterStage::Window, Some("minutes")));
    assert_eq!((letters[0].key.as_deref(), letters[0].value.as_deref()), (Some([0, 159].as_slice()), None));
    assert_eq!(letters[0].headers, r#"[["h","AQ=="],["h",null]]"#);
    assert!(letters[0].reason.starts_with("too late") && letters[1].reason == "it has no event time");
}

/// The same one element at a time, with nothing but lists and counting.
#[derive(Debug, Clone, Default)]
struct Model {
    open: BTreeMap<(i64, String), Vec<i64>>,
    watermark: Option<i64>,
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    closed: Vec<Row>,
    updates: Vec<Row>,
    late: Vec<(Event, Option<i64>)>,
}

impl Model {
    fn run(&mut self, events: &[Event], (length, slide, lateness): (i64, i64, i64)) -> Outcome {
        let over = |start: i64, watermark: Option<i64>| watermark.is_some_and(|watermark| start + length <= watermark);
        let (watermark, mut highest) = (self.watermark, None);
        let (mut changed, mut late) = (BTreeSet::new(), Vec::new());
        let closed = self.open.iter().filter(|((start, _), _)| over(*start, watermark));
        let closed = closed.map(|((start, key), values)| row(*start, length, key, values)).collect();
        self.open.retain(|(start, _), _| !over(*start, watermark));
        for event in events {
            let Some(time) = event.time else {
                late.push((event.clone(), watermark));
                continue;
            };
            highest = highest.max(Some(time));
            let of =
                (time - length + 1..=time).filter(|start| start.rem_euclid(slide) == 0 && !over(*start, watermark));
            let of: Vec<i64> = of.collect();
            if of.is_empty() {
                late.push((event.clone(), watermark));
            }
            for start in of {
                self.open.entry((start, event.key.clone())).or_default().push(event.value);
                changed.insert((start, event.key.clone()));
            }
        }
        self.watermark = watermark.max(highest.map(|highest| highest - lateness));
        let updates = changed.into_iter().map(|at| row(at.0, length, &at.1, &self.open[&at])).collect();
        late.sort();
        Outcome { closed, updates, late }
    }

    /// Whether the next batch has a window to tell, also without any element.
    fn is_due(&self, length: i64) -> bool {
        self.open.keys().any(|(start, _)| self.watermark.is_some_and(|watermark| start + length <= watermark))
    }
}

fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let time = prop_oneof![9 => (-60_i64..300).prop_map(Some), 1 => Just(None)];
    let event =
        (time, 0_u8..4, 0_i64..100).prop_map(|(time, key, value)| Event { time, key: format!("k{key}"), value });
    proptest::collection::vec(event, 0..8)
}

/// What is done with a batch before it is run and committed.
#[derive(Debug, Clone, Copy)]
enum Before {
    Nothing,
    /// Other records are run under its number, and dropped.
    Dropped,
    /// Other records are run under its number; then the batch before turns out not to be committed, and is run again.
    BothDropped,
    /// The process is killed in the midst of it, and starts again.
    Killed,
}

proptest! {
    /// Whatever the elements, partitions, batch cuts and lateness, whatever is run and dropped, and wherever the process ends and
    /// starts again from what is stored: each batch tells what the model tells.
    #[test]
    fn windows_over_event_time_are_those_of_a_plain_model(
        batches in proptest::collection::vec((any_events(), 0_i64..60, 1_usize..4), 1..25),
        (count, slide, lateness) in (1_u64..4, prop_oneof![Just(1_u64), Just(7), Just(20)], 0_u64..50),
        before in proptest::collection::vec(
            prop_oneof![
                3 => Just(Before::Nothing),
                1 => Just(Before::Dropped),
                1 => Just(Before::BothDropped),
                1 => Just(Before::Killed),
            ],
            25,
        ),
    ) {
        let spans = [slide * count, slide, lateness].map(|ms| i64::try_from(ms).unwrap());
        let spans = (spans[0], spans[1], spans[2]);
        let start = |table: &Table, last: u64| {
            let graph = graph();
            let stream = windowed(&graph, sliding(slide * count, slide), lateness);
            let (updates, late) = (stream.updates(), stream.late());
            if last > 0 {
                table.restore(&graph, last).unwrap();
            }
            (graph, stream, updates, late)
        };
        let (mut model, mut model_before, mut table) = (Model::default(), Model::default(), Table::default());
        let mut running = start(&table, 0);
        let mut pending: Option<(u64, Vec<StateSegment>, Vec<Event>, usize)> = None;
        let mut clock = 0;
        for (index, (events, passes, partitions)) in batches.into_iter().enumerate() {
            let seq = u64::try_from(index).unwrap() + 1;
            // Times go on from batch to batch, so that windows end.
            clock += passes;
            let mut events = events;
            events.iter_mut().for_each(|event| event.time = event.time.map(|time| time + clock));
            let others = [Event { time: Some(clock + 5000), key: "k1".to_owned(), value: -1 }];
            match before[index] {
                Before::Nothing => {}
                Before::Dropped => _ = run_events(&running.0, seq, &others, 1),
                Before::BothDropped => {
                    run_events(&running.0, seq, &others, 1);
                    if let Some((seq, _, events, partitions)) = pending.take() {
                        let (scope, segments) = run_events(&running.0, seq, &events, partitions);
                        let outcome = model_before.clone().run(&events, spans);
                        prop_assert_eq!(told(&running.1, &running.2, &running.3, &scope), outcome);
                        pending = Some((seq, segments, events, partitions));
                    }
                }
                Before::Killed => {
                    run_events(&running.0, seq, &others, 1);
                    if let Some((_, segments, ..)) = pending.take() {
                        table.commit(segments);
                    }
                    running = start(&table, seq - 1);
                }
            }
            prop_assert_eq!(is_due(&running.0, seq - 1), model.is_due(spans.0));
            model_before = model.clone();
            let outcome = model.run(&events, spans);
            let late = outcome.late.len();
            let (scope, segments) = run_events(&running.0, seq, &events, partitions);
            prop_assert_eq!(told(&running.1, &running.2, &running.3, &scope), outcome);
            prop_assert_eq!(running.0.states()[0].late_records(seq), u64::try_from(late).unwrap());
            prop_assert_eq!(running.0.states()[0].keys(seq), u64::try_from(model.open.len()).unwrap());
            // The one before is committed only now.
            if let Some((_, segments, ..)) = pending.replace((seq, segments, events, partitions)) {
                table.commit(segments);
            }
        }
    }
}

fn run_events(graph: &Graph, seq: u64, events: &[Event], partitions: usize) -> (BatchScope, Vec<StateSegment>) {
    let text = |event: &Event| {
        let time = event.time.map_or_else(|| "-".to_owned(), |time| time.to_string());
        format!("{} {time} {}", event.key, event.value)
    };
    let texts: Vec<String> = events.iter().map(text).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let share = texts.len().div_ceil(partitions).max(1);
    run_parts(graph, seq, &texts.chunks(share).collect::<Vec<_>>())
}

fn told(stream: &Stream, updates: &DStream<Row>, late: &DStream<Late<Event>>, scope: &BatchScope) -> Outcome {
    let mut late: Vec<_> = items(late, scope).into_iter().map(|late| (late.element, late.watermark_ms)).collect();
    late.sort();
    Outcome { closed: items(stream, scope), updates: items(updates, scope), late }
}
