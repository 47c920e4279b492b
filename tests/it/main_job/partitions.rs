//! A topic with a thousand partitions, most of them idle.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use directstream::{
    Offset, TopicPartition,
    clock::SystemClock,
    kafka::{IsolationLevel, KafkaProperties, OffsetLookup},
    plan::{Limits, Position, Rates, RecordSize, plan_batch},
};

use super::{
    job::{Job, LIMIT},
    tables::Tables,
};
use crate::support::{JobFile, Kafka, Process, record, shared_kafka, wait_until};

const PARTITIONS: i32 = 1000;
const BUSY: i32 = 50;
const RECORDS_EACH: i32 = 1000;
/// How long a start may take that drains the busy partitions, on two busy cores.
const COLD_START_MAX: Duration = Duration::from_secs(5);
/// How long asking and planning may take, the quickest of many times: what other tests do at the same time makes most of them
/// slower, and none of them quicker.
const PLAN_MAX: Duration = Duration::from_millis(30);
const PLANS: usize = 21;
const PLAN_PATIENCE: Duration = Duration::from_secs(60);
/// A budget that has room for a quarter of the partitions at once.
const SMALL: u64 = 64 * 1024 * 1024;
/// What the process may have in memory besides: the program itself, its clients' partitions and threads, what an allocator
/// keeps.
const BESIDES: u64 = 64 * 1024 * 1024;

const COUNTS: &str = r#"
[[output]]
table = "counts"
create = true
mode = "upsert"
key = ["part"]
[output.columns]
part = { from = "partition", type = "bigint" }
n = { from = "one", type = "bigint", merge = "add" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_start_drains_fifty_of_a_thousand_partitions() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(PARTITIONS).await;
    let busy = (0..BUSY).flat_map(|busy| {
        let partition = busy * (PARTITIONS / BUSY);
        (0..RECORDS_EACH).map(move |n| record(format!(r#"{{"n":{n}}}"#)).partition(partition))
    });
    kafka.produce(&topic, busy.collect()).await;
    let mut times = plan_times(&kafka, &topic);
    // Beside tests that need the whole machine there may be no quick one among the first.
    let began = Instant::now();
    while times[0] >= PLAN_MAX && began.elapsed() < PLAN_PATIENCE {
        times = plan_times(&kafka, &topic);
    }
    eprintln!("asking and planning {PARTITIONS} partitions: {:?}, median {:?}", times[0], times[times.len() / 2]);
    assert!(times[0] < PLAN_MAX, "{times:?}");

    let tables = Tables::sqlite();
    let folder = tempfile::tempdir().unwrap();
    let job = JobFile::new(kafka.brokers(), &topic, &tables.url()).name("cold").stream("");
    let job = job.outputs(COUNTS).write(folder.path());
    let started = Instant::now();
    assert_eq!(Process::run(&job, &["--until-latest"]).code(Duration::from_secs(120)).await, 0);
    let took = started.elapsed();
    eprintln!("cold start and {} records of {BUSY} partitions: {took:?}", BUSY * RECORDS_EACH);
    let expected: BTreeMap<i64, i64> =
        (0..BUSY).map(|busy| (i64::from(busy * (PARTITIONS / BUSY)), i64::from(RECORDS_EACH))).collect();
    assert_eq!(tables.counts().await, expected);
    assert!(took < COLD_START_MAX, "{took:?}");
    all_by_turns(&kafka, &topic).await;
}

/// All partitions have records now, 30 MB of them, which take up several times as much in a client: more than the process may have.
async fn all_by_turns(kafka: &Kafka, topic: &str) {
    const EACH: i32 = 30;
    let records = (0..PARTITIONS).flat_map(|partition| (0..EACH).map(move |n| (partition, partition * EACH + n)));
    let records = records.map(|(partition, n)| record(incompressible(n)).partition(partition)).collect();
    let places = kafka.produce(topic, records).await;
    let job = Job::new(kafka, topic, "");
    let started = Instant::now();
    let mut running = job.start(&["stream.memory_max=64MiB"]);
    let all = i64::try_from(places.len()).unwrap() + i64::from(BUSY * RECORDS_EACH);
    let mut most = 0;
    wait_until("all is committed", LIMIT, async || {
        running.runs();
        most = most.max(resident_bytes(running.id()));
        job.tables.committed().await == Some(all)
    })
    .await;
    eprintln!(
        "{all} records of {PARTITIONS} partitions in {} MiB: {:?}, {} MiB resident",
        SMALL >> 20,
        started.elapsed(),
        most >> 20
    );
    drop(running);
    let read = job.tables.places().await;
    assert_eq!(i64::try_from(read.len()).unwrap(), all);
    assert!(read.windows(2).all(|pair| pair[0] < pair[1]), "a record is doubled");
    assert!(most < SMALL + BESIDES, "{} MiB", most >> 20);
}

/// 1,000 hexadecimal digits, which compress to half of that: what lies in the log is about what is read.
fn incompressible(seed: i32) -> String {
    let mut state = u64::from(seed.cast_unsigned()) + 1;
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..1_000 / 16).map(|_| format!("{:016x}", next())).collect()
}

/// The most that the process ever had in memory.
pub(super) fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    // One that has just ended has no such line.
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or(0, |line| line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024)
}

/// What every interval does before it reads: ids, latest and earliest offsets of all partitions, and the plan.
fn plan_times(kafka: &Kafka, topic: &str) -> Vec<Duration> {
    let properties = KafkaProperties::new(kafka.brokers(), "plan", BTreeMap::new());
    let lookup = OffsetLookup::new(&properties, SystemClock::shared()).unwrap();
    let partitions: Vec<TopicPartition> =
        (0..PARTITIONS).map(|partition| TopicPartition::new(topic, partition)).collect();
    let positions: Vec<Position> = partitions
        .iter()
        .map(|topic_partition| Position {
            topic_partition: topic_partition.clone(),
            expected_topic_id: None,
            topic_id: None,
            expected: Some(Offset::ZERO),
            from: Offset::ZERO,
            latest_epoch: None,
        })
        .collect();
    let (rates, record_size) = (Rates::default(), RecordSize::new());
    let limits = Limits {
        batch_interval: Duration::from_secs(1),
        rates: &rates,
        memory_bytes: None,
        record_size: &record_size,
        stop_at: None,
    };
    // A partition of a topic that was made just now answers as soon as its leader is one.
    let answered = || {
        lookup
            .latest(&partitions, IsolationLevel::ReadCommitted)
            .iter()
            .filter_map(|told| told.outcome.offset())
            .count()
    };
    let started = Instant::now();
    while answered() < partitions.len() {
        assert!(started.elapsed() < LIMIT, "not every partition has a leader");
    }
    let plan_time = || {
        let started = Instant::now();
        assert_eq!(lookup.topic_ids(&[topic]).len(), 1);
        let [latest, earliest] = lookup.latest_and_earliest(&partitions, IsolationLevel::ReadCommitted);
        let latest: BTreeMap<_, _> =
            latest.into_iter().filter_map(|told| Some((told.topic_partition, told.outcome.offset()?))).collect();
        let earliest = earliest.iter().filter(|told| told.outcome.offset().is_some()).count();
        assert_eq!((latest.len(), earliest), (1000, 1000));
        assert_eq!(plan_batch(&positions, &latest, &limits).count(), 50_000);
        started.elapsed()
    };
    let mut times: Vec<Duration> = (0..PLANS).map(|_| plan_time()).collect();
    times.sort_unstable();
    times
}
