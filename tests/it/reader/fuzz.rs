//! Random range ends and seeks back, while transactions are committed and aborted: every acknowledged record of a
//! committed transaction is read exactly once, nothing of an aborted one, and each range accounts for all its offsets.
//!
//! The seed is printed; `FUZZ_SEED` sets it, `FUZZ_SECONDS` how long it goes on. The timing of the brokers is not part of
//! the seed.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use rdkafka::producer::Producer as _;

use super::*;
use crate::support::{
    kafka as broker,
    kafka::{Place, record, send_all},
    shared_kafka, unique,
};

const PARTITIONS: i32 = 3;
const TRANSACTIONAL: u64 = 3;

/// A generator without quality, but with a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    /// In `from..until`.
    fn between(&mut self, from: i64, until: i64) -> i64 {
        from + i64::try_from(self.below(u64::try_from(until - from).unwrap())).unwrap()
    }
}

/// What the brokers acknowledged.
#[derive(Default)]
struct Produced {
    committed: Mutex<BTreeMap<Place, Vec<u8>>>,
    aborted: Mutex<Vec<Place>>,
    stop: AtomicBool,
}

/// One of the producers, until it is told to stop. Values name producer and number, keys are hot where compaction is on.
fn produce(kafka: &Kafka, topic: &str, produced: &Produced, number: u64, seed: u64, hot_keys: bool) {
    let mut random = Random(seed ^ (number << 32));
    let transactional = number < TRANSACTIONAL;
    let producer = kafka.producer(transactional.then(|| unique("fuzz")).as_deref());
    if transactional {
        producer.init_transactions(Duration::from_secs(60)).unwrap();
    }
    let mut serial = 0;
    while !produced.stop.load(Ordering::Relaxed) {
        let commit = !transactional || !random.one_in(3);
        let (mut records, mut values) = (Vec::new(), Vec::new());
        for _ in 0..=random.below(20) {
            serial += 1;
            // Aborted records and hot keys are what compaction takes away; the others must stay.
            let (hot, value) = (hot_keys && random.one_in(3), format!("{number}-{serial}"));
            let key = if hot { format!("hot-{}", random.below(3)) } else { value.clone() };
            let partition = i32::try_from(random.below(u64::try_from(PARTITIONS).unwrap())).unwrap();
            records.push(record(value.clone()).key(key).partition(partition));
            values.push((hot, value.into_bytes()));
        }
        if transactional {
            producer.begin_transaction().unwrap();
        }
        let places = send_all(&producer, topic, &records);
        if random.one_in(4) {
            std::thread::sleep(Duration::from_millis(random.below(200)));
        }
        if transactional && commit {
            producer.commit_transaction(Duration::from_secs(60)).unwrap();
        } else if transactional {
            producer.abort_transaction(Duration::from_secs(60)).unwrap();
        }
        if commit {
            let cold =
                places.into_iter().zip(values).filter(|(_, (hot, _))| !hot).map(|(place, (_, value))| (place, value));
            produced.committed.lock().unwrap().extend(cold);
        } else {
            produced.aborted.lock().unwrap().extend(places);
        }
        std::thread::sleep(Duration::from_millis(random.below(10)));
    }
}

/// What one partition's reader saw.
#[derive(Default)]
struct Seen {
    records: BTreeMap<i64, Vec<u8>>,
    ranges: u64,
    gaps: u64,
    back: u64,
}

fn values(records: &[Record]) -> Vec<(i64, Vec<u8>)> {
    records.iter().map(|record| (record.offset().get(), record.value().unwrap().to_vec())).collect()
}

/// Reads one partition in ranges with random ends until `stop`, and then to its end.
fn follow(
    reader: &DirectReader,
    lookup: &OffsetLookup,
    topic: &str,
    partition: i32,
    stop: &AtomicBool,
    seed: u64,
) -> Seen {
    let (mut random, mut seen, mut from) = (Random(seed ^ 0xF0110), Seen::default(), 0);
    let mut epoch = None;
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        let latest = latest(lookup, topic, partition);
        if latest == from {
            // A commit is acknowledged before its markers are written: the stable end may come later.
            let written = lookup.latest(&[TopicPartition::new(topic, partition)], IsolationLevel::ReadUncommitted);
            if stopped && written[0].outcome.offset().map(Offset::get) == Some(from) {
                return seen;
            }
            std::thread::sleep(Duration::from_millis(3));
            continue;
        }
        if from > 0 && random.one_in(10) {
            read_again(reader, topic, partition, from, &mut random, &mut seen);
        }
        let until = if random.one_in(3) { latest } else { random.between(from, latest) + 1 };
        let range = range(topic, partition, from, until);
        if random.one_in(2) {
            reader.prepare(std::slice::from_ref(&range), &|_| epoch).unwrap();
        }
        let (counts, records) = read(reader, &range).unwrap();
        let values = values(&records);
        assert_eq!(counts.records + counts.gaps, range.count(), "{range}");
        assert!(values.iter().all(|(offset, _)| (from..until).contains(offset)), "{range}: {:?}", offsets(&records));
        assert!(values.is_sorted_by(|a, b| a.0 < b.0), "{range}: {:?}", offsets(&records));
        epoch = counts.leader_epoch.or(epoch);
        seen.records.extend(values);
        seen.ranges += 1;
        seen.gaps += counts.gaps;
        from = until;
    }
}

