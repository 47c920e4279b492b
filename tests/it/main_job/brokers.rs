//! Brokers that go away and come back under a running job.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::task::spawn_blocking;

use super::job::{Job, LIMIT};
use crate::support::{
    Kafka, kafka as broker,
    kafka::{Place, send_all},
    record, wait_for, wait_until,
};

const PARTITIONS: i32 = 3;
const KILLS: usize = 2;

/// Records to all partitions, one after the other, until it is asked where they came to lie. Its producer waits for brokers and
/// sends again what was not acknowledged; it is idempotent. Not on a thread of the runtime, whose end would wait for it.
struct Load {
    enough: Arc<AtomicBool>,
    sending: Option<JoinHandle<Vec<Place>>>,
}

impl Load {
    fn on(kafka: &Kafka, topic: &str) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let (producer, topic, stop) = (kafka.producer(None), topic.to_owned(), Arc::clone(&enough));
        let sending = std::thread::spawn(move || {
            let mut places = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let records: Vec<_> = (0..30).map(|n: i32| record(n.to_string()).partition(n % PARTITIONS)).collect();
                places.extend(send_all(&producer, &topic, &records));
            }
            places
        });
        Self { enough, sending: Some(sending) }
    }

    /// Ends it; partition and offset of each record, sorted.
    async fn places(mut self) -> Vec<(i64, i64)> {
        self.enough.store(true, Ordering::Relaxed);
        let sending = self.sending.take().unwrap();
        let places = spawn_blocking(move || sending.join().unwrap()).await.unwrap();
        let mut places: Vec<_> = places.into_iter().map(|(partition, offset)| (i64::from(partition), offset)).collect();
        places.sort_unstable();
        places
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
    }
}

async fn commits_more(job: &Job) {
    let before = wait_for("a look", LIMIT, async || job.tables.committed().await).await;
    let more = |committed| committed >= before + 60;
    wait_until("records are committed", LIMIT, async || job.tables.committed().await.is_some_and(more)).await;
}

/// The job commits all that was sent, and each record once.
async fn ends_whole(job: &Job, load: Load) {
    let places = load.places().await;
    let all = i64::try_from(places.len()).ok();
    wait_until("all is committed", LIMIT, async || job.tables.committed().await == all).await;
    assert_eq!(job.tables.places().await, places);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_again_and_again_under_load_costs_no_record_and_doubles_none() {
    let kafka = Kafka::start(broker()).await;
    let topic = kafka.topic(PARTITIONS).await;
    let job = Job::new(&kafka, &topic, "");
    let _running = job.start(&[]);
    let load = Load::on(&kafka, &topic);
    for _ in 0..KILLS {
        commits_more(&job).await;
        kafka.server().kill().await;
        kafka.server().start_again().await;
    }
    commits_more(&job).await;
    ends_whole(&job, load).await;
}

/// A topic with a replica on each of three brokers: another one leads, and what was acknowledged is there.
#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_a_partition_killed_under_load_costs_no_record_and_doubles_none() {
    let kafka = Kafka::start_cluster(3).await;
    let topic = kafka.topic(PARTITIONS).await;
    let job = Job::new(&kafka, &topic, "");
    let _running = job.start(&[]);
    let load = Load::on(&kafka, &topic);
    commits_more(&job).await;
    let leader = kafka.leader(&topic, 0).await;
    kafka.servers()[usize::try_from(leader - 1).unwrap()].kill().await;
    wait_until("another broker leads", LIMIT, async || ![leader, -1].contains(&kafka.leader(&topic, 0).await)).await;
    commits_more(&job).await;
    ends_whole(&job, load).await;
}

/// One question to Kafka may take 5 s; at start it gets no more than the time that is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_the_connection_and_says_nothing_ends_a_start_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let job = Job::at(&silent.local_addr().unwrap().to_string(), "t", "");
    let (accepts, accepted) = mpsc::channel();
    std::thread::spawn(move || {
        let first = silent.accept();
        let _ = accepts.send((Instant::now(), first, silent));
    });
    let started = Instant::now();
    let (code, told) = job.until_latest(&["stream.start_timeout=1s"]).await;
    let ended = Instant::now();
    assert!(code == 3 && told.contains("plaintext"), "{code}: {told}");
    assert!(ended - started > Duration::from_secs(1), "{:?}: {told}", ended - started);
    // How long a busy machine takes to start a program is another matter.
    let (connected, ..) = accepted.recv_timeout(LIMIT).expect("the program connects");
    assert!(ended - connected < Duration::from_secs(4), "{:?}: {told}", ended - connected);
}
