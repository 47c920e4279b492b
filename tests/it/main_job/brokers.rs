//! Brokers that go away and come back under a running job.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::spawn_blocking;

use super::job::{Job, LIMIT};
use crate::support::{Kafka, kafka as broker, kafka::send_all, record, wait_until};

const PARTITIONS: i32 = 3;
const KILLS: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_again_and_again_under_load_costs_no_record_and_doubles_none() {
    let kafka = Kafka::start(broker()).await;
    let topic = kafka.topic(PARTITIONS).await;
    let job = Job::new(&kafka, &topic, "");
    let running = job.start(&[]);
    let enough = Arc::new(AtomicBool::new(false));
    let (producer, name, stop) = (kafka.producer(None), topic.clone(), Arc::clone(&enough));
    // The producer waits for the broker and sends again what was not acknowledged; it is idempotent.
    let producing = spawn_blocking(move || {
        let mut places = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let records: Vec<_> = (0..30).map(|n: i32| record(n.to_string()).partition(n % PARTITIONS)).collect();
            places.extend(send_all(&producer, &name, &records));
        }
        places
    });
    for kill in 0..=KILLS {
        let before = job.tables.committed().await;
        wait_until("records are committed", LIMIT, async || job.tables.committed().await >= before + 60).await;
        if kill < KILLS {
            kafka.server().kill().await;
            kafka.server().start_again().await;
        }
    }
    enough.store(true, Ordering::Relaxed);
    let places = producing.await.unwrap();
    let all = i64::try_from(places.len()).unwrap();
    wait_until("all is committed", LIMIT, async || job.tables.committed().await == all).await;
    drop(running);
    let mut places: Vec<_> = places.into_iter().map(|(partition, offset)| (i64::from(partition), offset)).collect();
    places.sort_unstable();
    assert_eq!(job.tables.places().await, places);
}

/// One question to Kafka may take 5 s; at start it gets no more than the time that is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_the_connection_and_says_nothing_ends_a_start_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let job = Job::at(&silent.local_addr().unwrap().to_string(), "t", "");
    let started = Instant::now();
    let (code, told) = job.until_latest(&["stream.start_timeout=1s"]).await;
    let took = started.elapsed();
    assert!(code == 3 && told.contains("plaintext"), "{code}: {told}");
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}: {told}");
    drop(silent);
}
