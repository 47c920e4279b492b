//! The program is killed with SIGKILL at random moments; the tables equal what Kafka's console consumer gives.
//!
//! The same test is the long storm: `scripts/storm` runs it with more records and kills.

use std::{path::PathBuf, time::Duration};

use super::{process::Process, recount::Recount, tables::Tables};
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
    let recount = Recount::of(&kafka, &topic, PARTITIONS).await;
    let total = u64::try_from(recount.end()).unwrap();
    let (mut hits, mut early) = (0, false);
    for kill in 0..kills {
        // Somewhere in the kill-th of even parts, the last two of which are left for the end.
        let part = total / (kills + 2);
        let moment = kill * part + random.below(part);
        let mut process = Process::run(&job, &["--until-latest"]);
        wait_for("the program commits", Duration::from_secs(120), async || {
            let through = process.ended().is_some();
            let enough = |committed| committed >= i64::try_from(moment).unwrap();
            (through || tables.committed().await.is_some_and(enough)).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_micros(random.below(20_000))).await;
        let committed = wait_for("a look", Duration::from_secs(120), async || tables.committed().await).await;
        let committed = u64::try_from(committed).unwrap();
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
    recount.compare(&tables).await;
    eprintln!("{} rows equal Kafka; 0 missing, 0 doubled", recount.rows());
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
