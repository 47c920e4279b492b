//! How soon a hot standby goes on: from its owner's death, or from SIGTERM to it, to the first batch that the standby has
//! committed, by the clock that the ledger has it from. All run on one machine, so it is one clock.

use std::{
    fmt,
    time::{Duration, UNIX_EPOCH},
};

use directstream::commit::Inspector;
use futures_util::future::join_all;

use super::{
    job::{LIMIT, OUTPUT},
    tables::Tables,
};
use crate::support::{JobFile, Process, directstream, record, shared_kafka, unique, wait_until};

/// Applications side by side: each mostly waits.
const PAIRS: usize = 5;
/// How often each changes hands.
const TIMES: u64 = 20;
/// So many records wait that there is work in each interval to the end.
const RECORDS: i32 = 60_000;
/// Deaths are spread over the batch interval and over the looks at the owner, both of 200 ms: a step without a common factor
/// with them.
const SPREAD_MS: u64 = 137;

/// How an owner ends.
#[derive(Clone, Copy)]
enum End {
    Kill,
    Terminate,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "SIGKILL",
            Self::Terminate => "SIGTERM",
        })
    }
}

fn now_ms() -> i64 {
    i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// An owner and its standby, which change places until it was enough: how long each change took, in milliseconds.
async fn changes(tables: Tables, how: End) -> Vec<i64> {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, (0..RECORDS).map(|n| record(n.to_string())).collect()).await;
    let folder = tempfile::tempdir().unwrap();
    let job = JobFile::new(kafka.brokers(), &topic, &tables.url()).input("format = \"text\"").outputs(OUTPUT);
    let job = job.stream("batch_interval = \"200ms\"\nmax_rate_per_partition = 100").write(folder.path());
    let start = |arguments: &[&str]| {
        let mut command = directstream(&["run"]);
        command.arg(&job).args(arguments).env("DIRECTSTREAM_LOG", "info");
        Process::start(command, folder.path().join(unique("stderr")))
    };
    let mut owner = start(&[]);
    wait_until("it is committed to", LIMIT, async || tables.committed().await.is_some_and(|sum| sum > 0)).await;
    let mut look = Inspector::open(&tables.url().parse().unwrap(), "job").await.unwrap();
    let mut took = Vec::new();
    for time in 0..TIMES {
        let standby = start(&["--standby"]);
        wait_until("it stands by", LIMIT, async || standby.told().contains("to=standby")).await;
        tokio::time::sleep(Duration::from_millis(time * SPREAD_MS % 400)).await;
        let before = look.application().await.unwrap().unwrap().epoch;
        let ended = now_ms();
        match how {
            End::Kill => assert!(owner.kill(), "it was alive"),
            End::Terminate => {
                owner.signal("TERM");
                assert_eq!(owner.ended().await.0, 143);
            }
        }
        // The log is looked at first: that costs the database nothing.
        wait_until("it takes over", LIMIT, async || standby.told().contains("to=running")).await;
        let mut first = None;
        wait_until("it commits", LIMIT, async || {
            // A SQLite file may be held by its writer.
            let Ok(batches) = look.batches(100).await else { return false };
            first = batches.iter().filter(|batch| batch.epoch > before).map(|batch| batch.committed_at_ms).min();
            first.is_some()
        })
        .await;
        took.push(first.unwrap() - ended);
        owner = standby;
    }
    assert!(tables.committed().await.unwrap() < i64::from(RECORDS), "it had run out of work");
    took
}

async fn takes(stores: Vec<Tables>, how: End, most: Duration) {
    let store = stores[0].url();
    let store = store.split(':').next().unwrap();
    let mut took = join_all(stores.into_iter().map(|tables| changes(tables, how))).await.concat();
    took.sort_unstable();
    // The nearest rank: of a hundred the 99th.
    let at = |percent: usize| took[(took.len() * percent).div_ceil(100) - 1];
    let (least, median, p99, longest) = (took[0], at(50), at(99), at(100));
    eprintln!(
        "{store}, {how}, {} times: least {least} ms, median {median} ms, p99 {p99} ms, longest {longest} ms",
        took.len()
    );
    assert!(u128::try_from(p99).unwrap() < most.as_millis(), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, for an idle machine: minutes"]
async fn a_standby_in_postgres_commits_within_four_seconds_of_its_owner_s_death() {
    for (how, most) in [(End::Kill, 4), (End::Terminate, 2)] {
        let stores = join_all((0..PAIRS).map(|_| Tables::postgres())).await;
        takes(stores, how, Duration::from_secs(most)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, for an idle machine: minutes"]
async fn a_standby_in_sqlite_commits_within_four_seconds_of_its_owner_s_death() {
    for (how, most) in [(End::Kill, 4), (End::Terminate, 2)] {
        takes((0..PAIRS).map(|_| Tables::sqlite()).collect(), how, Duration::from_secs(most)).await;
    }
}
