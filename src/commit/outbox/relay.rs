//! The relay: from the table into Kafka, one window of rows after the other.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::AssertSqlSafe;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    super::{
        link::{Link, execute, fetch, no_sql},
        postgres,
        settings::{StoreHealth, StoreSettings},
        sqlite,
    },
    Outbox,
    rows::{Row, record},
};
use crate::{
    clock::Clock,
    config::StoreUrl,
    error::{Error, Result, Stage},
    failpoint,
    kafka::{Delivered, KafkaOutput, Producer},
    types::KafkaRecord,
};

/// The most rows in hand at a time,
const WINDOW_RECORDS: i64 = 2_000;
/// and the most bytes of them; a larger record is in hand alone.
const WINDOW_BYTES: i64 = 8 << 20;
/// How often the table is looked at while nobody says that there is more: rows that were left behind by a commit whose answer was lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a failure that passes.
const AGAIN: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(50);

/// The relay's task. Dropped, it ends: what it has in hand stays in the table.
#[derive(Debug)]
pub(in crate::commit) struct RelayTask {
    task: JoinHandle<()>,
    stopped: Arc<AtomicBool>,
}

impl Drop for RelayTask {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

/// Counts what waits and starts the relay. The application must be owned.
///
/// # Errors
/// A property that cannot be used, or a store that does not answer.
pub(in crate::commit) async fn start(
    settings: &StoreSettings,
    output: &KafkaOutput,
    clock: Arc<dyn Clock>,
    health: watch::Sender<StoreHealth>,
) -> Result<(Arc<Outbox>, RelayTask)> {
    let acks = Arc::new(Acks::default());
    let properties = output.kafka_properties(&settings.application);
    // A record that Kafka cannot take at the moment is waited for: given up and sent again it would come after others.
    let producer = Producer::new(&properties, &[("message.timeout.ms", "0")], Arc::clone(&acks))?;
    let mut relay = Relay {
        url: settings.url.clone(),
        application: settings.application.clone(),
        owner: settings.owner.to_string(),
        unavailable_max: settings.unavailable_max,
        link: None,
        producer: Arc::new(producer),
        acks,
        stopped: Arc::new(AtomicBool::new(false)),
        clock,
    };
    let waiting = relay.count().await?;
    let outbox = Outbox::new(waiting, output.waiting_records_max());
    let stopped = Arc::clone(&relay.stopped);
    let task = tokio::spawn(run(relay, Arc::clone(&outbox), health));
    Ok((outbox, RelayTask { task, stopped }))
}

/// What became of the records in hand.
#[derive(Debug, Default)]
struct Acks(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    acknowledged: Vec<bool>,
    count: usize,
    failed: Option<(usize, Error)>,
}

impl Acks {
    fn with<R>(&self, work: impl FnOnce(&mut Told) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn expect(&self, records: usize) {
        self.with(|told| *told = Told { acknowledged: vec![false; records], ..Told::default() });
    }
}

impl Delivered for Acks {
    fn delivered(&self, number: usize, failed: Option<Error>) {
        self.with(|told| {
            told.count += 1;
            match failed {
                None => {
                    if let Some(acknowledged) = told.acknowledged.get_mut(number) {
                        *acknowledged = true;
                    }
                }
                Some(error) => {
                    if told.failed.as_ref().is_none_or(|(first, _)| number < *first) {
                        told.failed = Some((number, error));
                    }
                }
            }
        });
    }
}

struct Relay {
    url: StoreUrl,
    application: String,
    owner: String,
    unavailable_max: Duration,
    link: Option<Link>,
    producer: Arc<Producer<Acks>>,
    acks: Arc<Acks>,
    stopped: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
}

/// What a turn came to.
enum Turn {
    /// So many rows are sent and gone.
    Sent(u64),
    /// There was none.
    Nothing,
    /// Kafka does not take a record; so many before it are sent and gone.
    Refused(u64, Error),
}

async fn run(mut relay: Relay, outbox: Arc<Outbox>, health: watch::Sender<StoreHealth>) {
    let mut failing_since: Option<Duration> = None;
    let error = loop {
        match relay.turn().await {
            Ok(Turn::Sent(records)) => {
                failing_since = None;
                outbox.sent(records);
            }
            Ok(Turn::Nothing) => {
                failing_since = None;
                let _ = tokio::time::timeout(LOOK_EVERY, outbox.more.notified()).await;
            }
            Ok(Turn::Refused(records, error)) => {
                outbox.sent(records);
                break error;
            }
            Err(error) => {
                let now = relay.clock.monotonic();
                let lasted = now.saturating_sub(*failing_since.get_or_insert(now));
                if !error.kind().is_retryable() || lasted >= relay.unavailable_max {
                    break error;
                }
                outbox.stumbled();
                tracing::warn!(application = relay.application, error = error.chain(), "the outbox is not relayed");
                relay.link = None;
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    let error = Error::new(error.kind(), "the outbox cannot be sent").caused_by(error).at(Stage::Commit);
    let ended = StoreHealth::Ended(error.kind(), error.chain());
    outbox.fail(error);
    // Told until somebody hears it: a commit that succeeds at the same time says that all is well.
    loop {
        health.send_replace(ended.clone());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Relay {
    async fn link(&mut self) -> Result<&mut Link> {
        if self.link.is_none() {
            let mut link = Link::connect_to_write(&self.url, &self.application).await?;
            link.set_limits().await?;
            self.link = Some(link);
        }
        self.link.as_mut().ok_or_else(|| Error::internal("a connection was lost while it was made"))
    }

    async fn count(&mut self) -> Result<u64> {
        let application = self.application.clone();
        let sql = "SELECT count(*) FROM {}outbox WHERE application = $1";
        let counted = fetch!(self.link().await?, "cannot count the outbox", (i64,), sql, application)?;
        Ok(counted.first().map_or(0, |(count,)| count.unsigned_abs()))
    }

    /// Sends the oldest rows, as many as there is room for, and takes away what was acknowledged.
    async fn turn(&mut self) -> Result<Turn> {
        let rows = self.window().await?;
        let Some(first) = rows.first() else { return Ok(Turn::Nothing) };
        let begin = (first.0, first.1);
        let places: Vec<(i64, i64)> = rows.iter().map(|row| (row.0, row.1)).collect();
        if let Some(last) = places.last()
            && failpoint::mutant("outbox_deletes_first")
        {
            self.delete(begin, *last).await?;
        }
        let records = rows.into_iter().map(record).collect::<Result<Vec<_>>>()?;
        failpoint::hit("outbox::before_send")?;
        let refused = self.send(records).await?;
        failpoint::hit("outbox::before_delete")?;
        // Up to the first that is not there: what comes after it is sent once more.
        let acknowledged = self.acks.with(|told| told.acknowledged.iter().take_while(|told| **told).count());
        if let Some(last) = acknowledged.checked_sub(1).and_then(|last| places.get(last)) {
            self.delete(begin, *last).await?;
        }
        failpoint::hit("outbox::after_delete")?;
        Ok(match refused {
            None => Turn::Sent(acknowledged as u64),
            Some(error) => Turn::Refused(acknowledged as u64, error),
        })
    }

    /// The oldest rows, while this process owns the application.
    async fn window(&mut self) -> Result<Vec<Row>> {
        const OWNED: &str = "EXISTS (SELECT 1 FROM {}applications owned WHERE owned.application = $1 \
             AND CAST(owned.owner AS text) = $2)";
        let what = "cannot read the outbox";
        let (application, owner) = (self.application.clone(), self.owner.clone());
        let sizes = format!(
            "SELECT batch_seq, record, bytes FROM {{}}outbox WHERE application = $1 AND {OWNED} \
             ORDER BY batch_seq, record LIMIT $3"
        );
        let link = self.link().await?;
        let sizes = fetch!(link, what, (i64, i64, i64), sizes, &application, &owner, WINDOW_RECORDS)?;
        let mut bytes = 0_i64;
        let fits = |(_, _, size): &&(i64, i64, i64)| {
            bytes = bytes.saturating_add(*size);
            bytes <= WINDOW_BYTES
        };
        // At least one, however large.
        let count = sizes.iter().take_while(fits).count().max(1);
        let Some((batch_seq, number, _)) = sizes.get(count - 1).or(sizes.last()).copied() else {
            return Ok(Vec::new());
        };
        let rows = "SELECT batch_seq, record, topic, partition, key, value, headers, timestamp_ms FROM {}outbox \
             WHERE application = $1 AND (batch_seq, record) <= ($2, $3) ORDER BY batch_seq, record";
        fetch!(link, what, Row, rows, &application, batch_seq, number)
    }

    /// Sends records and waits until each is acknowledged or refused; why the first one was, if one was.
    ///
    /// Waits for as long as it takes: librdkafka sends again what is not acknowledged, in order, and without doubling it.
    async fn send(&self, records: Vec<KafkaRecord>) -> Result<Option<Error>> {
        let (producer, acks, stopped) = (Arc::clone(&self.producer), Arc::clone(&self.acks), Arc::clone(&self.stopped));
        let until = self.clock.monotonic().saturating_add(self.unavailable_max);
        let clock = Arc::clone(&self.clock);
        let sending = tokio::task::spawn_blocking(move || {
            let given_up = || stopped.load(Ordering::Relaxed) || clock.monotonic() >= until;
            acks.expect(records.len());
            for (number, record) in records.iter().enumerate() {
                if let Err(error) = producer.send(record, number) {
                    // It never left: the records before it are waited for, and those after it stay.
                    acks.delivered(number, Some(error));
                    return wait_for(&producer, &acks, number + 1, &given_up);
                }
            }
            wait_for(&producer, &acks, records.len(), &given_up)
        });
        match sending.await {
            Ok(true) => Ok(self.acks.with(|told| told.failed.take()).map(|(_, error)| error)),
            Ok(false) => {
                // The records are still on their way, so they must not be sent by this producer once more.
                Ok(Some(Error::unavailable("Kafka does not acknowledge the records of the outbox")))
            }
            Err(error) => Err(Error::internal("the outbox's thread failed").caused_by(error)),
        }
    }

    /// Takes rows away. Whoever owns the application by now: they are in Kafka.
    async fn delete(&mut self, begin: (i64, i64), last: (i64, i64)) -> Result<()> {
        let application = self.application.clone();
        let sql = "DELETE FROM {}outbox WHERE application = $1 AND (batch_seq, record) >= ($2, $3) \
             AND (batch_seq, record) <= ($4, $5)";
        let link = self.link().await?;
        execute!(link, "cannot shorten the outbox", sql, application, begin.0, begin.1, last.0, last.1).map(drop)
    }
}

/// Polls until the fate of so many records is told; `false` if `given_up` says so first.
fn wait_for(producer: &Producer<Acks>, acks: &Acks, records: usize, given_up: &dyn Fn() -> bool) -> bool {
    while acks.with(|told| told.count) < records {
        if given_up() {
            return false;
        }
        producer.poll(POLL);
    }
    true
}
