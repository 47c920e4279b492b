//! Windows over event time of a program that is killed again and again, between and inside its batches: each is told once, with
//! what Kafka and the ledger say it has, and what came too late is a dead letter.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt as _,
    process::Command,
    time::{Duration, SystemTime},
};

use super::windows::batches;
use crate::{
    main_job::tables::Tables,
    support::{Process, Record, Seen, example_program, record, shared_kafka, unique, wait_until},
};

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 3;
/// As in the example.
const MINUTE_MS: i64 = 60_000;
const LATENESS_MS: i64 = 30_000;
const AHEAD_MAX_MS: i64 = 60_000;
/// Parts in which the orders of a round come.
const PARTS: i64 = 8;
/// By how much event time goes on from part to part.
const STEP_MS: i64 = 23_000;
/// Where the program is killed while a batch is in hand, each time at another one; between these, from outside.
const ARROWS: [&str; 5] =
    ["transform::done", "commit::mid_write", "commit::before_commit", "commit::after_commit", "stream::acknowledge"];

/// Start of a minute, customer, orders, total.
type Minute = (i64, String, i64, i64);
type Minutes = BTreeMap<(i64, String), (i64, i64)>;

/// Some orders at about `now_ms` of event time: most within the allowed lateness, some later than that, one ahead of its time.
fn orders(seed: i64, now_ms: i64) -> Vec<Record> {
    let order = |n: i64| {
        let time = match n {
            // Far too late, or so late that it depends on how far its own batch has come.
            3 => now_ms - 600_000,
            5 | 6 => now_ms - LATENESS_MS - MINUTE_MS + 7_000 * (seed % 5),
            n => now_ms - (n * n * 977 + seed * 131) % LATENESS_MS,
        };
        record((n % 50 - 10).to_string()).key(format!("customer-{}", (n * n + seed) % 7)).timestamp(time)
    };
    (0..11 + seed % PARTS).map(order).collect()
}

