//! Every windowed and every stateful operator in a process that is killed again and again, with many seeds and on each store: what
//! each committed batch told is what an uninterrupted run tells for the same batches.
//!
//! The process is this very test binary, started on a test that does nothing otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Debug,
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use directstream::{
    Error, TopicPartition,
    commit::{Inspector, LedgerBatch},
    stream::{DirectStream, StreamingContext, Termination},
    transform::{DStream, EventWindows, State, StateSpec},
};

use futures_util::{StreamExt as _, stream};

use crate::support::{Kafka, Process, Seen, fresh_database, record, shared_kafka};

const TEST: &str = "fire::restarts::runs_all_operators_in_a_process_of_its_own";
const SEEDS: u64 = 30;
/// Processes at a time.
const AT_A_TIME: usize = 6;
const KILLS: u64 = 3;
const LIMIT: Duration = Duration::from_secs(90);
const INTERVAL_MS: i64 = 50;
const LENGTH_MS: i64 = 4 * INTERVAL_MS;
const SLIDE_MS: i64 = 2 * INTERVAL_MS;
const TIMEOUT_MS: i64 = 3 * INTERVAL_MS;
/// Of event time: it goes by 5 ms from record to record, and up to 120 ms back and forth.
const EVENT_WINDOW_MS: i64 = 200;
const LATENESS_MS: i64 = 60;
/// A key without a value for so many batches leaves.
const IDLE_MAX: u32 = 2;
const PARTITIONS: i32 = 2;
const RECORDS_EACH: i64 = 400;
/// Ten records of each partition a batch: forty batches.
const RATE: u64 = 200;
/// Where it is killed, after so many passes as the seed says.
const ARROWS: [&str; 8] = [
    "plan::done",
    "transform::done",
    "stream::hand_over",
    "commit::before_begin",
    "commit::after_write",
    "commit::before_commit",
    "commit::after_commit",
    "stream::acknowledge",
];

type Pair = (String, i64);
/// A pair and its event time.
type Event = (String, i64, i64);

fn ms(ms: i64) -> Duration {
    Duration::from_millis(ms.unsigned_abs())
}

/// Each batch's elements in a file of its own, sorted. A batch that is run again replaces it.
fn told<T: Debug + Send + 'static>(stream: &DStream<T>, name: &'static str, folder: &Path) {
    let folder = folder.to_owned();
    stream.map(|item| format!("{item:?}\n")).foreach_rdd(move |rdd| {
        let mut lines = rdd.collect()?;
        lines.sort();
        let path = folder.join(format!("{name}-{}", rdd.batch().batch_time.as_ms()));
        let unfinished = path.with_extension("tmp");
        let written = fs::write(&unfinished, lines.concat()).and_then(|()| fs::rename(&unfinished, &path));
        written.map_err(|error| Error::transform("cannot write the batch's file").caused_by(error))
    });
}

/// The windowed operators: told at each slide.
fn windowed(pairs: &DStream<Pair>, folder: &Path) -> directstream::Result<()> {
    let (length, slide) = (ms(LENGTH_MS), ms(SLIDE_MS));
    let values = pairs.map(|(_, value)| value);
    told(&pairs.window(length, slide)?, "window", folder);
    told(&values.count_by_window(length, slide)?, "count_by_window", folder);
    told(&values.reduce_by_window(|a, b| a + b, length, slide)?, "reduce_by_window", folder);
    told(&values.count_by_value_and_window(length, slide)?, "count_by_value_and_window", folder);
    told(&pairs.reduce_by_key_and_window(|a, b| a + b, length, slide)?, "reduce_by_key_and_window", folder);
    let inverse = pairs.reduce_by_key_and_window_with_inverse(|a, b| a + b, |a, b| a - b, length, slide)?;
    told(&inverse, "with_inverse", folder);
    let grouped = pairs.group_by_key_and_window(length, slide)?.map_values(|mut values: Vec<i64>| {
        values.sort_unstable();
        values
    });
    told(&grouped, "group_by_key_and_window", folder);
    // State of windows.
    told(&inverse.update_state_by_key(|_, values, _| values.last().copied()), "state_of_windows", folder);
    Ok(())
}

/// The stateful operators: told with each batch.
fn stateful(pairs: &DStream<Pair>, folder: &Path) {
    let updated = pairs.update_state_by_key(|_, values: Vec<i64>, state: Option<(i64, u32)>| {
        let (sum, idle) = state.unwrap_or((0, 0));
        match values.is_empty() {
            true if idle >= IDLE_MAX => None,
            true => Some((sum, idle + 1)),
            false => Some((sum + values.iter().sum::<i64>(), 0)),
        }
    });
    told(&updated, "update_state_by_key", folder);
    let spec = StateSpec::function(|key: &String, value: Option<i64>, state: &mut State<i64>| {
        match value {
            None => {}
            Some(0) if state.exists() => state.remove(),
            Some(value) => state.update(state.get().copied().unwrap_or(0) + value),
        }
        (key.clone(), value, state.get().copied(), state.is_timing_out())
    });
    let mapped = pairs.map_with_state(spec.timeout(ms(TIMEOUT_MS)));
    told(&mapped, "map_with_state", folder);
    told(&mapped.state_snapshots(), "state_snapshots", folder);
}

