//! Does what the [protocol] says: one command after the other, each to its end.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    committer::work_of,
    counts::StoreCounts,
    protocol::{self, Command, End, Event, Grounds, Report, Rules, State, Term, Work},
    settings::{Commit, CommitOutcome, Recovered, StoreHealth, StoreSettings, StoredPosition},
    store::{Blockable, Kept, Store},
};
use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Result, Stage},
    failpoint,
    types::BatchCommit,
};

/// How often work that is safe to do twice is tried again after it failed for a passing reason.
const IDEMPOTENT_TRIES: u32 = 5;

/// What one turn of the protocol came to.
#[derive(Debug)]
pub(super) enum Done {
    Started,
    Held,
    Committed { resolved: bool },
    Conflict,
    NotCommitted(Error),
    Other,
}

/// What a transaction works on.
enum Job {
    Batch(Box<BatchCommit>),
    Positions(Vec<StoredPosition>),
}

pub(super) struct Shell {
    state: State,
    store: Box<dyn Store>,
    clock: Arc<dyn Clock>,
    health: watch::Sender<StoreHealth>,
    stop_asked: watch::Receiver<bool>,
    application: String,
    job: Option<Job>,
    /// The last failure, for whoever has to be told.
    cause: Option<Error>,
    /// The failure that put the present transaction in doubt. Later ones, of connecting again, do not replace it.
    work_cause: Option<Error>,
    /// Whether the transaction at hand got as far as COMMIT, and that failed.
    commit_failed: bool,
    /// What happened to the store so far.
    pub(super) counts: StoreCounts,
    /// Whether the owner before us ended without giving the application up.
    taken_from_the_dead: bool,
}

impl Shell {
    pub(super) fn new(
        settings: &StoreSettings,
        store: Box<dyn Store>,
        clock: Arc<dyn Clock>,
        health: watch::Sender<StoreHealth>,
        stop_asked: watch::Receiver<bool>,
    ) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let state = State::new(Rules {
            me: settings.owner,
            ownership: settings.ownership,
            start_timeout_ms: ms(settings.start_timeout),
            unavailable_max_ms: ms(settings.unavailable_max),
        });
        let application = settings.application.clone();
        Self {
            state,
            store,
            clock,
            health,
            stop_asked,
            application,
            job: None,
            cause: None,
            work_cause: None,
            commit_failed: false,
            counts: StoreCounts::default(),
            taken_from_the_dead: false,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.ended().is_some()
    }

    /// From nothing to owning the application.
    pub(super) async fn start(&mut self) -> Result<Recovered> {
        let started = self.drive(Event::Start).await;
        started.map_err(|error| error.at(Stage::Start))?;
        let kept = self.kept().await?;
        let term = self.term()?;
        if kept.positions.is_empty() && term.batch_seq > 0 {
            let error = Error::corrupt(format!(
                "offsets are missing although batches were committed application={} batch_seq={}",
                self.application, term.batch_seq
            ));
            let _ = self.drive(Event::Stop).await;
            return Err(error.at(Stage::Start));
        }
        Ok(Recovered {
            epoch: term.epoch,
            batch_seq: term.batch_seq,
            last_batch_time: kept.last_batch_time,
            died_in_vain: self.taken_from_the_dead && committed_nothing(&kept, term),
            zero_time_ms: kept.zero_time_ms,
            positions: kept.positions,
            tables: self.store.tables(),
        })
    }

    fn term(&self) -> Result<Term> {
        self.state.term().ok_or_else(|| Error::internal("the application is not owned"))
    }

    /// Reads what is kept. A lost connection is mended by the heartbeat that finds it.
    async fn kept(&mut self) -> Result<Kept> {
        let mut tries = 1;
        loop {
            match self.store.kept().await {
                Ok(kept) => return Ok(kept),
                Err(error) if !error.kind().is_retryable() || tries == IDEMPOTENT_TRIES => return Err(error),
                Err(_) => {
                    tries += 1;
                    self.drive(Event::BeatDue).await?;
                }
            }
        }
    }

    pub(super) async fn positions(&mut self) -> Result<Vec<StoredPosition>> {
        Ok(self.kept().await?.positions)
    }

