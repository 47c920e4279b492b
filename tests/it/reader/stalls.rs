//! A range that no fetch can complete, and brokers that go away.

use std::time::Instant;

use directstream::{
    ErrorKind,
    stream::{DirectStream, create_rdd},
};
use rdkafka::{
    Message as _,
    consumer::{BaseConsumer, Consumer as _},
    producer::Producer as _,
};

use super::*;
use crate::support::{
    kafka as broker,
    kafka::{record, send_all},
    unique, wait_until,
};

const LIMIT: Duration = Duration::from_secs(60);

/// The first offset at or after `from` at which a read_uncommitted consumer sees a record.
fn first_record(kafka: &Kafka, topic: &str, from: i64) -> i64 {
    let consumer: BaseConsumer =
        kafka.client().set("group.id", "probe").set("isolation.level", "read_uncommitted").create().unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(topic, 0, rdkafka::Offset::Offset(from)).unwrap();
    consumer.assign(&list).unwrap();
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < LIMIT, "no record at {from} or behind it");
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            return message.offset();
        }
    }
}

/// Offsets 0-4 are committed; 5-9 were aborted and are cleaned away; at 10 an open transaction begins. On Kafka 3.9 a
/// reader at 5 gets no record, no end and no new position while that transaction is open.
#[tokio::test]
async fn a_range_that_compaction_has_emptied_before_an_open_transaction_ends() {
    let kafka = Kafka::start(broker().env("KAFKA_LOG_CLEANER_BACKOFF_MS", "100")).await;
    let topic = unique("stall");
    let compacting = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "0"),
    ];
    // The cleaner keeps the last batch of each producer, so it must not come before that one has gone on.
    kafka.create_topic(&topic, 1, &[&compacting[..], &[("min.compaction.lag.ms", "3600000")]].concat()).await;
    let keyed = |from: i32, until: i32| (from..until).map(|n| record("v").key(n.to_string())).collect::<Vec<_>>();
    kafka.produce(&topic, keyed(0, 5)).await;
    let (aborting, open) = (kafka.producer(Some(&unique("a"))), kafka.producer(Some(&unique("b"))));
    let name = topic.clone();
    let open = blocking(move || {
        aborting.init_transactions(LIMIT).unwrap();
        open.init_transactions(LIMIT).unwrap();
        aborting.begin_transaction().unwrap();
        send_all(&aborting, &name, &keyed(10, 15));
        std::thread::sleep(Duration::from_millis(300));
        open.begin_transaction().unwrap();
        assert_eq!(send_all(&open, &name, &keyed(20, 21)), [(0, 10)]);
        // Its marker lies behind the open record, where no committed read gets.
        aborting.abort_transaction(LIMIT).unwrap();
        for round in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            aborting.begin_transaction().unwrap();
            send_all(&aborting, &name, &keyed(30 + round, 31 + round));
            aborting.commit_transaction(LIMIT).unwrap();
        }
        open
    })
    .await;
    kafka.alter_topic(&topic, &compacting).await;
    let (reader, lookup) = (reader(&kafka), lookup(&kafka));
    blocking(move || {
        let started = Instant::now();
        while first_record(&kafka, &topic, 5) < 10 {
            assert!(started.elapsed() < LIMIT, "the cleaner did not come");
        }
        assert_eq!(latest(&lookup, &topic, 0), 10);
        let started = Instant::now();
        let (counts, records) = read(&reader, &range(&topic, 0, 0, 10)).unwrap();
        eprintln!("the range ended after {:?}", started.elapsed());
        assert_eq!((counts.records, counts.gaps, offsets(&records)), (5, 5, (0..5).collect()));
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        open.commit_transaction(LIMIT).unwrap();
        let started = Instant::now();
        let end = loop {
            assert!(started.elapsed() < LIMIT, "the open transaction's marker is not written");
            match latest(&lookup, &topic, 0) {
                10 => std::thread::sleep(Duration::from_millis(20)),
                end => break end,
            }
        };
        let (counts, records) = read(&reader, &range(&topic, 0, 10, end)).unwrap();
        assert_eq!((offsets(&records)[0], counts.records + counts.gaps), (10, u64::try_from(end - 10).unwrap()));
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_was_killed_is_read_on_when_it_is_back() {
    let kafka = Kafka::start(broker()).await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, (0..10).map(|n: i32| record(n.to_string())).collect()).await;
    let reader = reader(&kafka);
    let (same, name) = (Arc::clone(&reader), topic.clone());
    blocking(move || assert_eq!(read(&same, &range(&name, 0, 0, 5)).unwrap().0.records, 5)).await;
    kafka.server().kill().await;
    let (same, name) = (Arc::clone(&reader), topic.clone());
    let reading = spawn_blocking(move || {
        let started = Instant::now();
        loop {
            // What was prefetched is read without a broker; the seek back is not.
            match read(&same, &range(&name, 0, 2, 10)) {
                Ok((_, records)) => return offsets(&records),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
            assert!(started.elapsed() < Duration::from_secs(180), "it never came back");
        }
    });
    let noticed = async || !reader.client_errors(Duration::ZERO).is_empty();
    wait_until("the reader has noticed", LIMIT, noticed).await;
    kafka.server().start_again().await;
    assert_eq!(reading.await.unwrap(), (2..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn cancelling_ends_a_read_that_waits() {
    let kafka = crate::support::shared_kafka().await;
    let topic = kafka.topic(1).await;
    let reader = reader(&kafka);
    blocking(move || {
        let started = Instant::now();
        let late = || started.elapsed() > Duration::from_millis(300);
        let stop = reader.read(&range(&topic, 0, 0, 5), &late, &mut |_| Flow::Continue(()));
        assert!(matches!(stop, Err(Stop::Failed(error)) if error.to_string().contains("cancelled")));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    })
    .await;
}

/// DK-35: of a compacted log every action sees what is there, and counts that alone.
#[tokio::test(flavor = "multi_thread")]
async fn dk_35_actions_on_a_compacted_topic() {
    let kafka = Kafka::start(broker().env("KAFKA_LOG_CLEANER_BACKOFF_MS", "100")).await;
    let topic = unique("compacted");
    let compacting = [("cleanup.policy", "compact"), ("segment.ms", "100"), ("min.cleanable.dirty.ratio", "0.01")];
    kafka.create_topic(&topic, 1, &compacting).await;
    let written = [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1"), ("c", "2"), ("b", "2"), ("b", "3")];
    let (producer, name) = (kafka.producer(None), topic.clone());
    blocking(move || {
        for (key, value) in written {
            send_all(&producer, &name, &[record(value).key(key)]);
        }
        // Later segments, so that the first one is closed.
        for n in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            send_all(&producer, &name, &[record("later").key(format!("later-{n}"))]);
        }
    })
    .await;
    let stream = DirectStream::topics([&topic]).bootstrap_servers(kafka.brokers());
    let rdd = |from, until| create_rdd(&stream, [range(&topic, 0, from, until)]).unwrap();
    let compacted = async || rdd(0, 7).count().unwrap() == 3;
    wait_until("the cleaner has come", LIMIT, compacted).await;
    let pair = |record: Record| {
        (String::from_utf8_lossy(record.key().unwrap()).into_owned(), record.text().unwrap().to_owned())
    };
    let pairs = rdd(0, 7).map(pair);
    let kept = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let all = kept(&[("a", "2"), ("c", "2"), ("b", "3")]);
    assert_eq!((pairs.collect().unwrap(), pairs.take(17).unwrap()), (all.clone(), all));
    assert_eq!(pairs.take(1).unwrap(), kept(&[("a", "2")]));
    assert!(!pairs.is_empty().unwrap() && rdd(0, 1).is_empty().unwrap());
    assert_eq!(rdd(0, 0).count().unwrap(), 0);
}