/// A range from before: what comes again is what came first, or has been compacted away since.
fn read_again(reader: &DirectReader, topic: &str, partition: i32, end: i64, random: &mut Random, seen: &mut Seen) {
    let from = random.between(0, end);
    let again = range(topic, partition, from, random.between(from, end) + 1);
    if random.one_in(3) {
        let stopped = reader.read(&again, &|| false, &mut |_| Flow::Break(Stop::Enough));
        assert!(matches!(stopped, Ok(_) | Err(Stop::Enough)));
    }
    let (counts, records) = read(reader, &again).unwrap();
    assert_eq!(counts.records + counts.gaps, again.count(), "{again}");
    for (offset, value) in values(&records) {
        assert_eq!(seen.records.get(&offset), Some(&value), "{again}");
    }
    seen.back += 1;
}

async fn fuzz(kafka: Kafka, settings: &[(&str, &str)]) {
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) * 7_919 + u64::from(!settings.is_empty()));
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(6);
    eprintln!("FUZZ_SEED={seed}");
    let topic = unique("fuzz");
    kafka.create_topic(&topic, PARTITIONS, settings).await;
    let hot_keys = !settings.is_empty();
    let (reader, lookup) = (reader(&kafka), lookup(&kafka));
    let (broker, name) = (kafka.clone(), topic.clone());
    let faults = blocking(move || {
        let (kafka, topic) = (broker, name);
        let (produced, stop) = (Produced::default(), AtomicBool::new(false));
        let (reader, lookup, topic, kafka) = (&*reader, &*lookup, topic.as_str(), &kafka);
        let (produced, stop) = (&produced, &stop);
        std::thread::scope(|scope| {
            let followers: Vec<_> = (0..PARTITIONS)
                .map(|p| {
                    scope.spawn(move || follow(reader, lookup, topic, p, stop, seed ^ u64::from(p.cast_unsigned())))
                })
                .collect();
            let producers: Vec<_> = (0..=TRANSACTIONAL)
                .map(|number| scope.spawn(move || produce(kafka, topic, produced, number, seed, hot_keys)))
                .collect();
            let started = Instant::now();
            while started.elapsed() < Duration::from_secs(seconds) && followers.iter().all(|f| !f.is_finished()) {
                std::thread::sleep(Duration::from_millis(50));
            }
            produced.stop.store(true, Ordering::Relaxed);
            let ended: Vec<_> = producers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            // Whatever became of the producers: the scope waits for the followers.
            stop.store(true, Ordering::Relaxed);
            ended.into_iter().for_each(Result::unwrap);
            let seen: Vec<_> = followers.into_iter().map(|follower| follower.join().unwrap()).collect();
            judge(&seen, produced)
        })
    })
    .await;
    compare(&kafka, &topic, faults).await;
}

fn judge(seen: &[Seen], produced: &Produced) -> Vec<(Place, &'static str)> {
    let (committed, aborted) = (produced.committed.lock().unwrap(), produced.aborted.lock().unwrap());
    let at = |&(partition, offset): &Place| seen[usize::try_from(partition).unwrap()].records.get(&offset);
    let lost: Vec<_> =
        committed.iter().filter(|(place, value)| at(place) != Some(value)).map(|(place, _)| place).collect();
    let wrong: Vec<_> = aborted.iter().filter(|place| at(place).is_some()).collect();
    let sum = |part: fn(&Seen) -> u64| seen.iter().map(part).sum::<u64>();
    eprintln!(
        "{} committed, {} aborted, {} ranges, {} gaps, {} read again",
        committed.len(),
        aborted.len(),
        sum(|s| s.ranges),
        sum(|s| s.gaps),
        sum(|s| s.back)
    );
    let faults = lost.iter().map(|&&place| (place, "lost")).chain(wrong.iter().map(|&&place| (place, "aborted")));
    let faults: Vec<_> = faults.collect();
    assert!(!committed.is_empty() && !aborted.is_empty() && sum(|s| s.ranges) > 10, "the fuzz did nothing");
    faults
}

/// What Kafka's own consumer now says of places that were read wrongly.
async fn compare(kafka: &Kafka, topic: &str, faults: Vec<(Place, &str)>) {
    if faults.is_empty() {
        return;
    }
    let now = kafka.recount(topic).await;
    let there = |(partition, offset): Place| now.iter().any(|r| r.partition == partition && r.offset == offset);
    let faults: Vec<_> = faults.into_iter().map(|(place, fault)| (place, fault, there(place))).collect();
    panic!("partition, offset, fault, and whether Kafka's own consumer sees the record now: {faults:?}");
}

#[tokio::test]
async fn every_committed_record_is_read_exactly_once() {
    fuzz(shared_kafka().await, &[]).await;
}

#[tokio::test]
async fn every_committed_record_that_compaction_keeps_is_read_exactly_once() {
    let image = broker().env("KAFKA_LOG_CLEANER_BACKOFF_MS", "100");
    let compacting = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "200"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "0"),
        ("segment.bytes", "1048576"),
    ];
    fuzz(Kafka::start(image).await, &compacting).await;
}
