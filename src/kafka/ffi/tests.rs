//! The C side, against librdkafka's own mock cluster: needs no server, and can run under a sanitizer.

use std::{collections::HashMap, sync::mpsc, thread};

use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _},
};

use rdkafka_sys as sys;

use super::*;
use crate::types::{Chunk, Headers, Record, TopicPartition};

const RECORDS: i64 = 2_000;

struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
    topic_partition: TopicPartition,
}

/// A partition with records; every tenth has headers, every hundredth is a tombstone.
fn mock() -> Mock {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let producer: BaseProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    for n in 0..RECORDS {
        let (key, value) = (format!("k{n}"), format!("value {n}"));
        let mut record = BaseRecord::to("t").partition(0).key(&key);
        if n % 100 != 0 {
            record = record.payload(&value);
        }
        if n % 10 == 0 {
            let headers = OwnedHeaders::new().insert(Header { key: "n", value: Some(&value) });
            record = record.headers(headers.insert(Header { key: "none", value: None::<&[u8]> }));
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    Mock { cluster, topic_partition: TopicPartition::new("t", 0) }
}

fn client(mock: &Mock) -> std::sync::Arc<Client> {
    let servers = mock.cluster.bootstrap_servers();
    let settings = [
        ("bootstrap.servers", servers.as_str()),
        ("group.id", "ffi"),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "error"),
    ];
    Client::consumer(settings).unwrap()
}

fn open(mock: &Mock, offset: i64) -> PartitionQueue {
    let client = client(mock);
    let queue = PartitionQueue::open(&client, &mock.topic_partition).unwrap();
    let place = Place { topic_partition: &mock.topic_partition, offset, leader_epoch: None };
    client.assign(&[place]).unwrap();
    while client.seek(&[place], Duration::from_secs(5)).unwrap() == [Code::STATE] {}
    queue
}

/// The floor: takes `records` records from the queues of `partitions` in bulk, touches each payload, and destroys them.
/// Nothing of this module is used but opening the queues.
pub(crate) fn take_raw(client: &std::sync::Arc<Client>, partitions: &[TopicPartition], records: u64) -> u64 {
    let open = |tp| PartitionQueue::open(client, tp).unwrap();
    let queues: Vec<_> = partitions.iter().map(open).collect();
    let place = |topic_partition| Place { topic_partition, offset: 0, leader_epoch: None };
    client.assign(&partitions.iter().map(place).collect::<Vec<_>>()).unwrap();
    let mut buffer = vec![std::ptr::null_mut(); 10_000];
    let (mut seen, mut touched, mut idle) = (0, 0_u64, 0);
    while seen < records {
        let before = seen;
        for (index, queue) in queues.iter().enumerate() {
            let wait = if idle > 0 && idle % queues.len() == index { 2 } else { 0 };
            // SAFETY: the queue lives, the buffer is as long as is said, and each message is destroyed once.
            unsafe {
                let raw = queue.raw_for_tests();
                let count = sys::rd_kafka_consume_batch_queue(raw, wait, buffer.as_mut_ptr(), buffer.len());
                for &message in &buffer[..usize::try_from(count).unwrap()] {
                    if Code::of_message(message) == Code::NONE {
                        let payload = std::slice::from_raw_parts((*message).payload.cast::<u8>(), (*message).len);
                        touched += u64::from(payload.first().copied().unwrap_or(0));
                        seen += 1;
                    }
                    sys::rd_kafka_message_destroy(message);
                }
            }
        }
        idle = if seen == before { idle + 1 } else { 0 };
    }
    assert!(touched > 0);
    seen
}

/// All batches up to the end of the partition.
fn take_all(queue: &mut PartitionQueue, max: usize) -> Vec<MessageBatch> {
    let (mut batches, mut entries) = (Vec::new(), Vec::new());
    for _ in 0..10_000 {
        if queue.take(max, Duration::ZERO, &mut entries) == 0 {
            queue.take(max, Duration::from_millis(20), &mut entries);
        }
        for entry in entries.drain(..) {
            match entry {
                Entry::Records(batch) => batches.push(batch),
                Entry::Eof { offset } if offset >= RECORDS => return batches,
                Entry::Eof { .. } => {}
                Entry::Failed { code, offset, text } => panic!("{code} at {offset}: {text}"),
            }
        }
    }
    panic!("no end after {} batches", batches.len());
}

fn offsets(batches: &[MessageBatch]) -> Vec<i64> {
    batches.iter().flat_map(|batch| batch.views().map(MessageView::offset).collect::<Vec<_>>()).collect()
}

#[test]
fn batches_outlive_their_queue_and_their_client() {
    let mock = mock();
    let mut queue = open(&mock, 0);
    let batches = take_all(&mut queue, 333);
    drop(queue);
    drop(mock);
    assert_eq!(offsets(&batches), (0..RECORDS).collect::<Vec<_>>());
    let (mut nulls, mut headers) = (0, 0);
    for (n, (batch, index)) in batches.iter().flat_map(|batch| (0..batch.len()).map(move |i| (batch, i))).enumerate() {
        assert_eq!(batch.key(index), Some(format!("k{n}").as_bytes()));
        match batch.value(index) {
            Some(value) => assert_eq!(value, format!("value {n}").as_bytes()),
            None => nulls += 1,
        }
        let expected: Headers = if n % 10 == 0 {
            vec![("n".to_owned(), Some(format!("value {n}").into_bytes())), ("none".to_owned(), None)]
        } else {
            Headers::new()
        };
        assert_eq!(batch.headers(index), expected);
        headers += batch.headers(index).len();
        assert!(batch.timestamp(index).as_ms().is_some());
    }
    assert_eq!((nulls, headers), (RECORDS / 100, usize::try_from(RECORDS / 10 * 2).unwrap()));
}

#[test]
fn each_message_is_dropped_once_whatever_thread_and_part_it_is_in() {
    let mock = mock();
    let batches = take_all(&mut open(&mock, 0), 97);
    let (give, take) = mpsc::channel::<Vec<Record>>();
    thread::scope(|scope| {
        // Reads and drops what the other threads send, last of all.
        scope.spawn(|| {
            let records: Vec<_> = take.into_iter().flatten().collect();
            let mut seen: HashMap<i64, u32> = HashMap::new();
            for record in &records {
                *seen.entry(record.offset().get()).or_default() += 1;
                assert!(record.headers().len() <= 2);
            }
            assert_eq!(seen.len(), usize::try_from(RECORDS).unwrap());
            assert!(seen.values().all(|&times| times == 2));
        });
        for batch in batches {
            let give = give.clone();
            scope.spawn(move || {
                let middle = batch.len() / 3;
                let (first, rest) = batch.split_at(middle);
                let (rest, last) = rest.split_at(middle);
                let (none, last) = last.split_at(0);
                assert!(none.is_empty());
                for part in [last, first, rest] {
                    let chunk = std::sync::Arc::new(Chunk::Kafka(part));
                    let records: Vec<_> = chunk.records().collect();
                    drop(chunk);
                    give.send(records.clone()).unwrap();
                    give.send(records).unwrap();
                }
            });
        }
        drop(give);
    });
}

#[test]
fn what_is_not_taken_is_destroyed_with_its_client() {
    let mock = mock();
    let mut queue = open(&mock, 0);
    let mut entries = Vec::new();
    while entries.is_empty() {
        queue.take(10, Duration::from_millis(20), &mut entries);
    }
    assert!(queue.len() <= usize::try_from(RECORDS).unwrap());
}

#[test]
fn a_seek_brings_the_records_again_and_forgets_the_position() {
    let mock = mock();
    let mut queue = open(&mock, 1_990);
    assert_eq!(queue.position(), None);
    assert_eq!(offsets(&take_all(&mut queue, 100)), (1_990..RECORDS).collect::<Vec<_>>());
    // One too high, as documented: the entry at the end is no record.
    assert_eq!(queue.position(), Some(RECORDS + 1));
    let place = Place { topic_partition: &mock.topic_partition, offset: 1_995, leader_epoch: None };
    assert_eq!(queue.client().seek(&[place], Duration::from_secs(5)).unwrap(), [Code::NONE]);
    assert_eq!(queue.position(), None);
    assert_eq!(offsets(&take_all(&mut queue, 100)), (1_995..RECORDS).collect::<Vec<_>>());
}

#[test]
fn nothing_lies_on_the_main_queue() {
    let mock = mock();
    let mut queue = open(&mock, 0);
    take_all(&mut queue, 100);
    let strays = queue.client().poll_events(1_000);
    assert!(strays.iter().all(|event| !matches!(event, ClientEvent::Stray { .. })), "{strays:?}");
}

#[test]
fn a_partition_is_assigned_again_after_it_was_given_up() {
    let mock = mock();
    let mut queue = open(&mock, 1_000);
    take_all(&mut queue, 500);
    let client = std::sync::Arc::clone(queue.client());
    drop(queue);
    client.unassign(&[&mock.topic_partition]).unwrap();
    let mut queue = PartitionQueue::open(&client, &mock.topic_partition).unwrap();
    let place = Place { topic_partition: &mock.topic_partition, offset: 500, leader_epoch: None };
    client.assign(&[place]).unwrap();
    while client.seek(&[place], Duration::from_secs(5)).unwrap() != [Code::NONE] {}
    assert_eq!(queue.position(), None, "the position of the assignment before");
    assert_eq!(offsets(&take_all(&mut queue, 500)), (500..RECORDS).collect::<Vec<_>>());
}

#[test]
fn faulty_calls_are_errors() {
    let fault = Client::consumer([("no.such.key", "1")]).unwrap_err();
    assert_eq!(fault.key.as_deref(), Some("no.such.key"));
    assert!(Client::consumer([("client.id", "a\0b")]).is_err());
    assert!(Client::consumer([("security.protocol", "SSL"), ("ssl.ca.location", "/does/not/exist")]).is_err());
    let mock = mock();
    let client = client(&mock);
    let nul = TopicPartition::new("a\0b", 0);
    assert!(PartitionQueue::open(&client, &nul).is_err());
    let twice =
        [&mock.topic_partition; 2].map(|topic_partition| Place { topic_partition, offset: 0, leader_epoch: None });
    assert!(client.assign(&twice).is_err());
    let codes = client.seek(&twice[..1], Duration::from_secs(5)).unwrap();
    assert!(matches!(codes[..], [Code::UNKNOWN_PARTITION_LOCAL | Code::STATE]), "not assigned: {codes:?}");
}

#[test]
fn codes_have_names() {
    assert_eq!(Code::AUTO_OFFSET_RESET.name(), "_AUTO_OFFSET_RESET");
    assert_eq!(Code::TOPIC_AUTHORIZATION_FAILED.to_string(), "TOPIC_AUTHORIZATION_FAILED");
    assert_eq!(format!("{:?}", Code::SSL), "_SSL(-181)");
    assert!(!Code::new(32_000).name().is_empty());
    let named = [
        (Code::BAD_MSG, "_BAD_MSG"),
        (Code::TRANSPORT, "_TRANSPORT"),
        (Code::PARTITION_EOF, "_PARTITION_EOF"),
        (Code::UNKNOWN_PARTITION_LOCAL, "_UNKNOWN_PARTITION"),
        (Code::UNKNOWN_TOPIC_LOCAL, "_UNKNOWN_TOPIC"),
        (Code::ALL_BROKERS_DOWN, "_ALL_BROKERS_DOWN"),
        (Code::TIMED_OUT, "_TIMED_OUT"),
        (Code::STATE, "_STATE"),
        (Code::PREV_IN_PROGRESS, "_PREV_IN_PROGRESS"),
        (Code::AUTHENTICATION, "_AUTHENTICATION"),
        (Code::NOENT, "_NOENT"),
        (Code::RESOLVE, "_RESOLVE"),
        (Code::INVALID_ARG, "_INVALID_ARG"),
        (Code::GROUP_AUTHORIZATION_FAILED, "GROUP_AUTHORIZATION_FAILED"),
        (Code::CLUSTER_AUTHORIZATION_FAILED, "CLUSTER_AUTHORIZATION_FAILED"),
        (Code::SASL_AUTHENTICATION_FAILED, "SASL_AUTHENTICATION_FAILED"),
        (Code::MESSAGE_TOO_LARGE, "MSG_SIZE_TOO_LARGE"),
        (Code::UNKNOWN_TOPIC_OR_PARTITION, "UNKNOWN_TOPIC_OR_PART"),
        (Code::OFFSET_OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE"),
        (Code::CORRUPT_MESSAGE, "INVALID_MSG"),
    ];
    for (code, name) in named {
        assert_eq!(code.name(), name);
    }
}
