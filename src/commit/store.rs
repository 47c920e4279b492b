//! What a store has to do: one method per command of the [protocol](super::protocol).

use async_trait::async_trait;

use super::{
    protocol::{Grounds, Judged, Look, Mark, Term},
    settings::{StoredPosition, TableShape},
};
use crate::{
    error::{Error, Result},
    types::{BatchCommit, BatchTime},
};

/// An answer that a lock may keep away for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blockable<T> {
    /// The answer.
    Done(T),
    /// The row stayed locked; nothing was done.
    Blocked,
}

/// What is kept beside term and positions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub(crate) last_batch_time: Option<BatchTime>,
    /// The epoch of the last batch, if the ledger still has that.
    pub(crate) last_batch_epoch: Option<u64>,
    pub(crate) zero_time_ms: i64,
    pub(crate) positions: Vec<StoredPosition>,
}

/// A store: one dedicated session of one database, driven by the shell, one method at a time.
///
/// Contract, which the suite in `tests/it/store` checks for each store:
///
/// * No method is cancelled half-way by its caller. A method that gives up by itself leaves no session behind that could be
///   used again: every later method fails until [`connect`](Self::connect).
/// * An `Err` from [`begin`](Self::begin) to [`commit`](Self::commit) says nothing about the outcome. It is settled by
///   [`settle`](Self::settle) on a new session.
/// * [`commit`](Self::commit) is `Ok` only if the server said that it committed. Stores make the statement before it a
///   checked one, so that a transaction which failed unnoticed cannot pass for a committed one.
/// * Errors hold no payload and no password. Their kinds follow the table of [`ErrorKind`](crate::ErrorKind).
#[async_trait]
pub(crate) trait Store: Send {
    /// Opens the session and checks that the server keeps what it commits and is one that can be written to.
    async fn connect(&mut self) -> Result<Option<Mark>>;

    /// Closes the socket, in whatever state it is.
    async fn disconnect(&mut self);

    /// Brings the schema up to date or refuses it, checks the output tables, and makes sure that the application has a row.
    async fn prepare(&mut self) -> Result<()>;

    /// The output tables as [`prepare`](Self::prepare) found them.
    fn tables(&self) -> Vec<TableShape>;

    /// Reads the application's row, without a lock. Refuses an application of another fingerprint or cluster.
    async fn look(&mut self) -> Result<Look>;

    /// Who owned the application at the last look, for a message: `host=.. process_id=.. last_commit=..`.
    fn owner(&self) -> String;

    /// Raises the epoch and makes us the owner, if the row is still the judged one, or ours. In one transaction with
    /// what a first start fixes.
    async fn take_over(&mut self, judged: Judged, grounds: Grounds) -> Result<Blockable<Option<Term>>>;

    /// Raises the epoch if we are the owner. It must wait for the row's lock: a plain read would give the old state while
    /// a transaction of ours is still committing.
    async fn settle(&mut self) -> Result<Blockable<Option<Term>>>;

    /// Says that we are alive; `false` if we are not the owner.
    async fn beat(&mut self, term: Term) -> Result<bool>;

    /// Gives the application up.
    async fn release(&mut self, term: Term) -> Result<()>;

    /// What is kept of the application.
    async fn kept(&mut self) -> Result<Kept>;

    /// Begins the transaction.
    async fn begin(&mut self) -> Result<()>;

    /// Locks the application's row; `false` if it is not of this term.
    async fn lock(&mut self, term: Term) -> Result<bool>;

    /// Writes rows, runs user code, writes dead letters and lost ranges. Records that are isolated are found here: what that
    /// came to is put into the batch. An error about rows says so ([`Error::is_about_rows`]).
    async fn write(&mut self, batch: &mut BatchCommit) -> Result<()>;

    /// Compare-and-swaps the offsets; `false` if one was not the expected one.
    async fn move_offsets(&mut self, batch: &BatchCommit) -> Result<bool>;

    /// Writes the ledger row and compare-and-swaps the batch number; `false` if the row is not of this term.
    async fn advance(&mut self, term: Term, batch: &BatchCommit) -> Result<bool>;

    /// Inserts first positions; `false` if others are there. Equal ones that are there are fine.
    async fn first_positions(&mut self, positions: &[StoredPosition]) -> Result<bool>;

    /// Commits.
    async fn commit(&mut self) -> Result<()>;

    /// Rolls back.
    async fn rollback(&mut self) -> Result<()>;
}

/// A method was called without a session.
pub(crate) fn not_connected() -> Error {
    Error::unavailable("the store is not connected")
}