    /// Writes the first positions. If an answer was lost they may be there already, which is as good: so it is simply done
    /// again.
    pub(super) async fn initialize(&mut self, positions: Vec<StoredPosition>) -> Result<()> {
        self.job = Some(Job::Positions(positions));
        let mut tries = 1;
        let done = loop {
            match self.drive(Event::Work(Work::Positions)).await {
                Ok(Done::Committed { .. }) => break Ok(()),
                Ok(Done::NotCommitted(error)) if error.kind().is_retryable() && tries < IDEMPOTENT_TRIES => tries += 1,
                Ok(Done::NotCommitted(error)) | Err(error) => break Err(error),
                Ok(_) => {
                    let text = format!("other positions are stored already application={}", self.application);
                    break Err(Error::new(ErrorKind::Conflict, text));
                }
            }
        };
        self.job = None;
        done.map_err(|error| error.at(Stage::Start))
    }

    pub(super) async fn commit(&mut self, batch: Box<BatchCommit>) -> Result<CommitOutcome> {
        let (batch_seq, work) = (batch.batch_seq, work_of(&batch));
        let started = self.clock.monotonic();
        self.job = Some(Job::Batch(batch));
        let done = self.drive(Event::Work(work)).await;
        let Some(Job::Batch(batch)) = self.job.take() else {
            return Err(Error::internal("a batch was lost while it was committed"));
        };
        match done.map_err(|error| error.at(Stage::Commit))? {
            Done::Committed { resolved } => {
                let took = self.clock.monotonic().saturating_sub(started);
                let isolated = batch.isolating.map(|isolating| isolating.isolated);
                Ok(CommitOutcome::Committed(Commit { batch_seq, resolved, took, isolated }))
            }
            Done::Conflict => Ok(CommitOutcome::Conflict { batch, positions: self.positions().await? }),
            Done::NotCommitted(error) => {
                let (error, resolved) = (error.at(Stage::Commit), self.commit_failed);
                Ok(CommitOutcome::NotCommitted { batch, error, resolved })
            }
            Done::Started | Done::Held | Done::Other => Err(Error::internal(format!(
                "a batch does not follow the last committed one application={} batch_seq={batch_seq}",
                self.application
            ))),
        }
    }

    /// Lets the protocol take `event`, and does what it says until it wants nothing more.
    pub(super) async fn drive(&mut self, event: Event) -> Result<Done> {
        let mut done = Done::Other;
        let mut next = Some(event);
        self.work_cause = None;
        self.commit_failed = false;
        while let Some(event) = next.take() {
            let now = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
            let (state, commands) = protocol::step(self.state.clone(), now, event);
            self.state = state;
            for command in commands {
                match command {
                    Command::Report(report) => done = self.report(report)?,
                    Command::Disconnect => self.store.disconnect().await,
                    command => next = Some(self.execute(command).await),
                }
            }
        }
        Ok(done)
    }

    /// Does a command; what it came to.
    async fn execute(&mut self, command: Command) -> Event {
        let in_work = matches!(
            command,
            Command::Begin
                | Command::Lock(_)
                | Command::Write
                | Command::MoveOffsets
                | Command::Advance(_)
                | Command::Commit
        );
        match self.perform_under_fire(command).await {
            Ok(event) => {
                if command == Command::Connect {
                    self.counts.connected();
                }
                event
            }
            Err(error) => {
                if command == Command::Commit && failpoint::mutant("unknown_is_done") {
                    return Event::Committed;
                }
                let kind = error.kind();
                self.counts.failed();
                tracing::warn!(application = self.application, error = error.chain(), ?command, "the store failed");
                if error.kind() == ErrorKind::Unavailable {
                    self.health.send_replace(StoreHealth::Unavailable(error.chain()));
                }
                self.commit_failed |= command == Command::Commit;
                if in_work {
                    self.work_cause = Some(error);
                } else {
                    self.cause = Some(error);
                }
                Event::Failed(kind)
            }
        }
    }

    /// With the tests' faults on both sides: before anything is done, and when it is done and the answer not heard yet.
    async fn perform_under_fire(&mut self, command: Command) -> Result<Event> {
        if !failpoint::ON {
            return self.perform(command).await;
        }
        let arrow = arrow(command);
        failpoint::hit(&format!("commit::before_{arrow}"))?;
        let event = self.perform(command).await?;
        failpoint::hit(&format!("commit::after_{arrow}"))?;
        Ok(event)
    }

