//! Ranges, gaps and positions, case by case.

use rdkafka::producer::Producer as _;

use super::*;
use crate::support::{
    End,
    kafka::{record, send_all, tombstone},
    shared_kafka, unique,
};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_range_gives_exactly_its_records() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    let words = ["the", "quick", "brown", "fox"];
    kafka.produce(&topic, words.iter().map(|word| record(*word)).collect()).await;
    let reader = reader(&kafka);
    blocking(move || {
        let (counts, records) = read(&reader, &range(&topic, 0, 0, 4)).unwrap();
        assert_eq!(records.iter().map(|r| r.text().unwrap()).collect::<Vec<_>>(), words);
        assert_eq!((counts.records, counts.gaps, counts.bytes), (4, 0, 16));
        let (middle, records) = read(&reader, &range(&topic, 0, 1, 3)).unwrap();
        assert_eq!(offsets(&records), [1, 2]);
        assert_ne!(middle.checksum, counts.checksum);
        let (again, _) = read(&reader, &range(&topic, 0, 0, 4)).unwrap();
        assert_eq!(again, counts);
        let (empty, records) = read(&reader, &range(&topic, 0, 2, 2)).unwrap();
        assert_eq!((empty, records.len()), (RangeCounts::default(), 0));
    })
    .await;
}

#[tokio::test]
async fn markers_and_aborted_records_are_gaps() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    let many = |from: i32, until: i32| (from..until).map(|n| record(n.to_string())).collect::<Vec<_>>();
    let transactions = vec![(End::Commit, many(0, 5)), (End::Abort, many(5, 8)), (End::Commit, many(8, 10))];
    kafka.transactions(&topic, transactions).await;
    let (reader, lookup) = (reader(&kafka), lookup(&kafka));
    blocking(move || {
        // 5 records, marker, 3 aborted, marker, 2 records, marker.
        assert_eq!(latest(&lookup, &topic, 0), 13);
        let (counts, records) = read(&reader, &range(&topic, 0, 0, 13)).unwrap();
        assert_eq!(offsets(&records), [0, 1, 2, 3, 4, 10, 11]);
        assert_eq!((counts.records, counts.gaps), (7, 6));
        let (counts, records) = read(&reader, &range(&topic, 0, 5, 10)).unwrap();
        assert_eq!((counts.records, counts.gaps, records.len()), (0, 5, 0));
        for until in 1..=13 {
            let (counts, _) = read(&reader, &range(&topic, 0, until - 1, until)).unwrap();
            assert_eq!(counts.records + counts.gaps, 1, "at {until}");
        }
    })
    .await;
}

/// DK-44: what is open, and what was aborted, is there for whoever asks for it.
#[tokio::test]
async fn dk_44_read_uncommitted_sees_open_and_aborted_records() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    let settings = ReaderSettings { isolation: IsolationLevel::ReadUncommitted, ..settings(&kafka) };
    let reader = DirectReader::new(settings, SystemClock::shared()).unwrap();
    let (lookup, producer) = (lookup(&kafka), kafka.producer(Some(&unique("open"))));
    blocking(move || {
        let many = |from: i32, until: i32| (from..until).map(|n| record(n.to_string())).collect::<Vec<_>>();
        let at = |isolation| lookup.latest(&[TopicPartition::new(topic.as_str(), 0)], isolation)[0].outcome.offset();
        let read = |from, until| offsets(&read(&reader, &range(&topic, 0, from, until)).unwrap().1);
        producer.init_transactions(LIMIT).unwrap();
        producer.begin_transaction().unwrap();
        send_all(&producer, &topic, &many(0, 5));
        // Its own isolation level plans none of them, this one all.
        assert_eq!(at(IsolationLevel::ReadUncommitted), Offset::new(5));
        assert_eq!(at(IsolationLevel::ReadCommitted), Offset::new(0));
        assert_eq!((read(0, 3), read(3, 5)), (vec![0, 1, 2], vec![3, 4]));
        producer.commit_transaction(LIMIT).unwrap();
        producer.begin_transaction().unwrap();
        send_all(&producer, &topic, &many(6, 11));
        producer.abort_transaction(LIMIT).unwrap();
        // 5 is the marker of the commit.
        assert_eq!((read(5, 9), read(9, 11)), (vec![6, 7, 8], vec![9, 10]));
        producer.begin_transaction().unwrap();
        send_all(&producer, &topic, &many(12, 17));
        producer.commit_transaction(LIMIT).unwrap();
        assert_eq!((read(11, 15), read(15, 17)), (vec![12, 13, 14], vec![15, 16]));
    })
    .await;
}

#[tokio::test]
async fn every_part_of_a_record_arrives() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    let full =
        record("v").key("k").header("h", Some(b"1")).header("none", None).header("h", Some(b"")).timestamp(1_234);
    kafka.produce(&topic, vec![full, tombstone("gone"), record("")]).await;
    let reader = reader(&kafka);
    blocking(move || {
        let (counts, records) = read(&reader, &range(&topic, 0, 0, 3)).unwrap();
        let headers: Vec<_> = records[0].headers();
        let header = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
        assert_eq!(headers, [header("h", Some(b"1")), header("none", None), header("h", Some(b""))]);
        assert_eq!((records[0].key(), records[0].value()), (Some(&b"k"[..]), Some(&b"v"[..])));
        assert_eq!(records[0].timestamp().as_ms(), Some(1_234));
        assert_eq!((records[1].key(), records[1].value()), (Some(&b"gone"[..]), None));
        assert_eq!((records[2].key(), records[2].value()), (None, Some(&b""[..])));
        assert_eq!(counts.leader_epoch, Some(0));
        let mut sum = 0;
        for record in &records {
            let headers = record.headers();
            let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
            sum = directstream::read::checksum::extend(
                sum,
                record.offset().get(),
                record.key(),
                record.value(),
                &headers,
            );
        }
        assert_eq!(counts.checksum, sum);
    })
    .await;
}

#[tokio::test]
async fn eight_partitions_are_read_at_the_same_time() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(8).await;
    let records = (0..80_000).map(|n: i32| record(n.to_string()).partition(n % 8)).collect();
    kafka.produce(&topic, records).await;
    let reader = reader(&kafka);
    blocking(move || {
        for (from, until) in [(0, 3_000), (3_000, 10_000), (0, 10_000)] {
            let ranges: Vec<_> = (0..8).map(|p| range(&topic, p, from, until)).collect();
            reader.prepare(&ranges, &|_| None).unwrap();
            std::thread::scope(|scope| {
                for range in &ranges {
                    let reader = &reader;
                    scope.spawn(move || {
                        let (counts, records) = read(reader, range).unwrap();
                        assert_eq!(offsets(&records), (from..until).collect::<Vec<_>>());
                        assert_eq!((counts.records, counts.gaps), (range.count(), 0));
                    });
                }
            });
        }
        assert_eq!(reader.client_errors(Duration::ZERO), []);
    })
    .await;
}
