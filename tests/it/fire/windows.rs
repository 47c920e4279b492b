//! Windows of a program that is killed again and again: each is told once, with what Kafka and the ledger say it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    time::Duration,
};

use crate::{
    main_job::tables::Tables,
    support::{Process, Seen, example_program, record, shared_kafka, unique, wait_until},
};

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 3;
const KILLS: i64 = 6;
/// As in the example.
const WINDOW_MS: i64 = 2_000;
const SLIDE_MS: i64 = 400;
const INTERVAL_MS: i64 = 200;

/// Milliseconds since 1970 of a time column.
pub(super) fn ms(tables: &Tables, column: &str) -> String {
    match tables {
        Tables::Postgres(_) => format!("CAST(extract(epoch FROM {column}) * 1000 AS bigint)"),
        Tables::Sqlite(_) => {
            format!("CAST(strftime('%s', {column}) AS bigint) * 1000 + CAST(substr({column}, 21, 3) AS bigint)")
        }
    }
}

/// Numbers and times of the ledger's batches.
pub(super) async fn batches(tables: &Tables) -> BTreeMap<i64, i64> {
    let sql = format!("SELECT batch_seq, {} FROM {}", ms(tables, "batch_time"), tables.own("batches"));
    let rows: sqlx::Result<Vec<(i64, i64)>> = tables.rows(sql).await;
    rows.map(|rows| rows.into_iter().collect()).unwrap_or_default()
}

async fn windows_survive(tables: Tables) {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(PARTITIONS).await;
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let mut program = Command::new(example_program("windowed_counts"));
        program.env("BOOTSTRAP_SERVERS", kafka.brokers()).env("DATABASE_URL", tables.url());
        program.env("TOPIC", &topic).env("RUN_ON", "1").env("DIRECTSTREAM_LOG", "warn");
        Process::start(program, folder.path().join(unique("stderr")))
    };
    let mut produced = 0;
    let mut running = start();
    for round in 0..=KILLS {
        let order = |n: i64| record("order").key(format!("customer-{}", (n * n + round) % 7));
        let orders = (0..40 + round * 10).map(order).collect::<Vec<_>>();
        produced += i64::try_from(orders.len()).unwrap();
        kafka.produce(&topic, orders).await;
        wait_until("the orders are committed", LIMIT, async || tables.committed().await == Some(produced)).await;
        let reached = batches(&tables).await.len();
        if round < KILLS {
            // Some batches later the orders are still in the windows, and in those that come after the restart.
            let later = reached + usize::try_from(round).unwrap() + 1;
            wait_until("some windows are told", LIMIT, async || batches(&tables).await.len() >= later).await;
            assert!(running.kill(), "it was alive");
            running = start();
        }
    }
    // Nothing is left in any window: there are no more batches.
    let drained = async || {
        let last_data = tables.ranges().await.last().unwrap().0;
        let batches = batches(&tables).await;
        *batches.values().last().unwrap() >= batches[&last_data] + WINDOW_MS
    };
    wait_until("the windows are empty", LIMIT, drained).await;
    drop(running);
    recount(&tables, &kafka.recount(&topic).await).await;
}

async fn recount(tables: &Tables, orders: &[Seen]) {
    let batches = batches(tables).await;
    let times: BTreeSet<i64> = batches.values().copied().collect();
    let (first, last) = (*times.first().unwrap(), *times.last().unwrap());
    // As long as a window has orders the next batch is that of the next tick, also of one at which no process lived.
    let ticks: BTreeSet<i64> = (first..=last).step_by(usize::try_from(INTERVAL_MS).unwrap()).collect();
    assert_eq!(times, ticks);
    // The customer of each order, by the time of its batch.
    let ranges = tables.ranges().await;
    let mut by_time = Vec::new();
    for order in orders {
        let (partition, offset) = (i64::from(order.partition), order.offset);
        let inside =
            |range: &&(i64, i64, i64, i64, i64, i64)| range.1 == partition && (range.2..range.3).contains(&offset);
        let range = ranges.iter().find(inside).unwrap();
        by_time.push((batches[&range.0], order.key.clone().unwrap()));
    }
    let zero_ms = {
        let sql = format!("SELECT {} FROM {}", ms(tables, "zero_time"), tables.own("applications"));
        tables.rows::<(i64,)>(sql).await.unwrap()[0].0
    };
    let mut expected = BTreeMap::new();
    for end in ticks.iter().filter(|tick| (*tick - zero_ms) % SLIDE_MS == 0) {
        for (time, customer) in &by_time {
            if *time > end - WINDOW_MS && time <= end {
                *expected.entry((*end, customer.clone())).or_insert(0_i64) += 1;
            }
        }
    }
    let sql = "SELECT window_end_ms, customer, orders FROM window_counts ORDER BY window_end_ms, customer";
    let told: Vec<(i64, String, i64)> = tables.rows(sql.to_owned()).await.unwrap();
    let expected: Vec<_> = expected.into_iter().map(|((end, customer), orders)| (end, customer, orders)).collect();
    assert!(expected.len() > 100, "{}", expected.len());
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_window_is_told_once_and_right_however_often_the_process_is_killed_with_postgres() {
    windows_survive(Tables::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_window_is_told_once_and_right_however_often_the_process_is_killed_with_sqlite() {
    windows_survive(Tables::sqlite()).await;
}
