//! How much reading costs over taking records out of the queues. A measurement: run it on an idle machine, with
//! `SPEED_KAFKA=host:port cargo test --lib speed -- --ignored --nocapture`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _},
};

use super::*;
use crate::{
    clock::{Clock, SystemClock},
    kafka::{IsolationLevel, KafkaProperties, QueueLimits, take_raw},
    types::{Flow, Offset, OffsetRange, TopicPartition},
};

const PARTITIONS: i32 = 8;
const PER_PARTITION: u64 = 250_000;
const MEMORY_BYTES: u64 = 512 * 1024 * 1024;

fn fill(servers: &str, topic: &str, bytes: usize) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("queue.buffering.max.messages", "1000000").set("linger.ms", "50");
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
    let producer: BaseProducer<DefaultProducerContext> = config.create().unwrap();
    let value = vec![b'x'; bytes];
    for n in 0..PER_PARTITION * u64::from(PARTITIONS.cast_unsigned()) {
        let partition = i32::try_from(n % u64::from(PARTITIONS.cast_unsigned())).unwrap();
        let mut record = Some(BaseRecord::<(), _>::to(topic).partition(partition).payload(&value));
        while let Some(next) = record.take() {
            record = producer.send(next).err().map(|(_, record)| record);
            if record.is_some() {
                producer.poll(Duration::from_millis(20));
            }
        }
        if n % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(120)).unwrap();
}

fn raw(properties: &KafkaProperties, partitions: &[TopicPartition]) {
    let limits = QueueLimits::for_budget(MEMORY_BYTES / 2, partitions.len());
    let halves: Vec<Vec<_>> =
        (0..2).map(|half| partitions.iter().filter(|tp| tp.partition % 2 == half).cloned().collect()).collect();
    std::thread::scope(|scope| {
        for half in &halves {
            scope.spawn(move || {
                let client = properties.reader(IsolationLevel::ReadCommitted, limits).unwrap();
                take_raw(&client, half, PER_PARTITION * half.len() as u64);
            });
        }
    });
}

fn exact(properties: &KafkaProperties, partitions: &[TopicPartition]) {
    let settings = ReaderSettings {
        properties: properties.clone(),
        isolation: IsolationLevel::ReadCommitted,
        memory_max_bytes: MEMORY_BYTES,
        clients: Some(2),
    };
    let reader = DirectReader::new(settings, SystemClock::shared()).unwrap();
    let until = Offset::ZERO.advanced_by(PER_PARTITION);
    let ranges: Vec<_> = partitions.iter().map(|tp| OffsetRange::new(tp.clone(), Offset::ZERO, until)).collect();
    reader.prepare(&ranges, &|_| None).unwrap();
    let threads = std::env::var("SPEED_THREADS").ok().and_then(|threads| threads.parse().ok()).unwrap_or(2);
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(range) = ranges.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let counts = reader.read(range, &|| false, &mut |_| Flow::Continue(())).unwrap();
                    assert_eq!(counts.records, PER_PARTITION);
                }
            });
        }
    });
}

/// User and system time of this process, in Linux's ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

#[test]
#[ignore = "a measurement"]
fn speed_against_the_raw_queues() {
    let servers = std::env::var("SPEED_KAFKA").unwrap();
    let clock: Arc<dyn Clock> = SystemClock::shared();
    for bytes in [100, 1_000] {
        let topic = format!("speed-{bytes}-{}", std::process::id());
        fill(&servers, &topic, bytes);
        let properties = KafkaProperties::new(servers.as_str(), "speed", BTreeMap::new());
        let partitions: Vec<_> = (0..PARTITIONS).map(|p| TopicPartition::new(topic.as_str(), p)).collect();
        for _ in 0..5 {
            let mut took = Vec::new();
            for way in [raw, exact] {
                let (started, cpu) = (clock.monotonic(), cpu_seconds());
                way(&properties, &partitions);
                took.push((clock.monotonic().saturating_sub(started).as_secs_f64(), cpu_seconds() - cpu));
            }
            let millions = f64::from(PARTITIONS) * f64::from(u32::try_from(PER_PARTITION).unwrap()) / 1e6;
            let [(raw, raw_cpu), (exact, exact_cpu)] = took[..] else { panic!() };
            eprintln!(
                "{bytes} bytes: raw {:.2} M/s and {:.2} CPU s/M, exact {:.2} and {:.2}; rate {:.2}, CPU {:.2}",
                millions / raw,
                raw_cpu / millions,
                millions / exact,
                exact_cpu / millions,
                raw / exact,
                raw_cpu / exact_cpu
            );
        }
    }
}
