//! The batch in hand: reading, transforming and side effects, within the deadline, and within the grace once a stop is asked for.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::{
    asked_to_stop,
    batch::{Assignment, Processed},
    driver::Driver,
    work::on_own_thread,
};
use crate::{
    error::Result,
    plan::{Plan, PlannedRange},
    read::Rehearsed,
    types::BatchInfo,
};

/// After a stop was asked for, the batch in hand may be finished for so long; then it is abandoned whole.
const STOP_BATCH: Duration = Duration::from_secs(4);
/// ... so long may its tasks take to notice.
const STOP_TASKS: Duration = Duration::from_secs(1);

impl Driver {
    /// Reads and transforms on a thread that may wait. `None` if a stop was asked for and the batch was abandoned.
    pub(super) async fn process(
        &self,
        assignment: Arc<Assignment>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<Processed>> {
        let task = assignment.task.clone();
        let workshop = Arc::clone(&self.workshop);
        let mut work = on_own_thread(move || workshop.process(&assignment));
        let mut deadline = std::pin::pin!(tokio::time::sleep(self.stream.batch_deadline));
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                _ = beat.tick() => self.reporter.progress(),
                () = asked_to_stop(stop) => {
                    if let Ok(done) = tokio::time::timeout(self.batch_grace(), &mut work).await {
                        break done;
                    }
                    task.cancel();
                    let _ = tokio::time::timeout(STOP_TASKS, &mut work).await;
                    return Ok(None);
                }
                () = &mut deadline => {
                    // Tasks that go on notice at their next chunk. Code that never returns stays behind on its thread.
                    task.cancel();
                    let _ = tokio::time::timeout(STOP_TASKS, &mut work).await;
                    return Err(task.batch.over_deadline("was not read and transformed", self.stream.batch_deadline));
                }
            }
        };
        done.and_then(|processed| processed).map(Some)
    }

    /// Reads the first batch once before it counts, after a process that died without a commit: it may have died of a record
    /// batch, and the next one would. `None` if a stop was asked for.
    pub(super) async fn rehearsed(&self, plan: &Plan, stop: &mut watch::Receiver<bool>) -> Result<Option<()>> {
        let of = |planned: &PlannedRange| Rehearsed { range: planned.range.clone(), latest: planned.latest };
        let rehearsed: Vec<_> = plan.ranges.iter().map(of).collect();
        tracing::warn!(
            partitions = rehearsed.iter().filter(|rehearsed| !rehearsed.range.is_empty()).count(),
            "the process before died and had committed nothing: the first batch is read once beforehand, partition by partition"
        );
        let stopped = Arc::new(AtomicBool::new(false));
        let (sources, cancelled) = (self.sources.clone(), Arc::clone(&stopped));
        let mut work = on_own_thread(move || sources.rehearse(&rehearsed, &|| cancelled.load(Ordering::Relaxed)));
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                done = &mut work => return done.and_then(|done| done).map(Some),
                _ = beat.tick() => self.reporter.progress(),
                () = asked_to_stop(stop) => {
                    stopped.store(true, Ordering::Relaxed);
                    let _ = tokio::time::timeout(STOP_TASKS, &mut work).await;
                    return Ok(None);
                }
            }
        }
    }

    /// Side effects, and a last look at the topics' ids.
    ///
    /// The inner error is one of this batch, which is dropped.
    pub(super) async fn before_commit(&self, mut processed: Processed, batch: &BatchInfo) -> Result<Result<Processed>> {
        if self.workshop.has_side_effects() {
            self.committer.check_owner().await?;
            let workshop = Arc::clone(&self.workshop);
            let work = on_own_thread(move || workshop.run_side_effects(&mut processed).map(|()| processed));
            let deadline = self.stream.batch_deadline;
            let over = |_| Ok(Err(batch.over_deadline("did not end its side effects", deadline)));
            let ran = tokio::time::timeout(deadline, work).await.unwrap_or_else(over);
            processed = match ran.and_then(|ran| ran) {
                Ok(processed) => processed,
                Err(error) => return Ok(Err(error)),
            };
        }
        Ok(match self.sources.recreated_topic(&processed.commit).await? {
            Some(error) => Err(error),
            None => Ok(processed),
        })
    }

    /// Waits for something of the batch in hand, and after a stop was asked for only as long as that batch may take. `None` if
    /// it took longer.
    pub(super) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = T>,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                _ = beat.tick() => self.reporter.progress(),
                () = asked_to_stop(stop) => return tokio::time::timeout(self.batch_grace(), &mut work).await.ok(),
            }
        }
    }

    /// What is left of the time that the batch in hand may take after a stop was asked for.
    fn batch_grace(&self) -> Duration {
        let now = self.clock.monotonic();
        STOP_BATCH.saturating_sub(now.saturating_sub(*self.stop_asked.get_or_init(|| now)))
    }
}
