//! The commit protocol as a pure state machine: no I/O, no clock. [`step`] takes what happened and says what to do next;
//! the shell (`commit/shell.rs`) does it, and a model checker can drive the very same function.
//!
//! ```text
//! start     Connect -> Prepare -> Look ... -> TakeOver -> ready          (another live owner: wait, or end)
//! ready     Beat once a second, also as the owner check before side effects
//! batch     Begin -> Lock -> Write -> MoveOffsets -> Advance -> Commit -> ready
//! doubt     anything that fails from Begin on: Disconnect -> Connect -> Settle -> committed | not committed
//! ```
//!
//! * I4, at most one commit of a batch number: `Lock`, `MoveOffsets` and `Advance` are compare-and-swaps inside the
//!   transaction, and after a doubt nothing is done before `Settle`, a locking write that waits for the lost transaction.
//! * I5, no commit of an older epoch: `TakeOver` and `Settle` raise the epoch under the same row lock that `Lock` needs.
//! * I7, fenced is terminal: `Phase::Ended` answers every event with nothing.

mod batch;
#[cfg(test)]
mod model;
mod start;
#[cfg(test)]
mod tests;

use uuid::Uuid;

use crate::error::ErrorKind;

/// How often the owner is looked at while another process has the application.
pub(crate) const LOOK_EVERY_MS: u64 = 200;
/// How long a live owner may take to leave: a rolling restart.
pub(crate) const OWNER_LEAVES_WITHIN_MS: u64 = 10_000;
/// A standby wants the owner's session gone at two looks this far apart.
pub(crate) const GONE_TWICE_MS: u64 = 2_000;
/// Takeovers by age or by force in the last minute from which on a further one is refused: two processes that fence each
/// other in turn get nothing done.
pub(crate) const HASTY_TAKEOVERS_MAX: u32 = 2;
const BACKOFF_FIRST_MS: u64 = 100;
/// Small, so that commits resume soon after the database answers again (I8).
const BACKOFF_MAX_MS: u64 = 2_000;

/// What to do about a live owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ownership {
    /// Wait ten seconds for it to leave, then end.
    #[default]
    Wait,
    /// Wait for ever.
    Standby,
    /// Take the application from it now.
    TakeOver,
}

/// An epoch and the last committed batch under it, as one locked look at the application's row told them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Term {
    /// Grows with every takeover and every settled doubt.
    pub epoch: u64,
    /// The last committed batch.
    pub batch_seq: u64,
}

/// Which database this is: a restored or promoted one has another mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mark {
    /// PostgreSQL's system identifier.
    pub system: i64,
    /// PostgreSQL's timeline.
    pub timeline: i64,
}

/// What is known of the recorded owner's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Session {
    /// It is there.
    Alive,
    /// It is not there any more.
    Gone,
    /// This role may not see it.
    Unknown,
}

/// The application's row as a starter sees it, without a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Look {
    /// What a takeover is conditional on.
    pub judged: Judged,
    /// The owner's session.
    pub session: Session,
    /// Whether `seen_at` is older than five seconds by the database's clock.
    pub stale: bool,
    /// Takeovers by age or by force in the last minute.
    pub hasty_takeovers: u32,
}

/// The state of the row that was judged: the takeover changes nothing if it is another one by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Judged {
    /// The epoch.
    pub epoch: u64,
    /// The owner.
    pub owner: Option<Uuid>,
    /// When the owner was last seen: microseconds by the database's clock.
    pub seen_at: Option<i64>,
}

/// Why an application may be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grounds {
    /// It had no owner.
    Free,
    /// It is ours: the answer to an earlier takeover was lost.
    Ours,
    /// The owner's session is gone.
    Gone,
    /// The owner was not seen for five seconds.
    Age,
    /// The operator said so.
    Force,
}

impl Grounds {
    /// The word in the `takeovers` table.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Ours => "ours",
            Self::Gone => "gone",
            Self::Age => "age",
            Self::Force => "force",
        }
    }

    const fn is_hasty(self) -> bool {
        matches!(self, Self::Age | Self::Force)
    }
}

