//! From topic to topic in transactions of Kafka, while the process is killed, stopped, doubled and lied to: the target holds each
//! order once, as Kafka's own console consumer reads it with `read_committed`.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::support::{End, Kafka, Process, Record, death, example_program, record, shared_kafka, unique, wait_until};

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 3;
const CUSTOMERS: i64 = 7;
/// Batches of each life: at least so many, for each part is awaited.
const PARTS: i64 = 4;

/// Where a process dies: at a failpoint, after it was passed so often, or by a signal from outside.
const OUTSIDE: (&str, u32) = ("", 0);
const DEATHS: &[(&str, u32)] = &[
    // Before anything is owned; owned and not written; the first positions on their way; and there.
    ("commit::before_take_over", 0),
    ("commit::after_take_over", 0),
    ("commit::after_advance", 0),
    ("commit::before_write", 2),
    ("commit::after_write", 2),
    OUTSIDE,
    ("commit::before_advance", 3),
    ("commit::after_advance", 3),
    ("commit::before_commit", 3),
    ("commit::after_commit", 3),
    ("stream::acknowledge", 2),
    ("commit::after_commit", 0),
    ("commit::before_commit", 0),
    OUTSIDE,
    ("stream::hand_over", 3),
    ("commit::after_begin", 2),
    ("commit::before_commit", 3),
    ("commit::after_commit", 3),
    ("commit::after_take_over", 0),
    ("commit::before_begin", 1),
    OUTSIDE,
];

/// A topic, the topic that is written, and the application's name.
struct Field {
    kafka: Kafka,
    source: String,
    target: String,
    name: String,
    folder: TempDir,
    produced: i64,
    /// Looks at the group's offsets, and is no member of it.
    look: Arc<BaseConsumer>,
}

impl Field {
    async fn new() -> Self {
        let kafka = shared_kafka().await;
        let (source, target) = (kafka.topic(PARTITIONS).await, kafka.topic(2).await);
        let name = unique("k2k");
        let look = Arc::new(kafka.client().set("group.id", &name).create().unwrap());
        Self { kafka, source, target, name, folder: tempfile::tempdir().unwrap(), produced: 0, look }
    }

    fn program(&self, environment: &[(&str, &str)]) -> Process {
        let mut program = Command::new(example_program("kafka_to_kafka"));
        program.env("BOOTSTRAP_SERVERS", self.kafka.brokers()).env("NAME", &self.name);
        program.env("TOPIC", &self.source).env("TARGET", &self.target).envs(environment.iter().copied());
        Process::start(program, self.folder.path().join(unique("stderr")))
    }

    fn running(&self, failpoints: &str) -> Process {
        self.program(&[("RUN_ON", "1"), ("FAILPOINTS", failpoints)])
    }

    fn orders(&mut self, count: i64) -> Vec<Record> {
        let from = self.produced;
        self.produced += count;
        (from..from + count).map(|n| record(n.to_string()).key(format!("customer-{}", n % CUSTOMERS))).collect()
    }

    async fn produce(&mut self, count: i64) {
        let orders = self.orders(count);
        self.kafka.produce(&self.source, orders).await;
    }

    /// The group's offsets, summed over the partitions.
    async fn committed(&self) -> i64 {
        let (consumer, topic) = (Arc::clone(&self.look), self.source.clone());
        spawn_blocking(move || {
            let mut list = TopicPartitionList::new();
            list.add_partition_range(&topic, 0, PARTITIONS - 1);
            let committed = consumer.committed_offsets(list, LIMIT).unwrap();
            committed.elements().iter().filter_map(|at| at.offset().to_raw()).map(|offset| offset.max(0)).sum()
        })
        .await
        .unwrap()
    }

    async fn is_committed(&self) -> bool {
        self.committed().await == self.produced
    }

    async fn awaits(&self, what: &str) {
        wait_until(what, LIMIT, async || self.is_committed().await).await;
    }

