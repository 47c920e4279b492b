//! Kafka loses what the job has read, or was to read: each row of `kafka.md`'s table of events, as the program meets it.

use std::{collections::BTreeMap, time::Duration};

use directstream::{
    Error, ErrorKind,
    config::OnDataLoss,
    stream::{DirectStream, StreamingContext},
    transform::Append,
    types::ColumnType,
};
use rdkafka::producer::Producer as _;
use tokio::task::spawn_blocking;

use super::{
    job::{Job, LIMIT},
    tables::Tables,
};
use crate::support::{
    End, Kafka, kafka as broker,
    kafka::{Record, send_all},
    record, shared_kafka, unique, wait_until,
};

const SKIP: &str = "kafka.on_data_loss=skip";

fn some(partition: i32, count: i64) -> impl Iterator<Item = Record> {
    (0..count).map(move |n| record(n.to_string()).partition(partition))
}

/// How many rows each partition has.
async fn rows(job: &Job) -> BTreeMap<i64, usize> {
    let mut rows = BTreeMap::new();
    for (partition, _) in job.tables.places().await {
        *rows.entry(partition).or_default() += 1;
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_with_fewer_as_many_and_more_records_ends_the_job_or_is_skipped_and_recorded() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(3).await;
    kafka.produce(&topic, (0..3).flat_map(|partition| some(partition, 10)).collect()).await;
    let job = Job::new(&kafka, &topic, "");
    let running = job.start(&[]);
    wait_until("all is committed", LIMIT, async || job.tables.committed().await == Some(30)).await;
    kafka.delete_topic(&topic).await;
    kafka.create_topic(&topic, 3, &[]).await;
    kafka.produce(&topic, [(0, 5), (1, 10), (2, 15)].into_iter().flat_map(|(p, count)| some(p, count)).collect()).await;
    let (code, told) = running.ended().await;
    assert!(code == 4 && told.contains("created again"), "{code}: {told}");
    let (code, told) = job.until_latest(&[]).await;
    assert!(code == 4 && told.contains("reason=TOPIC_RECREATED"), "{code}: {told}");
    assert_eq!(rows(&job).await, [(0, 10), (1, 10), (2, 10)].into(), "nothing of the new topic is read yet");
    job.reads_all(&[SKIP]).await;
    assert_eq!(rows(&job).await, [(0, 15), (1, 20), (2, 25)].into());
    let lost = |partition| (partition, 10, None, "topic_recreated".to_owned());
    assert_eq!(job.tables.lost_ranges().await, [0, 1, 2].map(lost));
    assert_eq!(job.tables.offsets().await, [(0, 5), (1, 10), (2, 15)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_that_passes_the_committed_offset_while_the_job_runs_ends_it_or_is_skipped_and_recorded() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, some(0, 1_000).collect()).await;
    let job = Job::new(&kafka, &topic, "");
    let running = job.start(&["stream.max_rate_per_partition=20"]);
    wait_until("the job is on its way", LIMIT, async || {
        job.tables.committed().await.is_some_and(|committed| committed > 2)
    })
    .await;
    kafka.delete_records(&topic, &[(0, 900)]).await;
    let (code, told) = running.ended().await;
    assert!(code == 4 && told.contains("reason=RETENTION") && told.contains("earliest=900"), "{code}: {told}");
    let committed = job.tables.offsets().await[&0];
    assert!(committed < 900, "{committed}");
    assert_eq!(job.until_latest(&[]).await.0, 4);
    job.reads_all(&[SKIP]).await;
    let read: Vec<_> = (0..committed).chain(900..1_000).map(|offset| (0, offset)).collect();
    assert_eq!(job.tables.places().await, read);
    assert_eq!(job.tables.lost_ranges().await, [(0, committed, Some(900), "retention".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_added_under_load_are_read_from_their_first_record() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(2).await;
    let job = Job::new(&kafka, &topic, "");
    let running = job.start(&[]);
    let mut produced = Vec::new();
    for round in 0..12 {
        let partitions = if round < 4 { 2 } else { 6 };
        if round == 4 {
            // The job has read the topic with two partitions, and has nothing left to do.
            let all = i64::try_from(produced.len()).ok();
            wait_until("all so far is committed", LIMIT, async || job.tables.committed().await == all).await;
            kafka.create_partitions(&topic, 6).await;
        }
        let records = (0..partitions).flat_map(|partition| some(partition, 10)).collect();
        produced.extend(kafka.produce(&topic, records).await);
    }
    let all = i64::try_from(produced.len()).ok();
    wait_until("all is committed", LIMIT, async || job.tables.committed().await == all).await;
    drop(running);
    // Batches in order: first those of the two old partitions alone, then those in which the others begin, at 0.
    let ranges = job.tables.ranges().await;
    let joined = ranges.iter().find(|range| range.1 >= 2).unwrap().0;
    let before: i64 = ranges.iter().filter(|range| range.0 < joined).map(|range| range.4).sum();
    assert!(before >= 80, "partitions were there before the first two were read: {ranges:?}");
    for partition in 2..6 {
        assert_eq!(ranges.iter().find(|range| range.1 == partition).map(|range| range.2), Some(0));
    }
    let mut produced: Vec<_> = produced.into_iter().map(|(partition, offset)| (i64::from(partition), offset)).collect();
    produced.sort_unstable();
    assert_eq!(job.tables.places().await, produced);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_aborted_and_committed_transactions_and_a_range_of_a_marker_alone() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    let job = Job::new(&kafka, &topic, "");
    kafka.produce(&topic, some(0, 2).collect()).await;
    let (producer, name) = (kafka.producer(Some(&unique("tx"))), topic.clone());
    let producer = spawn_blocking(move || {
        producer.init_transactions(LIMIT).unwrap();
        producer.begin_transaction().unwrap();
        assert_eq!(send_all(&producer, &name, &some(0, 2).collect::<Vec<_>>()), [(0, 2), (0, 3)]);
        producer
    });
    let producer = producer.await.unwrap();
    // Up to the open transaction.
    job.reads_all(&[]).await;
    assert_eq!(job.tables.offsets().await, [(0, 2)].into());
    spawn_blocking(move || producer.abort_transaction(LIMIT).unwrap()).await.unwrap();
    // The marker may come a moment later than the answer.
    wait_until("the abort is written", LIMIT, async || kafka.offsets(&topic, 0).await.1 == 5).await;
    job.reads_all(&[]).await;
    // Two aborted records and the marker at 4.
    assert_eq!(job.tables.offsets().await, [(0, 5)].into());
    assert_eq!(job.tables.ranges().await.last().unwrap(), &(2, 0, 2, 5, 0, 3));
    kafka.transactions(&topic, vec![(End::Commit, some(0, 1).collect())]).await;
    wait_until("the commit is written", LIMIT, async || kafka.offsets(&topic, 0).await.1 == 7).await;
    // One offset a batch: the record at 5, then the marker at 6 alone.
    job.reads_all(&["stream.max_rate_per_partition=1"]).await;
    let ranges = job.tables.ranges().await;
    assert_eq!(ranges[ranges.len() - 2..], [(3, 0, 5, 6, 1, 0), (4, 0, 6, 7, 0, 1)]);
    assert_eq!(job.tables.places().await, [(0, 0), (0, 1), (0, 5)]);
}

/// The partition's log file in the broker's container.
fn log_file(topic: &str) -> String {
    format!("/var/lib/kafka/data/{topic}-0/00000000000000000000.log")
}

async fn kill_and_start_again(kafka: &Kafka, topic: &str) {
    kafka.server().kill().await;
    kafka.server().start_again().await;
    wait_until("the partition has a leader", LIMIT, async || kafka.partitions(topic).await == 1).await;
}

/// A commit marker ends the range, written by a later leader than the records before it. What is stored with the range's
/// end must survive leaders that come and go, and notice a log that was cut off below it, also once it has grown past it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_cut_off_below_a_range_that_ends_with_a_gap_is_noticed_and_new_leaders_are_no_alarm() {
    let kafka = Kafka::start(broker()).await;
    let topic = kafka.topic(1).await;
    let job = Job::new(&kafka, &topic, "");
    kafka.produce(&topic, some(0, 3).collect()).await;
    let (producer, name) = (kafka.producer(Some(&unique("tx"))), topic.clone());
    let producer = spawn_blocking(move || {
        producer.init_transactions(LIMIT).unwrap();
        producer.begin_transaction().unwrap();
        send_all(&producer, &name, &some(0, 2).collect::<Vec<_>>());
        producer
    });
    let producer = producer.await.unwrap();
    kill_and_start_again(&kafka, &topic).await;
    spawn_blocking(move || producer.commit_transaction(LIMIT).unwrap()).await.unwrap();
    wait_until("the commit is written", LIMIT, async || kafka.offsets(&topic, 0).await.1 == 6).await;
    // Records 0 to 4 of the first leader, the marker at 5 of the second one.
    job.reads_all(&[]).await;
    assert_eq!(job.tables.offsets().await, [(0, 6)].into());
    let first = job.tables.leader_epoch().await.expect("an epoch of the end, also where a marker is");

    let size = kafka.server().run(&["stat", "-c", "%s", &log_file(&topic)]).await.unwrap().0;
    kill_and_start_again(&kafka, &topic).await;
    // The end is told to a third leader: no alarm.
    kafka.transactions(&topic, vec![(End::Commit, some(0, 1).collect())]).await;
    wait_until("the commit is written", LIMIT, async || kafka.offsets(&topic, 0).await.1 == 8).await;
    job.reads_all(&[]).await;
    assert_eq!(job.tables.offsets().await, [(0, 8)].into());
    let second = job.tables.leader_epoch().await.expect("an epoch");
    assert!(second > first, "{first} {second}");

    kafka.server().run(&["truncate", "-s", size.trim(), &log_file(&topic)]).await.unwrap();
    kill_and_start_again(&kafka, &topic).await;
    assert_eq!(kafka.offsets(&topic, 0).await, (0, 6));
    kafka.produce(&topic, some(0, 10).collect()).await;
    let (code, told) = job.until_latest(&[]).await;
    assert!(code == 4 && told.contains("reason=TRUNCATED"), "{code}: {told}");
    let before = job.tables.places().await;
    assert_eq!(before.len(), 6);
    // Skipped, it goes on in the new history at the stored offset, and says so. Also where the database refuses a record there,
    // and the batch runs again to find it; what a trigger says is no business of the log's.
    let trigger = "CREATE TRIGGER no BEFORE INSERT ON events WHEN new.off = 9 BEGIN SELECT RAISE(ABORT, 'canary'); END";
    job.tables.execute(trigger).await;
    let (code, told) = job.until_latest(&[SKIP, "input.on_error=dead_letter"]).await;
    assert!(code == 0 && told.contains("the batch is run again") && !told.contains("canary"), "{code}: {told}");
    assert_eq!(job.tables.places().await[6..], [8, 10, 11, 12, 13, 14, 15].map(|offset| (0, offset)));
    assert_eq!(job.tables.dead_letters().await, [(0, 9)]);
    assert_eq!(job.tables.lost_ranges().await, [(0, 8, None, "truncated".to_owned())]);
    // Once.
    kafka.produce(&topic, some(0, 1).collect()).await;
    job.reads_all(&[]).await;
    assert_eq!(job.tables.offsets().await, [(0, 17)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_before_the_committed_offset_ends_the_job_or_is_skipped_and_recorded() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, some(0, 10).collect()).await;
    let job = Job::new(&kafka, &topic, "");
    job.reads_all(&[]).await;
    // As after a log was lost and begun anew: the store knows offsets that it does not have.
    job.tables.move_offset(0, 25).await;
    let (code, told) = job.until_latest(&[]).await;
    assert!(code == 4 && told.contains("reason=TRUNCATED"), "{code}: {told}");
    job.reads_all(&[SKIP]).await;
    assert_eq!(job.tables.lost_ranges().await, [(0, 25, None, "truncated".to_owned())]);
    assert_eq!(job.tables.offsets().await, [(0, 10)].into());
    kafka.produce(&topic, some(0, 5).collect()).await;
    job.reads_all(&[]).await;
    assert_eq!(job.tables.places().await, (0..15).map(|offset| (0, offset)).collect::<Vec<_>>());
}

/// Sums what each record of the last minute says, batch by batch.
async fn sum_windows(kafka: &Kafka, topic: &str, tables: &Tables, on_data_loss: OnDataLoss) -> Result<(), Error> {
    const INTERVAL: Duration = Duration::from_millis(100);
    let builder = StreamingContext::builder("sums", INTERVAL).store(&tables.url()).unwrap();
    let context = builder.until_latest(true).build().unwrap();
    let stream = DirectStream::topics([topic]).bootstrap_servers(kafka.brokers()).on_data_loss(on_data_loss);
    let numbers = context.direct_stream(stream).unwrap().map(|record| record.text().unwrap().parse::<i64>().unwrap());
    let sums = numbers.reduce_by_window(|one, other| one + other, Duration::from_secs(60), INTERVAL).unwrap();
    let output = Append::into("sums").typed_column("total", ColumnType::BigInt).create();
    sums.map(|total| (total,)).save_to_table(output).unwrap();
    context.start().await?;
    context.await_termination().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_never_has_records_of_another_topic_in_place_of_those_that_are_gone() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, vec![record("1"), record("1"), record("1")]).await;
    sum_windows(&kafka, &topic, &tables, OnDataLoss::Fail).await.unwrap();
    kafka.delete_topic(&topic).await;
    kafka.create_topic(&topic, 1, &[]).await;
    kafka.produce(&topic, vec![record("100"), record("100"), record("100")]).await;
    let error = sum_windows(&kafka, &topic, &tables, OnDataLoss::Fail).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OffsetsLost, "{}", error.chain());
    assert!(error.chain().contains("is not the topic of that name any more"), "{}", error.chain());
    sum_windows(&kafka, &topic, &tables, OnDataLoss::Skip).await.unwrap();
    let totals: Vec<(i64,)> = tables.rows("SELECT DISTINCT total FROM sums ORDER BY total".to_owned()).await.unwrap();
    assert_eq!(totals, [(3,), (300,)], "the first topic's records, and then the second one's, each once");
}