    async fn perform(&mut self, command: Command) -> Result<Event> {
        let store = &mut self.store;
        Ok(match command {
            Command::Connect => Event::Connected(store.connect().await?),
            Command::Prepare => {
                store.prepare().await?;
                Event::Prepared
            }
            Command::Look => Event::Looked(store.look().await?),
            Command::TakeOver(judged, grounds) => match store.take_over(judged, grounds).await? {
                Blockable::Done(term) => Event::TookOver(term),
                Blockable::Blocked => Event::Blocked,
            },
            Command::Settle if failpoint::mutant("unknown_is_failed") => Event::Settled(self.state.term()),
            Command::Settle => match store.settle().await? {
                Blockable::Done(term) => Event::Settled(term),
                Blockable::Blocked => Event::Blocked,
            },
            Command::Beat(term) => Event::Beaten(store.beat(term).await?),
            Command::Release(term) => {
                store.release(term).await?;
                Event::Released
            }
            Command::Sleep(ms) => return Ok(self.sleep(ms).await),
            Command::Rollback => {
                store.rollback().await?;
                Event::RolledBack
            }
            command => return self.perform_work(command).await,
        })
    }

    /// The commands of a transaction.
    async fn perform_work(&mut self, command: Command) -> Result<Event> {
        let store = &mut self.store;
        Ok(match (command, &mut self.job) {
            (Command::Begin, _) => {
                if let Some(Job::Batch(batch)) = &mut self.job
                    && let Some(mut alone) = taken_out(batch)
                {
                    store.begin().await?;
                    store.write(&mut alone).await?;
                    store.commit().await?;
                }
                store.begin().await?;
                Event::Begun
            }
            (Command::Lock(_), _) if failpoint::mutant("epoch_before_transaction") => Event::Locked(true),
            (Command::Lock(term), _) => Event::Locked(store.lock(term).await?),
            (Command::Write, Some(Job::Batch(batch))) => {
                store.write(batch).await?;
                Event::Wrote
            }
            (Command::Write, Some(Job::Positions(_))) => Event::Wrote,
            (Command::MoveOffsets, Some(Job::Batch(batch))) => {
                if failpoint::mutant("offsets_in_second_transaction") {
                    store.commit().await?;
                    store.begin().await?;
                }
                Event::Moved(store.move_offsets(batch).await?)
            }
            (Command::MoveOffsets, Some(Job::Positions(positions))) => {
                Event::Moved(store.first_positions(positions).await?)
            }
            (Command::Advance(term), Some(Job::Batch(batch))) => {
                let advanced = store.advance(term, batch).await?;
                if !advanced {
                    // The row is locked and was of this term: only user code can have broken the transaction.
                    return Err(Error::transform("the batch's transaction did not survive user code"));
                }
                Event::Advanced(true)
            }
            (Command::Commit, _) => {
                store.commit().await?;
                Event::Committed
            }
            _ => return Err(Error::internal("the protocol gave a command that cannot be")),
        })
    }