/// What happened. All but the first four answer a command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The process starts.
    Start,
    /// A second has passed, or somebody wants to be sure before a side effect.
    BeatDue,
    /// A transaction is to be committed.
    Work(Work),
    /// The process ends in good order.
    Stop,
    /// [`Command::Sleep`] is over.
    Woke,
    /// [`Command::Connect`] succeeded.
    Connected(Option<Mark>),
    /// [`Command::Prepare`] succeeded.
    Prepared,
    /// [`Command::Look`]'s answer.
    Looked(Look),
    /// [`Command::TakeOver`]'s answer: `None`, the row is not the judged one any more.
    TookOver(Option<Term>),
    /// [`Command::TakeOver`] or [`Command::Settle`] found the row locked for too long.
    Blocked,
    /// [`Command::Settle`]'s answer: `None`, we are not the owner.
    Settled(Option<Term>),
    /// [`Command::Beat`]'s answer: whether we are still the owner.
    Beaten(bool),
    /// [`Command::Begin`] succeeded.
    Begun,
    /// [`Command::Lock`]'s answer: whether owner, epoch and batch number are ours.
    Locked(bool),
    /// [`Command::Write`] succeeded.
    Wrote,
    /// [`Command::MoveOffsets`]'s answer: whether every offset was the expected one.
    Moved(bool),
    /// [`Command::Advance`]'s answer: whether the one row changed.
    Advanced(bool),
    /// [`Command::Commit`] was answered with success.
    Committed,
    /// [`Command::Rollback`] succeeded.
    RolledBack,
    /// [`Command::Release`] succeeded.
    Released,
    /// The command failed, or its answer was lost: here the two are one.
    Failed(ErrorKind),
}

/// What to do. A step gives at most one command that is answered, as its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Open the one connection, check the server, and prepare the session.
    Connect,
    /// Close the socket, without another word on it. Not answered.
    Disconnect,
    /// Migrate, check the tables, make sure that the application has a row.
    Prepare,
    /// Read the application's row and the state of its owner.
    Look,
    /// Raise the epoch and become the owner, if the row is still the judged one or ours.
    TakeOver(Judged, Grounds),
    /// Raise the epoch if we are the owner, waiting for the row's lock: what was in doubt is then decided.
    Settle,
    /// Write `seen_at` if we are still the owner.
    Beat(Term),
    /// Give the application up.
    Release(Term),
    /// Begin the transaction.
    Begin,
    /// Lock the application's row if owner, epoch and batch number are ours.
    Lock(Term),
    /// Write results, run user code, write dead letters and lost ranges.
    Write,
    /// Compare-and-swap the offsets.
    MoveOffsets,
    /// Write the ledger, and compare-and-swap the batch number.
    Advance(Term),
    /// Commit.
    Commit,
    /// Roll back.
    Rollback,
    /// Wait so many milliseconds; no transaction is open.
    Sleep(u64),
    /// Tell whoever waits. Not answered.
    Report(Report),
}

/// What a transaction does besides the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Work {
    /// A batch: results, offsets, ledger; the batch number grows to this.
    Batch(u64),
    /// The first offsets of an application. Written so that doing it twice is doing it once.
    Positions,
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Report {
    /// We own the application.
    Started(Term, Grounds),
    /// Another process owns it, and we wait.
    Waiting,
    /// We are still the owner.
    Held,
    /// The work is committed; `resolved`: its answer was lost, and the store told.
    Committed {
        /// Whether the answer had been lost.
        resolved: bool,
    },
    /// The work is not committed, for the reason that made it fail; the connection is good again.
    NotCommitted,
    /// The stored offsets are not the expected ones; nothing was committed.
    Conflict,
    /// The connection was lost between transactions, and is good again.
    Reconnected,
    /// The work does not follow from the stored batch number: the caller's fault.
    Misused,
    /// It is over.
    Ended(End),
}

/// Why it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// In good order.
    Stopped,
    /// Another process has the application now.
    Fenced,
    /// A live owner did not leave.
    Rival,
    /// Two processes take the application from each other in turn.
    PingPong,
    /// The database has fewer batches than this process committed: restored, or failed over to a replica that lagged.
    WentBack {
        /// The stored batch number.
        stored: u64,
        /// The one that this process knows to be committed.
        known: u64,
    },
    /// The database has more batches than this process could have committed.
    Ahead {
        /// The stored batch number.
        stored: u64,
        /// The one that this process knows to be committed.
        known: u64,
    },
    /// A step failed for good.
    Failed(ErrorKind),
}

/// A transaction whose outcome is not known, and what may be told once it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Doubt {
    pub(crate) work: Option<Work>,
    pub(crate) conflict: bool,
}

/// Why a connection is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    Start(Starting),
    Settle(Doubt),
}

/// How far judging the owner has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Starting {
    /// Since when a live owner is seen.
    pub(crate) live_since: Option<u64>,
    /// Since when this owner's session is gone.
    pub(crate) gone_since: Option<(u64, Judged)>,
    /// A doubt that a change of timeline left to be judged as at start.
    pub(crate) doubt: Option<Doubt>,
}