    /// The target holds each order once, and those of one customer in their order.
    async fn compare(&self) {
        let place = |partition: i32, offset: i64| format!("{partition}-{offset}");
        let source = self.kafka.recount(&self.source).await;
        assert_eq!(source.len(), usize::try_from(self.produced).unwrap());
        let expected: BTreeSet<String> = source.iter().map(|seen| place(seen.partition, seen.offset)).collect();
        let mut found = BTreeMap::<String, u32>::new();
        let mut last = BTreeMap::new();
        for seen in self.kafka.recount(&self.target).await {
            let order = seen.headers.strip_prefix("order:").unwrap_or_else(|| panic!("{seen:?}")).to_owned();
            let (partition, offset) = order.split_once('-').unwrap();
            let at: (i32, i64) = (partition.parse().unwrap(), offset.parse().unwrap());
            if let Some(before) = last.insert((seen.partition, seen.key), at) {
                assert!(before < at, "{at:?} comes after {before:?}");
            }
            *found.entry(order).or_default() += 1;
        }
        let missing = expected.iter().filter(|order| !found.contains_key(*order)).count();
        let strange = found.keys().filter(|order| !expected.contains(*order)).count();
        let doubled = found.values().filter(|times| **times > 1).count();
        assert_eq!((missing, strange, doubled), (0, 0, 0), "missing, strange and doubled of {}", expected.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_reaches_the_other_topic_once_however_often_the_process_is_killed() {
    // Side by side: a death and a take-over are mostly waiting.
    join_all(DEATHS.chunks(DEATHS.len().div_ceil(3)).map(killed_again_and_again)).await;
}

async fn killed_again_and_again(deaths: &[(&str, u32)]) {
    let mut field = Field::new().await;
    for (round, (point, passed)) in deaths.iter().enumerate() {
        let failpoints = death(point, *passed);
        let mut running = field.running(&failpoints);
        for part in 0..PARTS {
            field.produce(20 + part + i64::try_from(round).unwrap()).await;
            wait_until("the part is committed, or the program killed", LIMIT, async || {
                running.has_ended() || field.is_committed().await
            })
            .await;
        }
        running.dies(point, LIMIT).await;
    }
    let running = field.running("");
    field.awaits("all is committed").await;
    assert!(running.kill(), "it was alive");
    field.compare().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_settled_and_nothing_is_written_twice() {
    let mut field = Field::new().await;
    let points = ["before_begin", "after_write", "after_advance", "before_commit", "after_commit"];
    let faults: Vec<_> = points.iter().map(|point| format!("commit::{point}=3*off->2*return(error)->off")).collect();
    let mut running = field.running(&faults.join(";"));
    for _ in 0..20 {
        field.produce(31).await;
        field.awaits("the part is committed").await;
        running.runs();
    }
    let told = running.told();
    for point in points {
        assert_eq!(told.matches(&format!("failpoint commit::{point}: error")).count(), 2, "{point}: {told}");
    }
    assert!(running.kill(), "it was alive");
    field.compare().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_that_starts_last_has_the_application_and_the_other_one_ends() {
    let mut field = Field::new().await;
    let first = field.running("");
    field.produce(50).await;
    field.awaits("the first one has committed").await;
    let second = field.running("");
    // Idle, it learns of it all the same.
    let (code, told) = first.ended().await;
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("Fenced"), "{told}");
    field.produce(50).await;
    field.awaits("the second one goes on").await;
    assert!(second.kill(), "it was alive");
    field.compare().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_wakes_up_in_its_commit_after_another_one_took_over_is_refused() {
    let mut field = Field::new().await;
    for point in ["commit::before_commit", "commit::before_advance", "commit::before_write"] {
        let zombie = field.running(&format!("{point}=3*off->1*return(stop)->off"));
        for _ in 0..3 {
            field.produce(20).await;
            let stopped = || zombie.told().contains(&format!("failpoint {point}: stop"));
            wait_until("committed, or stopped", LIMIT, async || stopped() || field.is_committed().await).await;
        }
        field.produce(20).await;
        zombie.stopped(LIMIT).await;
        let (code, told) = field.program(&[]).ended().await;
        assert_eq!(code, 0, "{told}");
        assert!(field.is_committed().await);
        zombie.signal("CONT");
        let (code, told) = zombie.ended().await;
        assert_eq!(code, 1, "{told}");
        assert!(told.contains("Fenced"), "{told}");
    }
    field.compare().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_of_the_source_are_not_written_and_markers_are_no_orders() {
    let mut field = Field::new().await;
    let aborted = field.orders(40);
    field.produced = 0;
    let transactions = vec![(End::Commit, field.orders(40)), (End::Abort, aborted), (End::Commit, field.orders(3))];
    field.kafka.transactions(&field.source, transactions).await;
    for _ in 0..2 {
        let (code, told) = field.program(&[]).ended().await;
        assert_eq!(code, 0, "{told}");
        field.compare().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_cannot_take_ends_the_program_and_nothing_of_the_batch_is_seen() {
    let mut field = Field::new().await;
    field.produce(20).await;
    let (code, told) = field.program(&[("TARGET", "no-such-topic-is-here")]).ended().await;
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("Config in commit: a record was not taken by Kafka topic=no-such-topic-is-here"), "{told}");
    assert_eq!(field.committed().await, 0);
    let (code, told) = field.program(&[]).ended().await;
    assert_eq!(code, 0, "{told}");
    field.compare().await;
}
