//! The handle that the driver holds, and the task behind it.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    checkpoint::CheckpointStore,
    counts::StoreCounts,
    kafka::KafkaStore,
    outbox::{self, Outbox, OutboxState, RelayTask},
    postgres::PostgresStore,
    protocol::{Event, Work},
    settings::{CommitOutcome, Recovered, StoreHealth, StoreSettings, StoredPosition},
    shell::{Done, Shell},
    sqlite::SqliteStore,
    store::Store,
};
use crate::{
    clock::Clock,
    config::StoreKind,
    error::{Error, Result},
    types::BatchCommit,
};

/// How often the owner says that it is alive, whenever no transaction is open. A fifth of the age at which it counts as dead.
const BEAT_EVERY: Duration = Duration::from_secs(1);

type Answer<T> = oneshot::Sender<Result<T>>;

enum Request {
    Initialize(Vec<StoredPosition>, Answer<()>),
    Commit(Box<BatchCommit>, Answer<CommitOutcome>),
    Positions(Answer<Vec<StoredPosition>>),
    CheckOwner(Answer<()>),
    Relay(Arc<Outbox>, RelayTask),
    Stop(oneshot::Sender<()>),
}

/// Commits batches, one at a time, over one connection that its own task holds.
///
/// A clone is another handle to the same task. A caller that goes away while its request is at work cancels nothing: the
/// task takes every transaction to its end. When all handles are gone the task ends without giving the application up, as
/// if the process had died.
#[derive(Clone, Debug)]
pub struct Committer {
    requests: mpsc::Sender<Request>,
    health: watch::Receiver<StoreHealth>,
    stopping: Arc<watch::Sender<bool>>,
    counts: StoreCounts,
    outbox: Option<Arc<Outbox>>,
}

impl Committer {
    /// Connects, migrates, checks the output tables, takes the application over, and reads what is kept of it.
    ///
    /// `health` changes while this waits: to `Waiting` while another process owns the application.
    ///
    /// # Errors
    /// * [`Config`](crate::ErrorKind::Config): the URL, the schema's version, a table's shape, a privilege, another
    ///   fingerprint; all faults of the tables are in one error.
    /// * [`Unavailable`](crate::ErrorKind::Unavailable): the store did not answer within `start_timeout`.
    /// * [`Corrupt`](crate::ErrorKind::Corrupt): another Kafka cluster, or offsets missing where batches were committed.
    /// * [`Fenced`](crate::ErrorKind::Fenced): a live owner did not leave.
    pub async fn start(
        settings: StoreSettings,
        clock: Arc<dyn Clock>,
        health: watch::Sender<StoreHealth>,
    ) -> Result<(Self, Recovered)> {
        let (requests, inbox) = mpsc::channel(1);
        let (stopping, stop_asked) = watch::channel(false);
        let watched = health.subscribe();
        let store: Box<dyn Store> = match settings.url.kind() {
            StoreKind::Sqlite => Box::new(SqliteStore::new(&settings)?),
            StoreKind::Postgres => Box::new(PostgresStore::new(&settings)?),
            StoreKind::Checkpoint => Box::new(CheckpointStore::new(&settings, Arc::clone(&clock))?),
            StoreKind::Kafka => Box::new(KafkaStore::new(&settings, Arc::clone(&clock))?),
        };
        let shell = Shell::new(&settings, store, Arc::clone(&clock), health.clone(), stop_asked);
        let counts = shell.counts.clone();
        let (started, answer) = oneshot::channel();
        tokio::spawn(run(shell, inbox, started));
        let recovered = answer.await.map_err(|_| gone())??;
        let mut committer = Self { requests, health: watched, stopping: Arc::new(stopping), counts, outbox: None };
        if let Some(output) = &settings.outbox {
            let (outbox, relay) = outbox::start(&settings, output, clock, health).await?;
            committer.outbox = Some(Arc::clone(&outbox));
            // The task keeps the relay, which ends with it.
            let given = committer.requests.send(Request::Relay(outbox, relay)).await;
            given.map_err(|_| committer.why_gone())?;
        }
        Ok((committer, recovered))
    }