/// Where the machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    New,
    Connecting(Purpose),
    BackingOff(Purpose),
    Preparing(Starting),
    Looking(Starting),
    Pausing(Starting),
    TakingOver(Starting, Grounds),
    Settling(Doubt),
    Ready,
    Beating,
    Working(Work, Stage),
    RollingBack(Work),
    Releasing,
    Ended(End),
}

/// How far a transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Beginning,
    Locking,
    Writing,
    MovingOffsets,
    Advancing,
    Committing,
}

/// What holds for the whole life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    /// This process: never used before.
    pub me: Uuid,
    /// What to do about a live owner.
    pub ownership: Ownership,
    /// How long the store may be unavailable at start.
    pub start_timeout_ms: u64,
    /// How long the store may be unavailable later.
    pub unavailable_max_ms: u64,
}

/// The state of one process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) rules: Rules,
    pub(crate) phase: Phase,
    /// What we own, once we do.
    pub(crate) term: Option<Term>,
    /// The database that `term` was told by.
    pub(crate) mark: Option<Mark>,
    /// The database of the present connection.
    pub(crate) mark_now: Option<Mark>,
    /// Since when the store is unavailable, and how many tries that took.
    pub(crate) down: Option<(u64, u32)>,
}

impl State {
    /// A process that has not started.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, phase: Phase::New, term: None, mark: None, mark_now: None, down: None }
    }

    /// Whether it waits for work, with its connection open and no transaction.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<End> {
        match self.phase {
            Phase::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// What it owns.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.term
    }

    /// A byte that differs from process to process.
    pub(crate) fn jitter(&self) -> u8 {
        self.rules.me.as_bytes()[0]
    }

    fn go(mut self, phase: Phase, commands: Vec<Command>) -> (Self, Vec<Command>) {
        self.phase = phase;
        (self, commands)
    }

    fn end(self, end: End) -> (Self, Vec<Command>) {
        self.go(Phase::Ended(end), vec![Command::Disconnect, Command::Report(Report::Ended(end))])
    }

    /// Puts the connection away and makes a new one, at once.
    fn reconnect(self, purpose: Purpose) -> (Self, Vec<Command>) {
        self.go(Phase::Connecting(purpose), vec![Command::Disconnect, Command::Connect])
    }

    /// The store does not answer: try again later, within the budget.
    fn back_off(mut self, now: u64, purpose: Purpose, kind: ErrorKind) -> (Self, Vec<Command>) {
        let (since, tries) = self.down.unwrap_or((now, 0));
        let (budget, unknown) = match purpose {
            Purpose::Start(starting) if starting.doubt.is_none() => (self.rules.start_timeout_ms, false),
            Purpose::Start(_) => (self.rules.unavailable_max_ms, true),
            Purpose::Settle(doubt) => (self.rules.unavailable_max_ms, doubt.work.is_some()),
        };
        if now.saturating_sub(since) >= budget {
            return self.end(End::Failed(if unknown { ErrorKind::OutcomeUnknown } else { kind }));
        }
        self.down = Some((since, tries.saturating_add(1)));
        let wait = (BACKOFF_FIRST_MS << tries.min(10)).min(BACKOFF_MAX_MS);
        self.go(Phase::BackingOff(purpose), vec![Command::Disconnect, Command::Sleep(wait)])
    }

    /// A command of `purpose` failed: again later if that can help, else it is over.
    fn failed(self, now: u64, purpose: Purpose, kind: ErrorKind) -> (Self, Vec<Command>) {
        if kind.is_retryable() { self.back_off(now, purpose, kind) } else { self.end(End::Failed(kind)) }
    }
}

/// What follows from `event` at `now` (milliseconds of a clock that only goes forward).
///
/// An event that cannot happen in this state, such as the answer to a command that was not given, changes nothing.
#[must_use]
pub fn step(state: State, now: u64, event: Event) -> (State, Vec<Command>) {
    match state.phase {
        Phase::Ended(_) => (state, Vec::new()),
        Phase::New
        | Phase::Connecting(_)
        | Phase::BackingOff(_)
        | Phase::Preparing(_)
        | Phase::Looking(_)
        | Phase::Pausing(_)
        | Phase::TakingOver(..)
        | Phase::Settling(_) => start::step(state, now, event),
        Phase::Ready | Phase::Beating | Phase::Working(..) | Phase::RollingBack(_) | Phase::Releasing => {
            batch::step(state, &event)
        }
    }
}
