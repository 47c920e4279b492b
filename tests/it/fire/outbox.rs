//! Records for Kafka out of a database, while the process is killed and Kafka stumbles: none is lost, none is there whose batch is
//! not committed, and those of one customer come in their order.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    main_job::tables::Tables,
    support::{Kafka, Process, death, example_program, kafka, record, shared_kafka, unique, wait_until},
};

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 3;
const CUSTOMERS: i64 = 7;
/// Batches of each life: at least so many, for each part is awaited.
const PARTS: i64 = 4;

/// Where a process dies: at a failpoint, after it was passed so often, or by a signal from outside.
const OUTSIDE: (&str, u32) = ("", 0);
const DEATHS: &[(&str, u32)] = &[
    ("outbox::before_send", 0),
    ("outbox::before_delete", 1),
    ("outbox::after_delete", 1),
    OUTSIDE,
    ("commit::before_commit", 2),
    ("commit::after_commit", 2),
    ("outbox::before_delete", 0),
    ("outbox::before_delete", 0),
    ("stream::acknowledge", 2),
    OUTSIDE,
];

/// A topic, the topic that is written, and a store.
struct Field {
    kafka: Kafka,
    source: String,
    target: String,
    tables: Tables,
    folder: TempDir,
    produced: i64,
}

impl Field {
    async fn new(kafka: Kafka, tables: Tables) -> Self {
        let (source, target) = (kafka.topic(PARTITIONS).await, kafka.topic(2).await);
        Self { kafka, source, target, tables, folder: tempfile::tempdir().unwrap(), produced: 0 }
    }

    fn program(&self, environment: &[(&str, &str)]) -> Process {
        let mut program = Command::new(example_program("kafka_outbox"));
        program.env("BOOTSTRAP_SERVERS", self.kafka.brokers()).env("DATABASE_URL", self.tables.url());
        program.env("TOPIC", &self.source).env("TARGET", &self.target).envs(environment.iter().copied());
        Process::start(program, self.folder.path().join(unique("stderr")))
    }

    async fn produce(&mut self, count: i64) {
        let order = |n: i64| record(n.to_string()).key(format!("customer-{}", n % CUSTOMERS));
        let orders = (self.produced..self.produced + count).map(order).collect();
        self.kafka.produce(&self.source, orders).await;
        self.produced += count;
    }

    async fn is_committed(&self) -> bool {
        self.tables.committed().await == Some(self.produced)
    }

    /// `None`: there was no look at the table.
    async fn waiting(&self) -> Option<i64> {
        let sql = format!("SELECT count(*) FROM {}", self.tables.own("outbox"));
        self.tables.rows::<(i64,)>(sql).await.ok().map(|rows| rows[0].0)
    }

    async fn is_sent(&self) -> bool {
        self.is_committed().await && self.waiting().await == Some(0)
    }

    /// How many records the target has too many, once it has each order and those of each customer in order.
    async fn compare(&self) -> usize {
        let place = |partition: i32, offset: i64| format!("{partition}-{offset}");
        let source = self.kafka.recount(&self.source).await;
        assert_eq!(source.len(), usize::try_from(self.produced).unwrap());
        let expected: BTreeSet<String> = source.iter().map(|seen| place(seen.partition, seen.offset)).collect();
        let (mut found, mut doubled) = (BTreeSet::new(), 0);
        let mut last = BTreeMap::new();
        for seen in self.kafka.recount(&self.target).await {
            let order = seen.headers.strip_prefix("order:").unwrap_or_else(|| panic!("{seen:?}")).to_owned();
            let (partition, offset) = order.split_once('-').unwrap();
            let at: (i32, i64) = (partition.parse().unwrap(), offset.parse().unwrap());
            if !found.insert(order) {
                doubled += 1;
                continue;
            }
            if let Some(before) = last.insert((seen.partition, seen.key), at) {
                assert!(before < at, "{at:?} comes first after {before:?}");
            }
        }
        let (missing, strange) = (expected.difference(&found).count(), found.difference(&expected).count());
        assert_eq!((missing, strange), (0, 0), "missing and strange of {}", expected.len());
        doubled
    }
}

