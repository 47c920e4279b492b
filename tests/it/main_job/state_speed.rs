//! What state costs: a million keys, of which a hundred thousand come with each batch of a second.

use std::time::Duration;

use directstream::{
    commit::Inspector,
    stream::{DirectStream, StreamingContext, Termination},
    transform::{Append, State, StateSpec},
    types::ColumnType,
};

use super::tables::Tables;
use crate::support::{record, shared_kafka};

const INTERVAL: Duration = Duration::from_secs(1);
const PARTITIONS: i32 = 4;
const KEYS: u64 = 1_000_000;
const A_BATCH: u64 = 100_000;
/// Batches that touch known keys, after those in which all of them come for the first time.
const BATCHES: u64 = 20;

async fn costs(tables: Tables) {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(PARTITIONS).await;
    for batch in 0..KEYS / A_BATCH + BATCHES {
        let key = |n: u64| {
            let number = batch * A_BATCH + n;
            // At first one after the other, then from all over: a multiplier without a common factor with the keys' number.
            if number < KEYS { number } else { number.wrapping_mul(7_919_999) % KEYS }
        };
        let one = |n: u64| {
            let partition = i32::try_from(n).unwrap() % PARTITIONS;
            record("1").key(format!("key-{:07}", key(n))).partition(partition)
        };
        kafka.produce(&topic, (0..A_BATCH).map(one).collect()).await;
    }
    let context = StreamingContext::builder("state-speed", INTERVAL)
        .store(&tables.url())
        .unwrap()
        .max_rate_per_partition(A_BATCH / u64::try_from(PARTITIONS).unwrap())
        .until_latest(true)
        .build()
        .unwrap();
    let records = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(kafka.brokers())).unwrap();
    let keyed = records.map(|record| (String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned(), 1_u64));
    let counts = keyed.map_with_state(StateSpec::function(|_: &String, one, count: &mut State<u64>| {
        let now = count.get().copied().unwrap_or(0) + one.unwrap_or(0);
        count.update(now);
        now
    }));
    let touched = counts.count().map(|touched| (i64::try_from(touched).unwrap_or(i64::MAX),));
    touched.save_to_table(Append::into("touched").typed_column("touched", ColumnType::BigInt).create()).unwrap();
    context.start().await.unwrap();
    assert_eq!(context.await_termination().await.unwrap(), Termination::ReachedLatest);

    let mut look = Inspector::open(&tables.url().parse().unwrap(), "state-speed").await.unwrap();
    let batches = look.batches(u32::MAX).await.unwrap();
    // The very first batch is cut short, before it is known how large records are, and so is the last one.
    let known = usize::try_from(KEYS / A_BATCH).unwrap() + 1;
    let touching: Vec<_> = batches[known..].iter().filter(|batch| batch.records == A_BATCH).collect();
    assert!(touching.len() + 3 > usize::try_from(BATCHES).unwrap(), "{} batches", touching.len());
    let mut took: Vec<i64> = touching.iter().map(|batch| batch.committed_at_ms - batch.processing_started_ms).collect();
    took.sort_unstable();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    eprintln!("{} batches of {A_BATCH} of {KEYS} keys: median {median} ms, longest {longest} ms", took.len());
    assert!(median < i64::try_from(INTERVAL.as_millis()).unwrap() / 2, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, for an idle machine: scripts/bench runs it"]
async fn a_million_keys_in_postgres() {
    costs(Tables::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, for an idle machine: scripts/bench runs it"]
async fn a_million_keys_in_sqlite() {
    costs(Tables::sqlite()).await;
}
