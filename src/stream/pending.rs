//! The commit that is under way while the next batch is read.

use std::time::Duration;

use tokio::{sync::watch, task::JoinHandle};

use super::asked_to_stop;
use crate::{
    commit::{Commit, CommitOutcome, Committer, StoredPosition},
    error::{Error, Result},
    report::{BatchCounts, BatchProgress},
    types::BatchCommit,
};

/// A batch that is merely not committed, as after a serialization failure, is tried again so often.
const COMMIT_ATTEMPTS_MAX: u32 = 10;
/// The pause before the second attempt; doubled each time, plus up to as much again by chance.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How the commit ended.
pub(super) enum Settled {
    /// The batch is committed.
    Committed(Commit),
    /// The stored offsets are others than the batch was planned from; these.
    Conflict(Vec<StoredPosition>),
}

/// A batch that is being committed.
pub(super) struct Pending {
    work: JoinHandle<Result<Settled>>,
    pub(super) progress: BatchProgress,
    pub(super) counts: BatchCounts,
}

impl Pending {
    /// Starts the commit. It runs to its end whatever happens to this handle.
    pub(super) fn start(
        committer: Committer,
        commit: BatchCommit,
        progress: BatchProgress,
        counts: BatchCounts,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { work: tokio::spawn(commit_with_retries(committer, commit, stop)), progress, counts }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.work.is_finished()
    }

    /// Waits for the end of the commit. Waiting may be given up and taken up again: the commit goes on.
    pub(super) async fn settled(&mut self) -> Result<Settled> {
        match (&mut self.work).await {
            Ok(settled) => settled,
            Err(error) => Err(Error::internal("the commit's task failed").caused_by(error)),
        }
    }
}

/// Tries the same batch again as long as the store says that it is not committed, and why is something that passes: the
/// ranges are the same, and the store still has the offsets that they continue from, so a second try doubles nothing.
async fn commit_with_retries(
    committer: Committer,
    mut batch: BatchCommit,
    mut stop: watch::Receiver<bool>,
) -> Result<Settled> {
    for attempt in 1.. {
        match committer.commit(batch).await? {
            CommitOutcome::Committed(commit) => return Ok(Settled::Committed(commit)),
            CommitOutcome::Conflict { positions, .. } => return Ok(Settled::Conflict(positions)),
            CommitOutcome::NotCommitted { batch: whole, error } => {
                if !error.kind().is_retryable() || attempt >= COMMIT_ATTEMPTS_MAX || *stop.borrow() {
                    return Err(error);
                }
                tracing::warn!(batch_seq = whole.batch_seq, attempt, "the batch is tried again: {}", error.chain());
                batch = *whole;
            }
        }
        let pause = PAUSE_MIN.saturating_mul(1 << attempt.min(16)).min(PAUSE_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = asked_to_stop(&mut stop) => {}
        }
    }
    Err(Error::internal("unreachable: the attempts to commit are bounded"))
}