    /// How the store is doing. Being fenced while idle is told here first.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.clone()
    }

    /// What happened to the store since the start; goes on counting.
    #[must_use]
    pub fn counts(&self) -> StoreCounts {
        self.counts.clone()
    }

    /// Writes the first positions of an application, all in one transaction under the owner's lock. Doing it twice is doing
    /// it once.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if other positions are stored, and what can end a stream at any time:
    /// [`Fenced`](crate::ErrorKind::Fenced), [`Corrupt`](crate::ErrorKind::Corrupt),
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    pub async fn initialize_positions(&self, positions: Vec<StoredPosition>) -> Result<()> {
        self.ask(|answer| Request::Initialize(positions, answer)).await
    }

    /// How the outbox is doing; `None` if the job has none.
    #[must_use]
    pub fn outbox(&self) -> Option<watch::Receiver<OutboxState>> {
        self.outbox.as_ref().map(|outbox| outbox.state())
    }

    /// Waits until everything in the outbox is in Kafka; at once if there is none.
    ///
    /// # Errors
    /// Why it cannot be sent.
    pub async fn outbox_sent(&self) -> Result<()> {
        match &self.outbox {
            Some(outbox) => outbox.empty().await,
            None => Ok(()),
        }
    }

    /// Commits a batch: all of it or nothing. Calls from several tasks run one after the other; the batch's number must
    /// follow the last committed one.
    ///
    /// # Errors
    /// The stream is over: [`Fenced`](crate::ErrorKind::Fenced); [`Corrupt`](crate::ErrorKind::Corrupt) if the database went
    /// back; [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) or [`Unavailable`](crate::ErrorKind::Unavailable) if it
    /// did not answer for `unavailable_max`; [`Internal`](crate::ErrorKind::Internal) for a batch number out of order. A batch
    /// that is merely not committed is a [`CommitOutcome`].
    pub async fn commit(&self, batch: BatchCommit) -> Result<CommitOutcome> {
        if let Some(outbox) = self.outbox.as_ref().filter(|_| !batch.records.is_empty()) {
            outbox.room().await?;
        }
        self.ask(|answer| Request::Commit(Box::new(batch), answer)).await
    }

    /// The stored positions, read by the owner.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn positions(&self) -> Result<Vec<StoredPosition>> {
        self.ask(Request::Positions).await
    }

    /// Makes sure, by a write, that this process still owns the application: right before side effects.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn check_owner(&self) -> Result<()> {
        self.ask(Request::CheckOwner).await
    }

    /// Gives the application up, so that a successor starts at once, and ends. While the store is away it ends without.
    pub async fn stop(self) {
        let (answer, done) = oneshot::channel();
        self.stopping.send_replace(true);
        if self.requests.send(Request::Stop(answer)).await.is_ok() {
            let _ = done.await;
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T> {
        let (answer, done) = oneshot::channel();
        let sent = self.requests.send(request(answer)).await;
        sent.map_err(|_| self.why_gone())?;
        done.await.map_err(|_| self.why_gone())?
    }

    fn why_gone(&self) -> Error {
        match &*self.health.borrow() {
            StoreHealth::Ended(kind, message) => Error::new(*kind, message.clone()),
            _ => gone(),
        }
    }
}

fn gone() -> Error {
    Error::internal("the committer has ended")
}

/// The task: requests, and heartbeats between them. Nothing is cancelled here: `select!` chooses between two waits, and what
/// is chosen then runs to its end.
async fn run(mut shell: Shell, mut inbox: mpsc::Receiver<Request>, started: oneshot::Sender<Result<Recovered>>) {
    let recovered = shell.start().await;
    let failed = recovered.is_err();
    if started.send(recovered).is_err() || failed {
        return;
    }
    let mut relay = None;
    let mut beats = tokio::time::interval(BEAT_EVERY);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let request = tokio::select! {
            request = inbox.recv() => request,
            _ = beats.tick() => {
                // What it found is told by `health`, and to the next request.
                let _ = shell.drive(Event::BeatDue).await;
                if shell.has_ended() {
                    return;
                }
                continue;
            }
        };
        let Some(request) = request else { return };
        serve(&mut shell, &mut relay, request).await;
        if shell.has_ended() {
            return;
        }
    }
}

async fn serve(shell: &mut Shell, relay: &mut Option<(Arc<Outbox>, RelayTask)>, request: Request) {
    // An answer that nobody waits for any more is dropped: the work itself is done.
    match request {
        Request::Initialize(positions, answer) => {
            let _ = answer.send(shell.initialize(positions).await);
        }
        Request::Commit(batch, answer) => {
            let records = batch.records.len() as u64;
            let done = shell.commit(batch).await;
            if let (Ok(CommitOutcome::Committed(_)), Some((outbox, _))) = (&done, &*relay) {
                outbox.added(records);
            }
            let _ = answer.send(done);
        }
        Request::Positions(answer) => {
            let _ = answer.send(shell.positions().await);
        }
        Request::CheckOwner(answer) => {
            let held = match shell.drive(Event::BeatDue).await {
                Ok(Done::Held | Done::Other) => Ok(()),
                Ok(_) => Err(Error::internal("a heartbeat cannot commit")),
                Err(error) => Err(error),
            };
            let _ = answer.send(held);
        }
        Request::Relay(outbox, task) => *relay = Some((outbox, task)),
        Request::Stop(answer) => {
            let _ = shell.drive(Event::Stop).await;
            let _ = answer.send(());
        }
    }
}

/// The protocol's word for committing `batch`.
pub(super) fn work_of(batch: &BatchCommit) -> Work {
    Work::Batch(batch.batch_seq)
}
