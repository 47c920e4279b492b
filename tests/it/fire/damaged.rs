//! A record batch that is damaged on the broker's disk. The client library tells of it, or aborts the process.

use std::os::unix::process::ExitStatusExt as _;

use crate::{
    main_job::job::{Job, LIMIT},
    support::{Kafka, kafka as broker, record, unique, wait_until},
};

const PARTITIONS: i32 = 3;
/// Records of each partition's record batches.
const BATCHES: [i32; 3] = [1, 20, 20];
const ALL: i32 = 41;

/// The log file of the partition that is damaged, in the broker's container.
fn log_file(topic: &str) -> String {
    format!("/var/lib/kafka/data/{topic}-1/00000000000000000000.log")
}

/// Digits that hardly compress: a record batch of them is larger than a small fetch.
fn digits() -> Vec<u8> {
    let mut state = 1_u64;
    let digits = std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'0' + u8::try_from((state >> 33) % 10).unwrap()
    });
    digits.take(4_000).collect()
}

/// After the damage the client library goes on in the wrong place. Where it finds zeros there, it takes them for the length of
/// a message.
fn zeros() -> Vec<u8> {
    vec![0; 300]
}

async fn size(kafka: &Kafka, file: &str) -> u64 {
    kafka.server().run(&["stat", "-c", "%s", file]).await.unwrap().0.trim().parse().unwrap()
}

/// Turns some bits of one byte of a file; done twice, it is as it was.
async fn turn_bits(kafka: &Kafka, file: &str, place: u64) {
    let read = format!("od -An -tu1 -j {place} -N 1 {file}");
    let byte: u8 = kafka.server().run(&["sh", "-c", &read]).await.unwrap().0.trim().parse().unwrap();
    let write = format!("printf '\\{:03o}' | dd of={file} bs=1 seek={place} conv=notrunc", byte ^ 0x55);
    kafka.server().run(&["sh", "-c", &write]).await.unwrap();
}

async fn topic(kafka: &Kafka) -> String {
    let topic = unique("topic");
    kafka.create_topic(&topic, PARTITIONS, &[("compression.type", "uncompressed")]).await;
    topic
}

/// A topic of three record batches a partition, and the place of a byte in the middle of the second one of partition 1.
async fn damaged_topic(kafka: &Kafka, value: &[u8]) -> (String, u64) {
    let topic = topic(kafka).await;
    let file = log_file(&topic);
    let mut ends = Vec::new();
    for records in BATCHES {
        let partitions = (0..records).flat_map(|_| 0..PARTITIONS);
        kafka.produce(&topic, partitions.map(|partition| record(value).partition(partition)).collect()).await;
        ends.push(size(kafka, &file).await);
    }
    let place = ends[0].midpoint(ends[1]);
    turn_bits(kafka, &file, place).await;
    (topic, place)
}

async fn mended_all_is_read_once(kafka: &Kafka, topic: &str, place: u64, job: &Job) {
    assert_eq!(job.tables.committed().await.unwrap_or(0), 0);
    turn_bits(kafka, &log_file(topic), place).await;
    job.reads_all(&[]).await;
    let all: Vec<_> = (0..3).flat_map(|part| (0..i64::from(ALL)).map(move |offset| (part, offset))).collect();
    assert_eq!(job.tables.places().await, all);
}

/// Mostly the client library tells of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_batch_ends_the_job_with_its_partition_and_offset() {
    let kafka = Kafka::start(broker()).await;
    let (topic, place) = damaged_topic(&kafka, &digits()).await;
    let job = Job::new(&kafka, &topic, "");
    let (code, told) = job.until_latest(&[]).await;
    let range = format!("offset=1 code=_BAD_MSG OffsetRange(topic: '{topic}', partition: 1, range: [0 -> {ALL}])");
    assert!(code == 4 && told.contains("is damaged") && told.contains(&range), "{code}: {told}");
    assert!(!told.contains(std::str::from_utf8(&digits()[..20]).unwrap()), "{told}");
    mended_all_is_read_once(&kafka, &topic, place, &job).await;
}

/// Where it goes on in the wrong place the process that meets it is aborted, and so is every one that prefetches it. The next one names the
/// partition and the offsets, and ends with 4.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_batch_is_named_by_the_start_after_the_one_that_it_aborted() {
    let kafka = Kafka::start(broker()).await;
    let (topic, place) = damaged_topic(&kafka, &zeros()).await;
    let job = Job::new(&kafka, &topic, "");
    let aborted = job.start(&["--until-latest"]).end(LIMIT).await;
    assert_eq!(aborted.signal(), Some(6), "the client library aborts the process");
    // So does any other, as long as nothing is done about it.
    for _ in 0..2 {
        let (code, told) = job.until_latest(&[]).await;
        let range = format!("OffsetRange(topic: '{topic}', partition: 1, range: [0 -> {ALL}])");
        assert!(code == 4 && told.contains("fails its checksum") && told.contains(&range), "{code}: {told}");
    }
    mended_all_is_read_once(&kafka, &topic, place, &job).await;
}

/// It is skipped as what retention deleted is: the operator deletes the records up to its end, and says that losses are skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_batch_that_an_operator_deletes_is_a_lost_range() {
    let kafka = Kafka::start(broker()).await;
    let topic = topic(&kafka).await;
    let file = log_file(&topic);
    let batch = async |records: i32| {
        kafka.produce(&topic, (0..records).map(|_| record(zeros()).partition(1)).collect()).await;
        size(&kafka, &file).await
    };
    let first = batch(BATCHES[0]).await;
    let job = Job::new(&kafka, &topic, "");
    let running = job.start(&[]);
    wait_until("the first batch is committed", LIMIT, async || job.tables.committed().await == Some(1)).await;
    drop(running);
    let second = batch(BATCHES[1]).await;
    batch(BATCHES[2]).await;
    turn_bits(&kafka, &file, first.midpoint(second)).await;
    // It follows a process that had committed a batch, and does not look beforehand.
    assert_eq!(job.start(&["--until-latest"]).end(LIMIT).await.signal(), Some(6));
    let (code, told) = job.until_latest(&[]).await;
    assert!(code == 4 && told.contains("range: [1 -> 41]"), "{code}: {told}");
    kafka.delete_records(&topic, &[(1, 21)]).await;
    job.reads_all(&["kafka.on_data_loss=skip"]).await;
    let read: Vec<_> = (0..1).chain(21..41).map(|offset| (1, offset)).collect();
    assert_eq!(job.tables.places().await, read);
    assert_eq!(job.tables.lost_ranges().await, [(1, 1, Some(21), "retention".to_owned())]);
}