/// Windows over event time: told with the batch in which the watermark has passed them, and what came too late for them.
fn by_event_time(events: &DStream<Event>, folder: &Path) -> directstream::Result<()> {
    let windows = events.with_watermark(|(_, _, time)| Some(*time), ms(LATENESS_MS))?.reduce_by_key_and_event_window(
        EventWindows::tumbling(ms(EVENT_WINDOW_MS)),
        |(key, value, _)| (key, value),
        |a, b| a + b,
    )?;
    let rows = windows.map(|(window, key, sum)| (window.start_ms, key, sum));
    told(&rows, "event_windows", folder);
    told(&windows.late().map(|late| late.element), "late", folder);
    Ok(())
}

#[test]
#[ignore = "the process that the tests of restarts start; by itself it does nothing"]
fn runs_all_operators_in_a_process_of_its_own() {
    let Ok(url) = env::var("RESTARTS_STORE") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let setting = |name: &str| env::var(name).unwrap();
        let context = StreamingContext::builder(setting("RESTARTS_APPLICATION"), ms(INTERVAL_MS))
            .store(&url)
            .unwrap()
            .max_rate_per_partition(RATE)
            .until_latest(true)
            .build()
            .unwrap();
        // A stream for each partition.
        let streams = (0..PARTITIONS).map(|partition| {
            let partition = TopicPartition::new(setting("RESTARTS_TOPIC"), partition);
            let stream = DirectStream::partitions([partition]).bootstrap_servers(setting("RESTARTS_KAFKA"));
            context.direct_stream(stream).unwrap().map(|record| {
                let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
                event(key, record.text().unwrap_or_default())
            })
        });
        let events = context.union(streams).unwrap();
        let pairs = events.map(|(key, value, _)| (key, value));
        let folder = PathBuf::from(setting("RESTARTS_FOLDER"));
        windowed(&pairs, &folder).unwrap();
        stateful(&pairs, &folder);
        by_event_time(&events, &folder).unwrap();
        context.start().await.unwrap();
        assert_eq!(context.await_termination().await.unwrap(), Termination::ReachedLatest);
    });
}

/// A record's value is a number and the event time.
fn event(key: String, value: &str) -> Event {
    let (number, time) = value.split_once('@').unwrap();
    (key, number.parse().unwrap(), time.parse().unwrap())
}

/// What the operators tell, batch after batch: plain and without a thought about restarts.
#[derive(Default)]
struct Model {
    batches: Vec<(i64, Vec<Pair>)>,
    updated: BTreeMap<String, (i64, u32)>,
    windows: BTreeMap<String, i64>,
    /// A key's state, and when it last came.
    mapped: BTreeMap<String, (i64, i64)>,
    /// Windows over event time that are open, by start and key.
    open: BTreeMap<(i64, String), i64>,
    highest: Option<i64>,
}

fn text<T: Debug>(items: impl IntoIterator<Item = T>) -> String {
    let mut lines: Vec<String> = items.into_iter().map(|item| format!("{item:?}\n")).collect();
    lines.sort();
    lines.concat()
}

impl Model {
    /// The next batch: what each operator tells with it; the windowed ones only if it is one of a slide.
    fn batch(&mut self, time: i64, events: &[Event], slides: bool) -> Vec<(&'static str, String)> {
        let records: Vec<Pair> = events.iter().map(|(key, value, _)| (key.clone(), *value)).collect();
        let mut told = self.states(time, &records);
        told.extend(self.event_time(events));
        self.batches.push((time, records));
        if slides {
            told.extend(self.slide(time));
        }
        told
    }

    /// The watermark is that of the batches before.
    fn event_time(&mut self, events: &[Event]) -> Vec<(&'static str, String)> {
        let watermark = self.highest.map_or(i64::MIN, |highest| highest - LATENESS_MS);
        let over = |start: i64| start + EVENT_WINDOW_MS <= watermark;
        let closed: Vec<_> = self.open.extract_if(.., |(start, _), _| over(*start)).collect();
        let mut late = Vec::new();
        for event in events {
            let (key, value, time) = event;
            self.highest = self.highest.max(Some(*time));
            let start = time - time.rem_euclid(EVENT_WINDOW_MS);
            match over(start) {
                true => late.push(event),
                false => *self.open.entry((start, key.clone())).or_insert(0) += value,
            }
        }
        let closed = closed.into_iter().map(|((start, key), sum)| (start, key, sum));
        vec![("event_windows", text(closed)), ("late", text(late))]
    }

