//! The producer: numbered orders, never far ahead of what is committed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _},
};

use super::TOPIC;
use crate::error::{Error, Result};

/// The broker keeps 5 MiB a partition and drops older records without a word. So the producer stays so far below that,
/// counted generously, ahead of what is committed.
const AHEAD_BYTES_MAX: i64 = 2 << 20;
/// A record with its overhead in the broker's log, rounded up.
const RECORD_BYTES: i64 = 200;

/// What order `id` is about.
pub(super) fn customer(id: u64) -> u64 {
    id * 7 % 50
}

/// What order `id` costs.
pub(super) fn amount(id: u64) -> u64 {
    id * 31 % 97 + 1
}

/// Produces on a thread of its own.
pub(super) struct Producer {
    thread: Option<JoinHandle<Result<()>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    committed: Mutex<BTreeMap<i32, i64>>,
    moved: Condvar,
    allowed: AtomicU64,
    stop: AtomicBool,
}

impl Producer {
    pub(super) fn start(servers: &str, records: u64, partitions: i32) -> Result<Self> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("linger.ms", "5")
            .create()
            .map_err(|error| Error::internal("cannot start the producer").caused_by(error))?;
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let thread = std::thread::spawn(move || produce(&producer, records, partitions, &seen));
        Ok(Self { thread: Some(thread), shared })
    }

    /// Tells how far each partition is committed: the producer may go on from there.
    pub(super) fn committed(&self, offsets: &BTreeMap<i32, i64>) {
        self.shared.committed.lock().unwrap_or_else(PoisonError::into_inner).clone_from(offsets);
        self.shared.moved.notify_all();
    }

    /// Lets the producer go on up to so many records in all.
    pub(super) fn allow(&self, records: u64) {
        self.shared.allowed.store(records, Ordering::Relaxed);
        self.shared.moved.notify_all();
    }

    /// Waits for the end of producing.
    pub(super) fn finish(mut self) -> Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(produced)) => produced,
            _ => Err(Error::internal("the producer failed")),
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.moved.notify_all();
    }
}

fn produce(
    producer: &BaseProducer<DefaultProducerContext>,
    records: u64,
    partitions: i32,
    shared: &Shared,
) -> Result<()> {
    let failed = |error: KafkaError| Error::internal("cannot produce").caused_by(error);
    for id in 0..records {
        let partition = i32::try_from(id % u64::try_from(partitions).unwrap_or(1)).unwrap_or(0);
        let offset = i64::try_from(id / u64::try_from(partitions).unwrap_or(1)).unwrap_or(i64::MAX);
        if shared.allowed.load(Ordering::Relaxed) <= id {
            producer.flush(Duration::from_secs(30)).map_err(failed)?;
        }
        wait_for_room(shared, id, partition, offset);
        if shared.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let value = format!(r#"{{"id":{id},"customer":"customer-{}","amount":{}}}"#, customer(id), amount(id));
        let mut record = BaseRecord::<(), _>::to(TOPIC).partition(partition).payload(&value);
        while let Err((error, again)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(failed(error));
            }
            producer.poll(Duration::from_millis(10));
            record = again;
        }
        if id % 1000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(30)).map_err(failed)
}

/// Waits until record `id` may be produced and the partition's log has room for it at `offset`.
fn wait_for_room(shared: &Shared, id: u64, partition: i32, offset: i64) {
    let full = |committed: &mut BTreeMap<i32, i64>| {
        let ahead = offset - committed.get(&partition).copied().unwrap_or(0);
        let full = ahead.saturating_mul(RECORD_BYTES) > AHEAD_BYTES_MAX;
        (full || shared.allowed.load(Ordering::Relaxed) <= id) && !shared.stop.load(Ordering::Relaxed)
    };
    let mut committed = shared.committed.lock().unwrap_or_else(PoisonError::into_inner);
    while full(&mut committed) {
        // With a limit: what `allow` and `stop` change is not under this lock.
        let waited = shared.moved.wait_timeout(committed, Duration::from_millis(5));
        committed = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}