    /// Waits, with no transaction open; being asked to stop ends it.
    async fn sleep(&mut self, ms: u64) -> Event {
        // Processes that lost the same server do not come back in step: up to a quarter more, by this owner's own bits.
        let jitter = ms / 4 * u64::from(self.state.jitter()) / u64::from(u8::MAX);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(ms + jitter)) => Event::Woke,
            // Asked to stop, or every handle is gone: as good as the process's death, which the store survives.
            _ = self.stop_asked.wait_for(|stop| *stop) => Event::Stop,
        }
    }

    fn report(&mut self, report: Report) -> Result<Done> {
        let application = self.application.as_str();
        match report {
            Report::Started(term, on) => {
                let (epoch, batch_seq, grounds) = (term.epoch, term.batch_seq, on.word());
                tracing::info!(application, epoch, batch_seq, grounds, "the application is owned");
                self.health.send_replace(StoreHealth::Serving);
                self.taken_from_the_dead = matches!(on, Grounds::Gone | Grounds::Age);
                Ok(Done::Started)
            }
            Report::Waiting => {
                let changed = self.health.send_if_modified(|health| {
                    let changed = *health != StoreHealth::Waiting;
                    *health = StoreHealth::Waiting;
                    changed
                });
                if changed {
                    let owner = self.store.owner();
                    tracing::info!(application, owner, "another process owns the application: waiting");
                }
                Ok(Done::Other)
            }
            Report::Held => Ok(Done::Held),
            Report::Committed { resolved } => {
                self.health.send_replace(StoreHealth::Serving);
                if resolved {
                    tracing::info!(application, "a commit whose answer was lost is resolved: committed");
                }
                Ok(Done::Committed { resolved })
            }
            Report::NotCommitted => {
                self.health.send_replace(StoreHealth::Serving);
                let error = self.work_cause.take();
                Ok(Done::NotCommitted(error.unwrap_or_else(|| Error::unavailable("the transaction was cut short"))))
            }
            Report::Conflict => Ok(Done::Conflict),
            Report::Reconnected => {
                self.health.send_replace(StoreHealth::Serving);
                Ok(Done::Other)
            }
            Report::Misused => Ok(Done::Other),
            Report::Ended(end) => self.ended(end),
        }
    }

    fn ended(&mut self, end: End) -> Result<Done> {
        if end == End::Stopped {
            self.health.send_replace(StoreHealth::Stopped);
            return match self.work_cause.take() {
                Some(error) => {
                    Err(Error::new(ErrorKind::OutcomeUnknown, "stopped while a commit was in doubt").caused_by(error))
                }
                None if self.job.is_some() => Err(Error::unavailable("stopped while the store was away")),
                None => Ok(Done::Other),
            };
        }
        let application = &self.application;
        let error = match end {
            End::Stopped | End::Fenced => {
                Error::fenced(format!("another process owns the application now application={application}"))
            }
            End::Rival => Error::fenced(format!(
                "another live process owns the application and did not leave application={application} {}",
                self.store.owner()
            )),
            End::PingPong => Error::fenced(format!(
                "processes take the application from each other in turn: end one of them application={application} {}",
                self.store.owner()
            )),
            End::WentBack { stored, known } => Error::corrupt(format!(
                "the database went back behind what was committed to it (restored, or failed over to a replica that \
                 lagged): the next start goes on from the database application={application} stored_batch={stored} \
                 committed_batch={known}"
            )),
            End::Ahead { stored, known } => Error::corrupt(format!(
                "the database has batches that its owner did not commit application={application} \
                 stored_batch={stored} committed_batch={known}"
            )),
            End::Failed(ErrorKind::OutcomeUnknown) => {
                let text = format!("the outcome of a commit could not be settled application={application}");
                let cause = self.work_cause.take().or(self.cause.take());
                let error = Error::new(ErrorKind::OutcomeUnknown, text);
                cause.map_or_else(|| Error::internal("a doubt without a cause"), |cause| error.caused_by(cause))
            }
            End::Failed(kind) => self.cause.take().unwrap_or_else(|| Error::new(kind, "the store failed")),
        };
        self.health.send_replace(StoreHealth::Ended(error.kind(), error.chain()));
        Err(error)
    }
}

/// Whether the epoch before this one has no batch. Where the ledger has forgotten the last batch nobody knows.
fn committed_nothing(kept: &Kept, term: Term) -> bool {
    term.batch_seq == 0 || kept.last_batch_epoch.is_some_and(|epoch| epoch + 1 < term.epoch)
}

/// The dead letters, or the state, taken out of a batch: for mutants that write them in a transaction of their own.
fn taken_out(batch: &mut BatchCommit) -> Option<BatchCommit> {
    let letters = failpoint::mutant("dead_letter_outside_transaction");
    let state = failpoint::mutant("state_outside_transaction");
    (letters || state).then(|| BatchCommit {
        batch_seq: batch.batch_seq,
        batch_time: batch.batch_time,
        ranges: Vec::new(),
        tables: Vec::new(),
        records: Vec::new(),
        dead_letters: if letters { std::mem::take(&mut batch.dead_letters) } else { Vec::new() },
        lost_ranges: Vec::new(),
        state: if state { std::mem::take(&mut batch.state) } else { Vec::new() },
        user_code: Vec::new(),
        isolating: None,
        processing_started_ms: batch.processing_started_ms,
    })
}

/// What a command's failpoints are called after.
const fn arrow(command: Command) -> &'static str {
    match command {
        Command::Connect => "connect",
        Command::Disconnect => "disconnect",
        Command::Prepare => "prepare",
        Command::Look => "look",
        Command::TakeOver(..) => "take_over",
        Command::Settle => "settle",
        Command::Beat(_) => "beat",
        Command::Release(_) => "release",
        Command::Begin => "begin",
        Command::Lock(_) => "lock",
        Command::Write => "write",
        Command::MoveOffsets => "move_offsets",
        Command::Advance(_) => "advance",
        Command::Commit => "commit",
        Command::Rollback => "rollback",
        Command::Sleep(_) => "sleep",
        Command::Report(_) => "report",
    }
}
