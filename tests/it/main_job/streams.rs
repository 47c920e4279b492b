//! Several streams in one context: read side by side, committed together, each within its own rate.

use std::{collections::BTreeSet, time::Duration};

use directstream::{
    Error, ErrorKind, TopicPartition,
    stream::{DirectStream, StreamingContext, Termination},
    transform::{Append, DirectKafkaInputDStream},
    types::ColumnType,
};

use super::tables::Tables;
use crate::support::{Kafka, kafka as image, record, shared_kafka};

const INTERVAL: Duration = Duration::from_millis(50);
const NAME: &str = "streams";

fn context(tables: &Tables) -> StreamingContext {
    let builder = StreamingContext::builder(NAME, INTERVAL).store(&tables.url()).unwrap();
    builder.until_latest(true).build().unwrap()
}

/// Which stream, partition and offset: a row for each record.
fn save(context: &StreamingContext, streams: impl IntoIterator<Item = DirectKafkaInputDStream>) {
    let places = streams.into_iter().zip(0_i64..).map(|(stream, number)| {
        stream.map(move |record| (number, i64::from(record.partition()), record.offset().get()))
    });
    let output = Append::into("places")
        .typed_column("stream", ColumnType::BigInt)
        .typed_column("part", ColumnType::BigInt)
        .typed_column("off", ColumnType::BigInt)
        .create();
    context.union(places).unwrap().save_to_table(output).unwrap();
}

async fn run(tables: &Tables, streams: impl IntoIterator<Item = DirectStream>) -> Result<(), Error> {
    let context = context(tables);
    let streams: Vec<_> = streams.into_iter().map(|stream| context.direct_stream(stream).unwrap()).collect();
    save(&context, streams);
    context.start().await?;
    let ended = context.await_termination().await?;
    assert_eq!(ended, Termination::ReachedLatest);
    Ok(())
}

async fn places(tables: &Tables) -> Vec<(i64, i64, i64)> {
    let sql = "SELECT stream, part, off FROM places ORDER BY stream, part, off";
    tables.rows(sql.to_owned()).await.unwrap()
}

async fn produce(kafka: &Kafka, topic: &str, partition: i32, count: usize) {
    let records = (0..count).map(|n| record(n.to_string()).partition(partition)).collect();
    kafka.produce(topic, records).await;
}

fn all(stream: i64, partition: i64, count: i64) -> Vec<(i64, i64, i64)> {
    (0..count).map(|offset| (stream, partition, offset)).collect()
}

async fn two_clusters(tables: Tables) {
    let (one, other) = (shared_kafka().await, Kafka::start(image()).await);
    let (orders, returns) = (one.topic(2).await, other.topic(1).await);
    let streams = || {
        let first = DirectStream::topics([&orders]).bootstrap_servers(one.brokers());
        [first, DirectStream::topics([&returns]).bootstrap_servers(other.brokers())]
    };
    produce(&one, &orders, 0, 30).await;
    produce(&one, &orders, 1, 20).await;
    produce(&other, &returns, 0, 10).await;
    run(&tables, streams()).await.unwrap();
    let expected = [all(0, 0, 30), all(0, 1, 20), all(1, 0, 10)].concat();
    assert_eq!(places(&tables).await, expected);
    // The next run goes on in both, from one transaction's offsets.
    produce(&other, &returns, 0, 5).await;
    produce(&one, &orders, 1, 1).await;
    run(&tables, streams()).await.unwrap();
    let expected = [all(0, 0, 30), all(0, 1, 21), all(1, 0, 15)].concat();
    assert_eq!(places(&tables).await, expected);
    // Both batches have the ranges of both streams in the ledger.
    let sql = format!("SELECT CAST(batch_seq AS bigint), topic FROM {}", tables.own("batch_ranges"));
    let ranges: BTreeSet<(i64, String)> = tables.rows::<(i64, String)>(sql).await.unwrap().into_iter().collect();
    let first = ranges.iter().map(|(batch, _)| *batch).min().unwrap();
    let of_first: BTreeSet<&str> =
        ranges.iter().filter(|(batch, _)| *batch == first).map(|(_, topic)| topic.as_str()).collect();
    assert_eq!(of_first, BTreeSet::from([&*orders, &*returns]));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_two_clusters_are_one_batch_with_postgres() {
    two_clusters(Tables::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_two_clusters_are_one_batch_with_sqlite() {
    two_clusters(Tables::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stream_keeps_to_its_own_rate() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let (slow, fast) = (kafka.topic(1).await, kafka.topic(1).await);
    produce(&kafka, &slow, 0, 20).await;
    produce(&kafka, &fast, 0, 500).await;
    let of = |topic: &String| DirectStream::topics([topic]).bootstrap_servers(kafka.brokers());
    run(&tables, [of(&slow).max_rate_per_partition(100), of(&fast)]).await.unwrap();
    let sql = format!(
        "SELECT topic, CAST(until_offset - from_offset AS bigint) FROM {} ORDER BY batch_seq",
        tables.own("batch_ranges")
    );
    let ranges: Vec<(String, i64)> = tables.rows(sql).await.unwrap();
    let of = |topic: &String| -> Vec<i64> {
        ranges.iter().filter(|(of, _)| of == topic).map(|(_, count)| *count).filter(|count| *count > 0).collect()
    };
    // A hundred a second are five in 50 ms; the other stream has no limit, and is read at once.
    assert_eq!((of(&slow), of(&fast)), (vec![5; 4], vec![500]));
}

#[tokio::test(flavor = "multi_thread")]
async fn single_partitions_are_read_and_two_streams_may_share_a_topic() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let topic = kafka.topic(3).await;
    for (partition, count) in [(0, 3), (1, 4), (2, 5)] {
        produce(&kafka, &topic, partition, count).await;
    }
    let of = |partitions: &[i32]| {
        let of = |partition: &i32| TopicPartition::new(topic.as_str(), *partition);
        DirectStream::partitions(partitions.iter().map(of)).bootstrap_servers(kafka.brokers())
    };
    run(&tables, [of(&[2]), of(&[0])]).await.unwrap();
    assert_eq!(places(&tables).await, [all(0, 2, 5), all(1, 0, 3)].concat());
    // A partition that is not there is told at start.
    let error = run(&Tables::sqlite(), [of(&[0, 7])]).await.unwrap_err();
    assert!(error.to_string().contains("partition=7"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_streams_of_one_partition_are_refused() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let topic = kafka.topic(1).await;
    let of = |stream: DirectStream| stream.bootstrap_servers(kafka.brokers());
    let streams = [of(DirectStream::topics([&topic])), of(DirectStream::topic_pattern(format!("{topic}.*")))];
    let error = run(&tables, streams).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("two streams of one context"), "{error}");
}
