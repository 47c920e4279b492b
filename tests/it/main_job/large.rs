//! Records far above what the memory budget has room for.

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::task::spawn_blocking;

use super::{
    job::{Job, LIMIT},
    partitions::resident_bytes,
};
use crate::support::{Kafka, shared_kafka, unique, wait_until};

const RECORDS: i64 = 12;
const PARTITIONS: i32 = 2;
/// Of one record's value.
const VALUE_BYTES: usize = 20_000_000;
const MEMORY: u64 = 64 << 20;
/// What a process may have beside its budget.
const BESIDES: u64 = 160 << 20;

/// Records of numbers that no compression makes smaller, each value another.
async fn produce(kafka: &Kafka, topic: &str) {
    let mut config = kafka.client();
    config.set("message.max.bytes", "30000000").set("queue.buffering.max.kbytes", "1000000");
    let (producer, topic): (BaseProducer, _) = (config.create().unwrap(), topic.to_owned());
    spawn_blocking(move || {
        for n in 0..RECORDS {
            let mut state = u64::try_from(n).unwrap() + 1;
            let words = std::iter::repeat_with(|| {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            });
            let value: Vec<u8> = words.flatten().take(VALUE_BYTES).collect();
            let record =
                BaseRecord::<(), _>::to(&topic).payload(&value).partition(i32::try_from(n).unwrap() % PARTITIONS);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(LIMIT).unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_20_mb_go_through_a_budget_of_64_mib_a_few_at_a_time() {
    let (kafka, topic) = (shared_kafka().await, unique("large"));
    kafka.create_topic(&topic, PARTITIONS, &[("max.message.bytes", "30000000")]).await;
    produce(&kafka, &topic).await;
    let job = Job::new(&kafka, &topic, "");
    let mut running = job.start(&[
        "stream.memory_max=64MiB",
        "input.format=bytes",
        "output.0.columns.body.from=value",
        "output.0.columns.body.type=bytea",
    ]);
    let mut most = 0;
    wait_until("all is committed", LIMIT, async || {
        running.runs();
        most = most.max(resident_bytes(running.id()));
        job.tables.committed().await == Some(RECORDS)
    })
    .await;
    drop(running);
    eprintln!("{RECORDS} records of {VALUE_BYTES} bytes in {} MiB: {} MiB resident", MEMORY >> 20, most >> 20);
    let read: Vec<_> = (0..2).flat_map(|part| (0..RECORDS / 2).map(move |offset| (part, offset))).collect();
    assert_eq!(job.tables.places().await, read);
    assert!(most < MEMORY + BESIDES, "{} MiB", most >> 20);
}