    fn slide(&mut self, time: i64) -> Vec<(&'static str, String)> {
        let inside = self.batches.iter().filter(|(other, _)| *other > time - LENGTH_MS);
        let inside: Vec<&Pair> = inside.flat_map(|(_, records)| records).collect();
        let (mut by_key, mut by_value) = (BTreeMap::new(), BTreeMap::new());
        let mut grouped: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (key, value) in &inside {
            grouped.entry(key.clone()).or_default().push(*value);
            *by_key.entry(key.clone()).or_insert(0) += value;
            *by_value.entry(*value).or_insert(0_u64) += 1;
        }
        self.windows.extend(by_key.iter().map(|(key, value)| (key.clone(), *value)));
        self.windows.retain(|key, _| by_key.contains_key(key));
        grouped.values_mut().for_each(|values| values.sort_unstable());
        let sum = inside.iter().map(|(_, value)| *value).reduce(|a, b| a + b);
        vec![
            ("window", text(&inside)),
            ("count_by_window", text([inside.len()])),
            ("reduce_by_window", text(sum)),
            ("count_by_value_and_window", text(&by_value)),
            ("reduce_by_key_and_window", text(&by_key)),
            ("with_inverse", text(&by_key)),
            ("group_by_key_and_window", text(&grouped)),
            ("state_of_windows", text(&self.windows)),
        ]
    }

    fn states(&mut self, time: i64, records: &[Pair]) -> Vec<(&'static str, String)> {
        let came: BTreeSet<&String> = records.iter().map(|(key, _)| key).collect();
        for (_, (_, idle)) in self.updated.iter_mut().filter(|(key, _)| !came.contains(key)) {
            *idle += 1;
        }
        self.updated.retain(|_, (_, idle)| *idle <= IDLE_MAX);
        let mut mapped = Vec::new();
        for (key, value) in records {
            let updated = self.updated.entry(key.clone()).or_default();
            *updated = (updated.0 + value, 0);
            let state = match (self.mapped.remove(key), value) {
                (Some(_), 0) => None,
                (before, value) => Some(before.map_or(0, |(sum, _)| sum) + value),
            };
            self.mapped.extend(state.map(|sum| (key.clone(), (sum, time))));
            mapped.push((key.clone(), Some(*value), state, false));
        }
        let away = |came: i64| came < time - TIMEOUT_MS;
        let left = self.mapped.iter().filter(|(_, (_, came))| away(*came));
        mapped.extend(left.map(|(key, (sum, _))| (key.clone(), None, Some(*sum), true)));
        self.mapped.retain(|_, (_, came)| !away(*came));
        let snapshot = self.mapped.iter().map(|(key, (sum, _))| (key, sum));
        vec![
            ("update_state_by_key", text(&self.updated)),
            ("map_with_state", text(mapped)),
            ("state_snapshots", text(snapshot)),
        ]
    }
}

/// Numbers that look as if they were random.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The store, as a URL for each seed.
type Store<'a> = &'a dyn Fn(u64) -> String;

struct Input {
    brokers: String,
    topic: String,
    /// The records by partition, in the order of offsets.
    records: Vec<Vec<Event>>,
}

impl Input {
    async fn new(kafka: &Kafka) -> Self {
        let topic = kafka.topic(PARTITIONS).await;
        let mut seed = 1;
        let mut records = Vec::new();
        for partition in 0..PARTITIONS {
            for n in 0..RECORDS_EACH {
                // Now and then a key that comes seldom, and a zero.
                let key =
                    if random(&mut seed).is_multiple_of(29) { 9 } else { random(&mut seed) % 5 + u64::from(n > 200) };
                let value = random(&mut seed) % 7;
                let time = 5 * n + i64::try_from(random(&mut seed) % 240).unwrap() - 120;
                records.push(record(format!("{value}@{time}")).key(format!("k{key}")).partition(partition));
            }
        }
        kafka.produce(&topic, records).await;
        let seen = kafka.recount(&topic).await;
        let of = |partition: i32| {
            let mut of: Vec<&Seen> = seen.iter().filter(|seen| seen.partition == partition).collect();
            of.sort_by_key(|seen| seen.offset);
            assert_eq!(of.len(), usize::try_from(RECORDS_EACH).unwrap());
            let event = |seen: &Seen| event(seen.key.clone().unwrap(), seen.value.as_deref().unwrap());
            of.into_iter().map(event).collect()
        };
        let records = (0..PARTITIONS).map(of).collect();
        Self { brokers: kafka.brokers().to_owned(), topic, records }
    }

