//! State of a program that is killed again and again, between and inside its batches: what it tells and what it stores are what
//! Kafka and the ledger say.

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt as _, process::Command, time::Duration};

use directstream::{commit::Inspector, types::SegmentKind};

use super::windows::{batches, ms};
use crate::{
    main_job::tables::Tables,
    support::{Process, Seen, example_program, record, shared_kafka, unique, wait_until},
};

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 3;
/// As in the example.
const AWAY_MS: i64 = 2_000;
const STATE_PARTITIONS: u32 = 16;
/// Where the program is killed while a batch is in hand, each time at another one; between these, from outside.
const ARROWS: [&str; 5] =
    ["transform::done", "commit::mid_write", "commit::before_commit", "commit::after_commit", "stream::acknowledge"];

/// A customer's orders, their sum, and the time of the batch of the last one.
type Customers = BTreeMap<String, (i64, i64, i64)>;
/// A row that the example writes: customer, orders, total, away.
type Told = (String, i64, i64, bool);

/// The state as it is stored, and the batch that it is of.
async fn stored(tables: &Tables) -> (i64, Customers) {
    // Right after a kill the file wants recovery: a look with the right to write does that.
    let mut inspector = Inspector::open(&tables.url().parse().unwrap(), "map-with-state-sessions").await.unwrap();
    let (last, partitions) = loop {
        let last = inspector.known().await.unwrap().batch_seq;
        let mut partitions = Vec::new();
        for partition in 0..STATE_PARTITIONS {
            partitions.push(inspector.state(1, partition).await.unwrap());
        }
        // The server may have gone on for a moment without its client.
        if inspector.known().await.unwrap().batch_seq == last {
            break (last, partitions);
        }
    };
    let mut customers = Customers::new();
    for segments in partitions {
        assert_eq!(segments[0].kind, SegmentKind::Base);
        // Each batch from the base on, to the last one.
        let numbers: Vec<u64> = segments.iter().map(|segment| segment.batch_seq).collect();
        assert_eq!(numbers, (numbers[0]..=last).collect::<Vec<_>>());
        for segment in segments {
            let mut entries = &segment.data[9..];
            for _ in 0..segment.keys {
                let entry: ((String, Option<((i64, i64), i64)>), &[u8]) = postcard::take_from_bytes(entries).unwrap();
                let ((customer, kept), rest) = entry;
                match kept {
                    Some(((orders, total), updated)) => customers.insert(customer, (orders, total, updated)),
                    None => customers.remove(&customer),
                };
                entries = rest;
            }
        }
    }
    (i64::try_from(last).unwrap(), customers)
}

