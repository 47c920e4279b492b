//! Offsets that are gone, topics that are gone, and how soon that is told.

use std::time::Instant;

use directstream::{ErrorKind, kafka::TopicAnswer};

use super::*;
use crate::support::{kafka::record, shared_kafka};

fn ten() -> Vec<crate::support::kafka::Record> {
    (0..10).map(|n: i32| record(n.to_string())).collect()
}

/// Reads a range that cannot be read: the error, and that it came in time.
fn fails(reader: &DirectReader, range: &OffsetRange, kind: ErrorKind, word: &str) {
    let started = Instant::now();
    let error = read(reader, range).unwrap_err();
    let took = started.elapsed();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(word), "{error}");
    assert_eq!(error.offset_range(), Some(range));
    assert!(took < Duration::from_secs(10), "{took:?}: {error}");
}

#[tokio::test]
async fn deleted_records_are_lost_offsets() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, ten()).await;
    kafka.delete_records(&topic, &[(0, 4)]).await;
    let (reader, lookup) = (reader(&kafka), lookup(&kafka));
    blocking(move || {
        fails(&reader, &range(&topic, 0, 0, 10), ErrorKind::OffsetsLost, "reason=retention");
        // The partition is stopped now: another range starts it again.
        let (counts, records) = read(&reader, &range(&topic, 0, 4, 10)).unwrap();
        assert_eq!((counts.records, offsets(&records)), (6, (4..10).collect()));
        let earliest = lookup.earliest(&[TopicPartition::new(&*topic, 0)], IsolationLevel::ReadCommitted);
        assert_eq!(earliest[0].outcome.offset(), Offset::new(4));
    })
    .await;
}

#[tokio::test]
async fn an_offset_past_the_end_is_a_truncated_log() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, ten()).await;
    let reader = reader(&kafka);
    blocking(move || {
        fails(&reader, &range(&topic, 0, 1_000, 1_010), ErrorKind::OffsetsLost, "reason=truncated");
        // The end lies past the log, the start does not: no short result, and no endless wait.
        fails(&reader, &range(&topic, 0, 0, 11), ErrorKind::OffsetsLost, "reason=truncated");
        assert_eq!(read(&reader, &range(&topic, 0, 0, 10)).unwrap().0.records, 10);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_topic_or_partition_is_named() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, ten()).await;
    let reader = reader(&kafka);
    blocking(move || {
        fails(&reader, &range("there-is-no-such-topic", 0, 0, 1), ErrorKind::Unavailable, "does not exist");
        fails(&reader, &range(&topic, 7, 0, 1), ErrorKind::Unavailable, "does not exist");
        assert_eq!(read(&reader, &range(&topic, 0, 0, 10)).unwrap().0.records, 10);
    })
    .await;
}

#[tokio::test]
async fn a_topic_that_is_deleted_and_made_again_is_another_topic() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, ten()).await;
    let (reader, lookup) = (reader(&kafka), lookup(&kafka));
    let id = |lookup: &OffsetLookup, topic: &str| match &lookup.topic_ids(&[topic])[0] {
        TopicAnswer::Topic { id, partitions: 1 } => id.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    let (same, name) = (Arc::clone(&reader), topic.clone());
    let asked = Arc::clone(&lookup);
    let first = blocking(move || {
        assert_eq!(read(&same, &range(&name, 0, 0, 10)).unwrap().0.records, 10);
        id(&asked, &name)
    })
    .await;
    kafka.delete_topic(&topic).await;
    let (same, name) = (Arc::clone(&reader), topic.clone());
    let asked = Arc::clone(&lookup);
    blocking(move || {
        assert_eq!(asked.topic_ids(&[&name]), [TopicAnswer::Unknown]);
        fails(&same, &range(&name, 0, 10, 11), ErrorKind::Unavailable, "does not exist");
    })
    .await;
    kafka.create_topic(&topic, 1, &[]).await;
    kafka.produce(&topic, ten().split_off(5)).await;
    blocking(move || {
        assert_ne!(id(&lookup, &topic), first);
        fails(&reader, &range(&topic, 0, 10, 11), ErrorKind::OffsetsLost, "reason=truncated");
    })
    .await;
}