    fn of(&self, batch: &LedgerBatch) -> Vec<Event> {
        let mut records = Vec::new();
        for range in &batch.ranges {
            let of = &self.records[usize::try_from(range.range.partition()).unwrap()];
            let at = |offset: directstream::Offset| usize::try_from(offset.get()).unwrap();
            records.extend_from_slice(&of[at(range.range.from_offset)..at(range.range.until_offset)]);
        }
        records
    }
}

/// One seed: killed again and again, then run to the end. How many batches it took, and how many files were compared.
async fn one_seed(seed: u64, input: &Input, store: Store<'_>) -> (usize, usize) {
    let folder = tempfile::tempdir().unwrap();
    let (url, application) = (store(seed), format!("restarts-{seed}"));
    let run = |failpoints: &str| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([TEST, "--exact", "--ignored", "--nocapture"]).env("DIRECTSTREAM_LOG", "warn");
        command.env("RESTARTS_STORE", &url).env("RESTARTS_APPLICATION", &application);
        command.env("RESTARTS_TOPIC", &input.topic).env("RESTARTS_KAFKA", &input.brokers);
        command.env("RESTARTS_FOLDER", folder.path()).env("FAILPOINTS", failpoints);
        Process::start(command, folder.path().join("stderr"))
    };
    let mut random_of = seed;
    for _ in 0..KILLS {
        let arrow = ARROWS[usize::try_from(random(&mut random_of) % ARROWS.len() as u64).unwrap()];
        let passes = 1 + random(&mut random_of) % 11;
        let mut killed = run(&format!("{arrow}={passes}*off->1*return(kill)->off"));
        let status = crate::support::wait_for("the process is killed", LIMIT, async || killed.status()).await;
        assert_eq!(status.signal(), Some(9), "seed {seed}, {arrow}, {passes}: {status} {}", killed.told());
    }
    let mut last = run("");
    let status = crate::support::wait_for("the process ends", LIMIT, async || last.status()).await;
    assert!(status.success(), "seed {seed}: {status} {}", last.told());

    let mut look = Inspector::open(&url.parse().unwrap(), &application).await.unwrap();
    let batches = look.batches(u32::MAX).await.unwrap();
    let file = |name: &str, time: i64| fs::read_to_string(folder.path().join(format!("{name}-{time}"))).ok();
    let times: Vec<i64> = batches.iter().map(|batch| batch.batch_time.as_ms()).collect();
    // There is always something in the windows, so no tick is left out, also none at which no process lived.
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == INTERVAL_MS), "seed {seed}: {times:?}");
    let first_slide = times.iter().find(|time| file("window", **time).is_some()).unwrap();
    let mut model = Model::default();
    let mut compared = 0;
    for (batch, time) in batches.iter().zip(&times) {
        let slides = (time - first_slide) % SLIDE_MS == 0;
        for (name, expected) in model.batch(*time, &input.of(batch), slides) {
            let found = file(name, *time);
            assert_eq!(
                found.as_deref(),
                Some(&*expected),
                "seed {seed}, {name}, batch {} of {times:?}",
                batch.batch_seq
            );
            compared += 1;
        }
        assert_eq!(file("window", *time).is_some(), slides, "seed {seed}, batch {}", batch.batch_seq);
    }
    let read: u64 = batches.iter().map(|batch| batch.records).sum();
    assert_eq!(i64::try_from(read).unwrap(), RECORDS_EACH * i64::from(PARTITIONS), "seed {seed}");
    (batches.len(), compared)
}

async fn with_many_seeds(name: &str, store: impl Fn(u64) -> String) {
    let kafka = shared_kafka().await;
    let input = Input::new(&kafka).await;
    let seeds = stream::iter(0..SEEDS).map(|seed| one_seed(seed, &input, &store)).buffer_unordered(AT_A_TIME);
    let (batches, files) = seeds.fold((0, 0), async |all, one| (all.0 + one.0, all.1 + one.1)).await;
    eprintln!("{name}: {SEEDS} seeds, {} kills, {batches} batches, {files} outputs equal", SEEDS * KILLS);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_windowed_and_stateful_operator_survives_restarts_with_postgres() {
    let database = fresh_database().await;
    let url = database.url().to_owned();
    with_many_seeds("PostgreSQL", move |_| url.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_windowed_and_stateful_operator_survives_restarts_with_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    with_many_seeds("SQLite", move |seed| format!("sqlite:{}", path.join(format!("{seed}.db")).display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_windowed_and_stateful_operator_survives_restarts_with_a_checkpoint_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    with_many_seeds("checkpoint folder", move |_| format!("checkpoint:{}", path.join("store").display())).await;
}