async fn nothing_is_lost(tables: Tables) {
    let mut field = Field::new(shared_kafka().await, tables).await;
    for (round, (point, passed)) in DEATHS.iter().enumerate() {
        let failpoints = death(point, *passed);
        let mut running = field.program(&[("RUN_ON", "1"), ("FAILPOINTS", &failpoints)]);
        for part in 0..PARTS {
            field.produce(20 + part + i64::try_from(round).unwrap()).await;
            wait_until("the part is committed, or the program killed", LIMIT, async || {
                running.has_ended() || field.is_committed().await
            })
            .await;
        }
        running.dies(point, LIMIT).await;
    }
    // It ends when all is committed, and sent.
    let (code, told) = field.program(&[]).ended().await;
    assert_eq!(code, 0, "{told}");
    assert!(field.is_sent().await);
    let doubled = field.compare().await;
    // Three deaths between an acknowledgement and the end of its rows, and perhaps those from outside.
    assert!(doubled > 0, "the test injected what doubles records");
    assert!(doubled < usize::try_from(field.produced).unwrap() / 2, "{doubled}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_loses_nothing_however_often_the_process_is_killed_with_postgres() {
    nothing_is_lost(Tables::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_loses_nothing_however_often_the_process_is_killed_with_sqlite() {
    nothing_is_lost(Tables::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_crash_nothing_of_the_outbox_comes_twice_and_batches_wait_for_room() {
    let mut field = Field::new(shared_kafka().await, Tables::postgres().await).await;
    let slow = "outbox::before_send=return(delay:200)";
    let running = field.program(&[("RUN_ON", "1"), ("WAITING_MAX", "50"), ("FAILPOINTS", slow)]);
    field.produce(3_000).await;
    let mut most = 0;
    wait_until("all is sent", LIMIT, async || {
        most = most.max(field.waiting().await.unwrap_or(0));
        field.is_sent().await
    })
    .await;
    // A batch of at most 100 offsets a partition may come on top of what waits already.
    assert!(most > 0 && most < 50 + 300 + 1, "{most}");
    assert!(running.kill(), "it was alive");
    assert_eq!(field.compare().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_kafka_does_not_take_ends_the_program_and_stays_until_it_does() {
    let mut field = Field::new(shared_kafka().await, Tables::sqlite()).await;
    field.kafka.alter_topic(&field.target, &[("max.message.bytes", "60")]).await;
    field.produce(10).await;
    for _ in 0..2 {
        let (code, told) = field.program(&[("RUN_ON", "1")]).ended().await;
        assert_eq!(code, 1, "{told}");
        let cause = "Transform in commit: the outbox cannot be sent: a record was not taken by Kafka";
        assert!(told.contains(cause), "{told}");
        assert!(field.is_committed().await && field.waiting().await == Some(10));
    }
    field.kafka.alter_topic(&field.target, &[]).await;
    let (code, told) = field.program(&[]).ended().await;
    assert_eq!(code, 0, "{told}");
    assert_eq!(field.compare().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_waits_for_a_broker_that_comes_back() {
    let broker = Kafka::start(kafka()).await;
    let mut field = Field::new(broker, Tables::sqlite()).await;
    let mut running = field.program(&[("RUN_ON", "1"), ("FAILPOINTS", "outbox::before_send=return(delay:500)")]);
    field.produce(500).await;
    wait_until("some wait", LIMIT, async || field.is_committed().await && field.waiting().await > Some(0)).await;
    field.kafka.server().pause().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    running.runs();
    field.kafka.server().unpause().await;
    wait_until("all is sent", LIMIT, async || field.is_sent().await).await;
    running.runs();
    assert!(running.kill(), "it was alive");
    assert_eq!(field.compare().await, 0, "an idempotent producer doubles nothing by itself");
}
