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

use super::{process::Process, tables::Tables};
use crate::support::{Kafka, record, shared_kafka};

const PARTITIONS: i32 = 1000;
const BUSY: i32 = 50;
const RECORDS_EACH: i32 = 1000;
/// How long a start may take that drains the busy partitions, on two busy cores.
const COLD_START_MAX: Duration = Duration::from_secs(15);
/// How long a plan may take here. The figure itself is in `docs/benchmarks`; a busy test machine is not where it is measured.
const PLAN_MAX: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_start_drains_fifty_of_a_thousand_partitions() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(PARTITIONS).await;
    let busy = (0..BUSY).flat_map(|busy| {
        let partition = busy * (PARTITIONS / BUSY);
        (0..RECORDS_EACH).map(move |n| record(format!(r#"{{"n":{n}}}"#)).partition(partition))
    });
    kafka.produce(&topic, busy.collect()).await;
    let median = plan_times(&kafka, &topic);
    eprintln!("asking and planning {PARTITIONS} partitions: median {median:?}");
    assert!(median < PLAN_MAX, "{median:?}");

    let tables = Tables::sqlite();
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.toml");
    let text = format!(
        r#"name = "cold"
[kafka]
bootstrap_servers = "{}"
topics = ["{topic}"]
[store]
url = "{}"
[report]
listen = "off"
[[output]]
table = "counts"
create = true
mode = "upsert"
key = ["part"]
[output.columns]
part = {{ from = "partition", type = "bigint" }}
n = {{ from = "one", type = "bigint", merge = "add" }}
"#,
        kafka.brokers(),
        tables.url()
    );
    std::fs::write(&job, text).unwrap();
    let started = Instant::now();
    assert_eq!(Process::run(&job, &["--until-latest"]).code(Duration::from_secs(120)).await, 0);
    let took = started.elapsed();
    eprintln!("cold start and {} records of {BUSY} partitions: {took:?}", BUSY * RECORDS_EACH);
    let expected: BTreeMap<i64, i64> =
        (0..BUSY).map(|busy| (i64::from(busy * (PARTITIONS / BUSY)), i64::from(RECORDS_EACH))).collect();
    assert_eq!(tables.counts().await, expected);
    assert!(took < COLD_START_MAX, "{took:?}");
}

/// What every interval does before it reads: ids, latest and earliest offsets of all partitions, and the plan.
fn plan_times(kafka: &Kafka, topic: &str) -> Duration {
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
    while answered() < partitions.len() {}
    let mut times: Vec<Duration> = (0..21)
        .map(|_| {
            let started = Instant::now();
            assert_eq!(lookup.topic_ids(&[topic]).len(), 1);
            let latest = lookup.latest(&partitions, IsolationLevel::ReadCommitted);
            let earliest = lookup.earliest(&partitions, IsolationLevel::ReadCommitted);
            let latest: BTreeMap<_, _> =
                latest.into_iter().filter_map(|told| Some((told.topic_partition, told.outcome.offset()?))).collect();
            assert_eq!((latest.len(), earliest.len()), (1000, 1000));
            assert_eq!(plan_batch(&positions, &latest, &limits).count(), 50_000);
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}
