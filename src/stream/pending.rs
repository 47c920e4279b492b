//! The commit that is under way while the next batch is read.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};

use super::{asked_to_stop, batch::Assignment, failing::FailureBudget, mirrors::Mirrors};
use crate::{
    clock::Clock,
    commit::{Commit, CommitOutcome, Committer, StoredPosition},
    error::{Error, Result},
    failpoint,
    plan::BatchSpeed,
    report::{BatchCounts, BatchProgress, CommitEvent, CommitSettled, Reporter, StepInfo, StepKind},
    types::BatchCommit,
};

/// The pause before the second attempt of a batch that is merely not committed, as after a serialization failure or with
/// a full disk; doubled each time, plus up to as much again by chance.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How the commit ended.
pub(super) enum Settled {
    /// The batch is committed, and when the answer came.
    Committed(Commit, Ended),
    /// The stored offsets are others than the batch was planned from; these.
    Conflict(Vec<StoredPosition>),
    /// Rows were refused for what they hold; why, and the stored offsets.
    Refused(Error, Vec<StoredPosition>),
}

/// When a commit was answered. Not when the driver took note of it: it may be reading the next batch.
#[derive(Clone, Copy)]
pub(super) struct Ended {
    /// In monotonic time.
    pub(super) at: Duration,
    /// In milliseconds since 1970-01-01 UTC.
    pub(super) at_ms: i64,
}

/// A batch that is being committed.
pub(super) struct Pending {
    work: JoinHandle<Result<Settled>>,
    pub(super) progress: BatchProgress,
    pub(super) counts: BatchCounts,
    /// What the batch was made from, should it have to be made again.
    pub(super) assignment: Arc<Assignment>,
    /// How long the batch waited, read and transformed, for the one before it to commit.
    waited: Duration,
    /// When the commit began, in milliseconds since 1970-01-01 UTC.
    began_ms: i64,
}

/// How long a batch that is merely not committed is tried again.
pub(super) struct Patience {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) unavailable_max: Duration,
    /// What the first try that fails is taken from.
    pub(super) failures: FailureBudget,
    /// Who is told of commits whose answer was lost.
    pub(super) reporter: Reporter,
    /// Who is told of what is committed, the moment it is.
    pub(super) mirrors: Mirrors,
}

impl Pending {
    /// Starts the commit. It runs to its end whatever happens to this handle.
    pub(super) fn start(
        committer: Committer,
        commit: BatchCommit,
        patience: Patience,
        (progress, counts, assignment, waited): (BatchProgress, BatchCounts, Arc<Assignment>, Duration),
        stop: watch::Receiver<bool>,
    ) -> Self {
        let began_ms = patience.clock.now_ms();
        let work = tokio::spawn(commit_with_retries(committer, commit, patience, stop));
        Self { work, progress, counts, assignment, waited, began_ms }
    }

    /// Tells when the commit began and ended.
    pub(super) fn tell_end(&self, reporter: &Reporter, settled: Option<&Settled>, now_ms: i64) {
        let end_time_ms = match settled {
            Some(Settled::Committed(_, ended)) => ended.at_ms,
            _ => now_ms,
        };
        let step = StepInfo { kind: StepKind::Commit, start_time_ms: self.began_ms, end_time_ms };
        reporter.batch_step(self.progress.batch.batch_time, step);
    }

    /// How fast the batch was, if it is committed.
    ///
    /// While one batch commits, the next one is read; what it then waits for is the other's work, and no measure of its own.
    pub(super) fn speed(&self, settled: &Settled) -> Option<BatchSpeed> {
        let Settled::Committed(_, ended) = settled else { return None };
        let late = Duration::from_millis(self.progress.scheduling_delay_ms()?);
        Some(BatchSpeed {
            ended: ended.at,
            records: self.counts.records,
            processing_delay: ended.at.saturating_sub(self.assignment.began).saturating_sub(self.waited),
            scheduling_delay: late.saturating_add(self.waited),
        })
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
    patience: Patience,
    mut stop: watch::Receiver<bool>,
) -> Result<Settled> {
    failpoint::hit("stream::hand_over")?;
    let batch_time = batch.batch_time;
    let tell = |event, line: Option<&str>| patience.reporter.commit_event(batch_time, event, line);
    let started = patience.clock.monotonic();
    let ends = patience.mirrors.ends_of(&batch);
    if failpoint::mutant("mirror_before_commit") {
        patience.mirrors.committed(&ends);
    }
    for attempt in 1_u32.. {
        match committer.commit(batch).await? {
            CommitOutcome::Committed(commit) => {
                if commit.resolved {
                    patience.reporter.commit_settled(CommitSettled::Committed);
                    tell(CommitEvent::SettledCommitted, None);
                }
                let ended = Ended { at: patience.clock.monotonic(), at_ms: patience.clock.now_ms() };
                patience.mirrors.committed(&ends);
                return Ok(Settled::Committed(commit, ended));
            }
            CommitOutcome::Conflict { positions, .. } => return Ok(Settled::Conflict(positions)),
            // Once more, record by record: what is refused then is refused for good.
            CommitOutcome::NotCommitted { batch, error, .. } if error.is_about_rows() && batch.isolating.is_none() => {
                return Ok(Settled::Refused(error, committer.positions().await?));
            }
            CommitOutcome::NotCommitted { batch: whole, error, resolved } => {
                if resolved {
                    patience.reporter.commit_settled(CommitSettled::RolledBack);
                    tell(CommitEvent::SettledRolledBack, None);
                }
                tell(CommitEvent::NotCommitted, Some(&error.chain()));
                let now = patience.clock.monotonic();
                let error = if attempt == 1 { patience.failures.spend(error, now)? } else { error };
                let lasted = now.saturating_sub(started);
                if !error.kind().is_retryable() || lasted >= patience.unavailable_max || *stop.borrow() {
                    return Err(error);
                }
                tracing::warn!(batch_seq = whole.batch_seq, attempt, "the batch is tried again: {}", error.chain());
                batch = *whole;
            }
        }
        let pause = PAUSE_MIN.saturating_mul(1 << attempt.min(16)).min(PAUSE_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f64(1.0 + jitter())) => {}
            () = asked_to_stop(&mut stop) => {}
        }
    }
    Err(Error::internal("the attempts to commit are used up"))
}

/// Between 0 and 1, so that writers that got into each other's way do not meet again.
fn jitter() -> f64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    f64::from(u32::try_from(high >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
