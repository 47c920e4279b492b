//! The program is killed with SIGKILL at random moments; the tables equal what Kafka's console consumer gives.
//!
//! The same test is the long storm: `scripts/storm` runs it with more records and kills.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    process::Process,
    tables::{Event, Tables},
};
use crate::support::{End, Kafka, kafka::Record, record, shared_kafka, wait_for};

const PARTITIONS: i64 = 8;
const USERS: i64 = 1000;
/// A record without its own transaction, in a hundred.
const PLAIN_PERCENT: i64 = 60;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// A small generator of pseudo-random numbers (xorshift64*), so that a seed tells the whole run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_in_postgres_equal_kafka_after_kills_at_random_moments() {
    survive(Tables::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_in_sqlite_equal_kafka_after_kills_at_random_moments() {
    survive(Tables::sqlite()).await;
}

async fn survive(tables: Tables) {
    let records = setting("DIRECTSTREAM_STORM_RECORDS", 60_000);
    let kills = setting("DIRECTSTREAM_STORM_KILLS", 4);
    let seed = setting("DIRECTSTREAM_STORM_SEED", u64::from(std::process::id()));
    eprintln!("seed {seed}, {records} records, {kills} kills, {}", tables.url().split(':').next().unwrap_or_default());
    let mut random = Random(seed | 1);
    let kafka = shared_kafka().await;
    let topic = kafka.topic(i32::try_from(PARTITIONS).unwrap()).await;
    produce(&kafka, &topic, i64::try_from(records).unwrap()).await;

    let folder = tempfile::tempdir().unwrap();
    let job = job_file(folder.path().join("job.toml"), &kafka, &topic, &tables, records);
    let ends = ends(&kafka, &topic).await;
    let total = u64::try_from(ends.values().sum::<i64>()).unwrap();
    let (mut hits, mut early) = (0, false);
    for kill in 0..kills {
        // Somewhere in the kill-th of even parts, the last two of which are left for the end.
        let part = total / (kills + 2);
        let moment = kill * part + random.below(part);
        let mut process = Process::run(&job, &["--until-latest"]);
        wait_for("the program commits", Duration::from_secs(120), async || {
            let through = process.ended().is_some();
            (through || tables.committed().await >= i64::try_from(moment).unwrap()).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_micros(random.below(20_000))).await;
        let committed = u64::try_from(tables.committed().await).unwrap();
        let lived = process.kill();
        if !lived || committed >= total {
            // On a machine that stood still in between, the job may be through: this kill says nothing, and no later one would.
            break;
        }
        hits += 1;
        early |= committed < total / 5 * 4;
    }
    assert!(hits * 2 >= kills && (early || kills == 0), "{hits} of {kills} kills fell while work was left");
    assert_eq!(Process::run(&job, &["--until-latest"]).code(Duration::from_secs(300)).await, 0);
    compare(&kafka, &topic, &tables, &ends).await;
}

/// Numbered records: each user's in one partition, some plain and some in transactions of which a tenth abort.
async fn produce(kafka: &Kafka, topic: &str, records: i64) {
    const TRANSACTION: usize = 500;
    let numbered = |id: i64| -> Record {
        let user = id * 7919 % USERS;
        let value = format!(r#"{{"id":{id},"user":"user-{user}","amount":{},"note":"some text to carry"}}"#, id % 97);
        record(value).partition(i32::try_from(user % PARTITIONS).unwrap())
    };
    let plain = records * PLAIN_PERCENT / 100;
    // In pieces, so that plain and transactional records are mixed in every partition.
    let mut transactions = 0;
    let piece = 50_000;
    for start in (0..records).step_by(piece) {
        let end = (start + i64::try_from(piece).unwrap()).min(records);
        let middle = start + (end - start) * plain / records;
        kafka.produce(topic, (start..middle).map(numbered).collect()).await;
        let inside: Vec<Record> = (middle..end).map(numbered).collect();
        let chunks = inside.chunks(TRANSACTION).map(|chunk| {
            transactions += 1;
            let end = if transactions % 10 == 0 { End::Abort } else { End::Commit };
            (end, chunk.to_vec())
        });
        kafka.transactions(topic, chunks.collect()).await;
    }
}

/// Many batches, so that kills fall on all of them: by the smallest budget, and where that is not small enough by a rate.
fn job_file(path: PathBuf, kafka: &Kafka, topic: &str, tables: &Tables, records: u64) -> PathBuf {
    let each = records / u64::try_from(PARTITIONS).unwrap();
    let rate = if records < 500_000 { format!("max_rate_per_partition = {}", each.div_ceil(6)) } else { String::new() };
    let text = format!(
        r#"name = "kills"
[kafka]
bootstrap_servers = "{}"
topics = ["{topic}"]
[stream]
batch_interval = "20ms"
memory_max = "16MiB"
{rate}
[store]
url = "{}"
[report]
listen = "off"
[[output]]
table = "events"
create = true
mode = "append"
[output.columns]
part = {{ from = "partition", type = "bigint" }}
off = {{ from = "offset", type = "bigint" }}
id = {{ from = "value:/id", type = "bigint" }}
usr = {{ from = "value:/user", type = "text" }}
amount = {{ from = "value:/amount", type = "bigint" }}
[[output]]
table = "latest"
create = true
mode = "upsert"
key = ["usr"]
[output.columns]
usr = {{ from = "value:/user", type = "text" }}
id = {{ from = "value:/id", type = "bigint" }}
[[output]]
table = "totals"
create = true
mode = "upsert"
key = ["usr"]
[output.columns]
usr = {{ from = "value:/user", type = "text" }}
total = {{ from = "value:/amount", type = "bigint", merge = "add" }}
n = {{ from = "one", type = "bigint", merge = "add" }}
"#,
        kafka.brokers(),
        tables.url(),
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// The stable end of each partition.
async fn ends(kafka: &Kafka, topic: &str) -> BTreeMap<i64, i64> {
    let mut ends = BTreeMap::new();
    for partition in 0..PARTITIONS {
        ends.insert(partition, kafka.offsets(topic, i32::try_from(partition).unwrap()).await.1);
    }
    ends
}

/// The tables against another client's reading of the topic.
async fn compare(kafka: &Kafka, topic: &str, tables: &Tables, ends: &BTreeMap<i64, i64>) {
    let (mut events, mut latest, mut totals) = (Vec::new(), BTreeMap::new(), BTreeMap::<String, (i64, i64)>::new());
    for seen in kafka.recount(topic).await {
        let value: serde_json::Value = serde_json::from_str(&seen.value.unwrap()).unwrap();
        let (id, amount) = (value["id"].as_i64().unwrap(), value["amount"].as_i64().unwrap());
        let user = value["user"].as_str().unwrap().to_owned();
        let total = totals.entry(user.clone()).or_default();
        *total = (total.0 + amount, total.1 + 1);
        latest.insert(user.clone(), id);
        events.push((i64::from(seen.partition), seen.offset, id, user, amount));
    }
    let found = tables.events().await;
    let (missing, doubled) = difference(&events, &found);
    assert_eq!((missing, doubled), (0, 0), "missing and doubled rows of {}", events.len());
    assert_eq!(tables.totals().await, totals);
    assert_eq!(tables.latest().await, latest);
    contiguous(tables, ends, events.len()).await;
    eprintln!("{} rows equal Kafka; 0 missing, 0 doubled", events.len());
}

/// How many of the sorted `expected` rows are not among the sorted `found` ones, and how many found ones are too many.
fn difference(expected: &[Event], found: &[Event]) -> (usize, usize) {
    let mut counts = BTreeMap::<&Event, i64>::new();
    expected.iter().for_each(|row| *counts.entry(row).or_default() += 1);
    found.iter().for_each(|row| *counts.entry(row).or_default() -= 1);
    (counts.values().filter(|n| **n > 0).count(), counts.values().filter(|n| **n < 0).count())
}

/// I3: batches without a hole, ranges that continue one another, up to the topic's end; every offset a record or a gap.
async fn contiguous(tables: &Tables, ends: &BTreeMap<i64, i64>, rows: usize) {
    let mut at = BTreeMap::new();
    let mut last = 0;
    let (mut records, mut batches) = (0, 0);
    for (seq, partition, from, until, found, gaps) in tables.ranges().await {
        assert_eq!(at.insert(partition, until).unwrap_or(0), from, "batch {seq}, partition {partition}");
        assert!(seq == last || seq == last + 1, "no batch between {last} and {seq}");
        assert_eq!(found + gaps, until - from, "batch {seq}, partition {partition}");
        batches += seq - last;
        last = seq;
        records += found;
    }
    assert_eq!(usize::try_from(records).unwrap(), rows);
    assert_eq!(&at, ends);
    assert_eq!(&tables.offsets().await, ends);
    assert!(batches > 1, "one batch only: nothing was interrupted");
}

#[test]
fn the_comparison_sees_a_missing_and_a_doubled_row() {
    let row = |offset| (0, offset, offset, "user".to_owned(), 1);
    assert_eq!(difference(&[row(0), row(1)], &[row(0), row(1)]), (0, 0));
    assert_eq!(difference(&[row(0), row(1)], &[row(0)]), (1, 0));
    assert_eq!(difference(&[row(0)], &[row(0), row(0)]), (0, 1));
}
