//! More partitions than the memory budget has room for.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::support::{kafka::record, shared_kafka};

const PARTITIONS: i32 = 20;
/// This one has no records.
const EMPTY: i32 = 3;
/// With half of it for prefetch, at 128 KiB each, there is room for four.
const MEMORY_BYTES: u64 = 1024 * 1024;
const ROOM: usize = 4;
const THREADS: usize = 2;

async fn produce(kafka: &Kafka, topic: &str) {
    let of = |partition| (0..5).map(move |n: i32| record(n.to_string()).partition(partition));
    kafka.produce(topic, (0..PARTITIONS).filter(|&partition| partition != EMPTY).flat_map(of).collect()).await;
}

fn ranges(topic: &str, from: i64, until: i64) -> Vec<OffsetRange> {
    let until = |partition| if partition == EMPTY { 0 } else { until };
    let from = |partition| if partition == EMPTY { 0 } else { from };
    (0..PARTITIONS).map(|partition| range(topic, partition, from(partition), until(partition))).collect()
}

/// Reads the ranges as a batch does: prepared together, then one after the other by each thread.
fn read_all(reader: &DirectReader, ranges: &[OffsetRange]) {
    reader.prepare(ranges, &|_| None).unwrap();
    assert!(reader.assigned() <= ROOM, "{}", reader.assigned());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(range) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (_, records) = read(reader, range).unwrap();
                    let all: Vec<i64> = (range.from_offset.get()..range.until_offset.get()).collect();
                    assert_eq!(offsets(&records), all, "{range}");
                    // A thread whose turn found nothing to give up goes over the room by its own partition.
                    assert!(reader.assigned() <= ROOM + THREADS, "{}", reader.assigned());
                }
            });
        }
    });
}

#[tokio::test]
async fn partitions_take_turns_where_the_budget_has_no_room_for_all() {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(PARTITIONS).await;
    let reader =
        DirectReader::new(ReaderSettings { memory_max_bytes: MEMORY_BYTES, ..settings(&kafka) }, SystemClock::shared());
    let reader = Arc::new(reader.unwrap());
    for batch in 0..2 {
        produce(&kafka, &topic).await;
        let (reader, topic) = (Arc::clone(&reader), topic.clone());
        blocking(move || {
            let ranges = ranges(&topic, batch * 5, batch * 5 + 5);
            read_all(&reader, &ranges);
            // Once more, after they have made room for others: as two outputs of one batch do.
            for range in [&ranges[0], &ranges[19]] {
                assert_eq!(read(&reader, range).unwrap().0.records, 5);
            }
        })
        .await;
    }
    // Nor is the room outgrown where few have records.
    kafka.produce(&topic, (0..4).map(|n: i32| record(n.to_string()).partition(n % 2 * 11)).collect()).await;
    blocking(move || {
        let few: Vec<_> = (0..PARTITIONS)
            .map(|partition| range(&topic, partition, 10, if partition % 11 == 0 { 12 } else { 10 }))
            .collect();
        read_all(&reader, &few);
    })
    .await;
}