async fn windows_survive(tables: Tables) {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(PARTITIONS).await;
    let folder = tempfile::tempdir().unwrap();
    let start = |failpoints: &str| {
        let mut program = Command::new(example_program("event_time"));
        program.env("BOOTSTRAP_SERVERS", kafka.brokers()).env("DATABASE_URL", tables.url());
        program.env("TOPIC", &topic).env("RUN_ON", "1").env("DIRECTSTREAM_LOG", "warn").env("FAILPOINTS", failpoints);
        Process::start(program, folder.path().join(unique("stderr")))
    };
    // Hours ago: a broker deletes what is older than its retention, and refuses what is far ahead.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now_ms = i64::try_from(now.as_millis()).unwrap();
    let mut event_ms = now_ms - 4 * 3_600_000;
    let mut produced = 0;
    for round in 0..2 * i64::try_from(ARROWS.len()).unwrap() {
        let inside = ARROWS[usize::try_from(round / 2).unwrap()];
        let failpoints = if round % 2 == 0 { format!("{inside}=3*off->1*return(kill)->off") } else { String::new() };
        let mut running = start(&failpoints);
        for part in 0..PARTS {
            event_ms += STEP_MS;
            let mut some = orders(round * PARTS + part, event_ms);
            if part == 4 {
                // A wrong clock: it must not end anybody's minutes.
                some.push(record("1").key("customer-0").timestamp(now_ms + 1_800_000));
            }
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
    }
    // An hour later: all minutes before are over, and a batch without records says so.
    let running = start("");
    kafka.produce(&topic, vec![record("1").key("customer-9").timestamp(event_ms + 3_600_000)]).await;
    produced += 1;
    wait_until("the orders are committed", LIMIT, async || tables.committed().await == Some(produced)).await;
    let told = async || {
        let last_order = tables.ranges().await.last().unwrap().0;
        *batches(&tables).await.last_key_value().unwrap().0 > last_order
    };
    wait_until("the last minutes are told", LIMIT, told).await;
    assert!(running.kill(), "it was alive");
    recount(&tables, &kafka.recount(&topic).await).await;
}

/// What should be there.
#[derive(Default)]
struct Recount {
    told: Vec<Minute>,
    so_far: Minutes,
    late: BTreeSet<(i32, i64)>,
    /// Batches that told minutes and read nothing.
    empty: usize,
}

/// One order after the other, as the ledger's ranges cut them.
async fn expected(tables: &Tables, orders: &[Seen]) -> Recount {
    let (times, ranges) = (batches(tables).await, tables.ranges().await);
    let (mut recount, mut open, mut watermark) = (Recount::default(), Minutes::new(), None::<i64>);
    for (batch, time) in times {
        let is_over = |minute: i64| watermark.is_some_and(|watermark| minute + MINUTE_MS <= watermark);
        let (over, still): (Minutes, Minutes) = open.into_iter().partition(|((minute, _), _)| is_over(*minute));
        open = still;
        let mut of_batch = ranges.iter().filter(|range| range.0 == batch).peekable();
        recount.empty += usize::from(of_batch.peek().is_none() && !over.is_empty());
        recount.told.extend(over.into_iter().map(|((minute, name), (orders, total))| (minute, name, orders, total)));
        let mut highest = None;
        for (_, partition, from, until, ..) in of_batch {
            let inside =
                |seen: &&Seen| i64::from(seen.partition) == *partition && (*from..*until).contains(&seen.offset);
            for seen in orders.iter().filter(inside) {
                let minute = seen.timestamp - seen.timestamp % MINUTE_MS;
                let ahead = seen.timestamp > time + AHEAD_MAX_MS;
                if !ahead {
                    highest = highest.max(Some(seen.timestamp));
                }
                if ahead || is_over(minute) {
                    recount.late.insert((seen.partition, seen.offset));
                    continue;
                }
                let at = (minute, seen.key.clone().unwrap());
                let sums = open.entry(at.clone()).or_default();
                *sums = (sums.0 + 1, sums.1 + seen.value.as_ref().unwrap().parse::<i64>().unwrap());
                recount.so_far.insert(at, *sums);
            }
        }
        watermark = watermark.max(highest.map(|highest| highest - LATENESS_MS));
    }
    assert_eq!(open.len(), 1, "the last order's minute alone is open: {open:?}");
    recount
}

async fn recount(tables: &Tables, orders: &[Seen]) {
    let mut expected = expected(tables, orders).await;
    let rows = async |table: &str| -> Vec<Minute> {
        tables.rows(format!("SELECT minute_ms, customer, orders, total FROM {table} ORDER BY 1, 2")).await.unwrap()
    };
    expected.told.sort();
    assert_eq!(rows("minutes").await, expected.told);
    let so_far = expected.so_far.into_iter().map(|((minute, name), (orders, total))| (minute, name, orders, total));
    assert_eq!(rows("minutes_so_far").await, so_far.collect::<Vec<_>>());
    // Each with the record's own bytes.
    let letters = tables.own("dead_letters");
    let sql = format!(
        "SELECT CAST(partition AS bigint), \"offset\", key, value, timestamp_ms, topic, stage, output FROM {letters} \
         ORDER BY partition, \"offset\""
    );
    type Letter = (i64, i64, Vec<u8>, Vec<u8>, i64, String, String, String);
    let letters: Vec<Letter> = tables.rows(sql).await.unwrap();
    let topic = letters[0].5.clone();
    let late = orders.iter().filter(|seen| expected.late.contains(&(seen.partition, seen.offset)));
    let bytes = |text: &Option<String>| text.clone().unwrap().into_bytes();
    let letter = |seen: &Seen| {
        let (stage, output) = ("window".to_owned(), "minutes".to_owned());
        let (key, value) = (bytes(&seen.key), bytes(&seen.value));
        (i64::from(seen.partition), seen.offset, key, value, seen.timestamp, topic.clone(), stage, output)
    };
    assert_eq!(letters, late.map(letter).collect::<Vec<_>>());
    // Each order is in one minute, or late.
    let counted: i64 = expected.told.iter().map(|minute| minute.2).sum();
    assert_eq!(counted + i64::try_from(letters.len()).unwrap() + 1, i64::try_from(orders.len()).unwrap());
    // All that can happen did: also minutes that only a batch without records told.
    assert!(expected.told.len() > 100 && letters.len() > 50, "{} {}", expected.told.len(), letters.len());
    assert!(expected.empty > 0);
    eprintln!(
        "{} orders in {} batches: {} minutes told, {} dead letters, {} batches without records told minutes",
        orders.len(),
        batches(tables).await.len(),
        expected.told.len(),
        letters.len(),
        expected.empty
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_window_over_event_time_is_told_once_however_often_the_process_is_killed_with_postgres() {
    windows_survive(Tables::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_window_over_event_time_is_told_once_however_often_the_process_is_killed_with_sqlite() {
    windows_survive(Tables::sqlite()).await;
}