async fn state_survives(tables: Tables) {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(PARTITIONS).await;
    let folder = tempfile::tempdir().unwrap();
    let start = |failpoints: &str| {
        let mut program = Command::new(example_program("map_with_state_sessions"));
        program.env("BOOTSTRAP_SERVERS", kafka.brokers()).env("DATABASE_URL", tables.url());
        program.env("TOPIC", &topic).env("RUN_ON", "1").env("DIRECTSTREAM_LOG", "warn").env("FAILPOINTS", failpoints);
        Process::start(program, folder.path().join(unique("stderr")))
    };
    let orders = |round: i64, count: i64| {
        // Customer 9 comes with every fourth round alone, and is away in between.
        let customer = move |n: i64| if round % 4 == 0 && n == 0 { 9 } else { (n * n + round) % 7 };
        let order = move |n: i64| record((n % 50 - 10).to_string()).key(format!("customer-{}", customer(n)));
        (0..count).map(order).collect::<Vec<_>>()
    };
    let mut produced = 0;
    let mut looks = Vec::new();
    for round in 0..2 * i64::try_from(ARROWS.len()).unwrap() {
        let inside = ARROWS[usize::try_from(round / 2).unwrap()];
        let failpoints = if round % 2 == 0 { format!("{inside}=3*off->1*return(kill)->off") } else { String::new() };
        let mut running = start(&failpoints);
        for part in 0..8 {
            let some = orders(round, 11 + part);
            produced += i64::try_from(some.len()).unwrap();
            kafka.produce(&topic, some).await;
            // A batch of its own for each part, as long as the program lives.
            wait_until("the part is committed, or the program killed", LIMIT, async || {
                running.has_ended() || tables.committed().await == Some(produced)
            })
            .await;
        }
        if round % 2 == 0 {
            let status = running.end(LIMIT).await;
            assert_eq!(status.signal(), Some(9), "it is killed inside a batch: {status}");
        } else {
            assert!(running.kill(), "it was alive");
        }
        looks.push(stored(&tables).await);
    }
    let running = start("");
    wait_until("the orders are committed", LIMIT, async || tables.committed().await == Some(produced)).await;
    // Everybody is away, and the last batch is the one that says so.
    let left = async || {
        let last_order = tables.ranges().await.last().unwrap().0;
        let batches = batches(&tables).await;
        *batches.values().last().unwrap() > batches[&last_order] + AWAY_MS
    };
    wait_until("the customers leave", LIMIT, left).await;
    assert!(running.kill(), "it was alive");
    looks.push(stored(&tables).await);
    assert!(looks.last().unwrap().1.is_empty(), "{:?}", looks.last());
    recount(&tables, &kafka.recount(&topic).await, &looks).await;
    // One row less, and it is not taken for what it was.
    let state = tables.own("state");
    tables
        .execute(&format!(
            "DELETE FROM {state} WHERE partition = 3 AND batch_seq IN (SELECT max(batch_seq) FROM {state})"
        ))
        .await;
    let log = folder.path().join("damaged");
    let mut program = Command::new(example_program("map_with_state_sessions"));
    program.env("BOOTSTRAP_SERVERS", kafka.brokers()).env("DATABASE_URL", tables.url()).env("TOPIC", &topic);
    let (code, told) = Process::start(program, log).ended().await;
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("the stored state is damaged") && told.contains("partition=3"), "{told}");
}

async fn recount(tables: &Tables, orders: &[Seen], looks: &[(i64, Customers)]) {
    let (times, ranges) = (batches(tables).await, tables.ranges().await);
    let mut told: Vec<Told> = Vec::new();
    let mut customers = Customers::new();
    let mut compared = 0;
    for (batch, time) in times {
        for (_, partition, from, until, ..) in ranges.iter().filter(|range| range.0 == batch) {
            let inside =
                |seen: &&Seen| i64::from(seen.partition) == *partition && (*from..*until).contains(&seen.offset);
            let mut inside: Vec<&Seen> = orders.iter().filter(inside).collect();
            inside.sort_by_key(|seen| seen.offset);
            for seen in inside {
                let name = seen.key.clone().unwrap();
                let customer = customers.entry(name.clone()).or_default();
                let amount: i64 = seen.value.clone().unwrap().parse().unwrap();
                *customer = (customer.0 + 1, customer.1 + amount, time);
                told.push((name, customer.0, customer.1, false));
            }
        }
        let away = |customer: &(i64, i64, i64)| customer.2 < time - AWAY_MS;
        told.extend(customers.iter().filter(|(_, c)| away(c)).map(|(name, c)| (name.clone(), c.0, c.1, true)));
        customers.retain(|_, customer| !away(customer));
        for (_, stored) in looks.iter().filter(|(last, _)| *last == batch) {
            assert_eq!(*stored, customers, "after batch {batch}");
            compared += 1;
        }
    }
    assert_eq!(compared, looks.len());
    let bool_of = if matches!(tables, Tables::Sqlite(_)) { "away <> 0" } else { "away" };
    let sql = format!("SELECT customer, orders, total, {bool_of} FROM map_with_state_sessions");
    let mut written: Vec<Told> = tables.rows(sql).await.unwrap();
    written.sort();
    told.sort();
    assert!(told.iter().filter(|row| row.3).count() > 7 && told.len() > 1_000, "{}", told.len());
    assert_eq!(written, told);
    // Each batch is on the grid.
    let zero = format!("SELECT {} FROM {}", ms(tables, "zero_time"), tables.own("applications"));
    let zero_ms = tables.rows::<(i64,)>(zero).await.unwrap()[0].0;
    assert!(batches(tables).await.values().all(|time| (time - zero_ms) % 200 == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn state_is_what_was_committed_however_often_the_process_is_killed_with_postgres() {
    state_survives(Tables::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_is_what_was_committed_however_often_the_process_is_killed_with_sqlite() {
    state_survives(Tables::sqlite()).await;
}
