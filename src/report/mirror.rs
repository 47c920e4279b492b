//! Mirrors: copies of the committed offsets for tools that look for them in a consumer group of Kafka or in ZooKeeper.
//!
//! The store has the truth, and a mirror is never read back. What holds of every mirror, whatever it is written into:
//!
//! 1. It is told of offsets once they are committed, so it is behind the store at times and never ahead of it.
//! 2. Within one term it goes forward only. A new term begins where the store is, also further back: that is how it follows an
//!    operator who moved the offsets, and how it catches up after a process that died between a commit and its copy.
//! 3. What is to be written lies in a slot with one offset per partition, where the last value wins; nobody waits for it.
//! 4. Only the owner writes: before each write the store is asked whose the application is. So a process that stood still while
//!    another one took over writes nothing any more when it goes on.
//! 5. A server that is away costs a try a second, a count, and a line in the log every half minute.

mod group;
mod slot;
#[cfg(test)]
pub(super) mod tests;
mod worker;
mod zookeeper;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

pub(crate) use self::{group::ConsumerGroupTarget, zookeeper::ZookeeperTarget};
use self::{slot::Slot, worker::Worker};
use super::metrics::{Family, MIRROR_ERRORS, MIRROR_LAG, MIRROR_LAST_SUCCESS};
use crate::{
    clock::Clock,
    error::Result,
    types::{Offset, TopicPartition},
};

/// Offsets by partition: of each the next one to read.
pub(crate) type Offsets = BTreeMap<TopicPartition, Offset>;

/// What a mirror is written into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MirrorKind {
    ConsumerGroup,
    Zookeeper,
}

impl MirrorKind {
    const ALL: [Self; 2] = [Self::ConsumerGroup, Self::Zookeeper];

    /// The word for it in logs and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ConsumerGroup => "consumer_group",
            Self::Zookeeper => "zookeeper",
        }
    }
}

impl fmt::Display for MirrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where offsets are written. Writing the same twice is writing it once.
#[async_trait]
pub(crate) trait MirrorTarget: Send {
    /// Writes offsets, within seconds.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if somebody else has written since: the application may be another process's.
    /// Whatever else keeps it from writing, all of it or parts.
    async fn write(&mut self, offsets: &Offsets) -> Result<()>;

    /// Whether all is there that is kept beside the offsets; otherwise all is written once more.
    fn is_whole(&self) -> bool {
        true
    }

    /// Takes away what only a living process has.
    async fn close(&mut self) {}
}

/// Who can say whether this process still owns the application.
#[async_trait]
pub(crate) trait Ownership: Send + Sync {
    /// # Errors
    /// [`Fenced`](crate::ErrorKind::Fenced): another process owns it. Anything else: nobody knows at the moment.
    async fn check(&self) -> Result<()>;
}

/// How a mirror ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MirrorEnd {
    /// What is committed is written once more, if it is not there.
    Flush,
    /// Nothing more is written: the application may be another process's.
    Abandon,
}

/// One mirror, kept by a task of its own. Dropped, it writes nothing more.
#[derive(Debug)]
pub(crate) struct Mirror {
    shared: Arc<MirrorState>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What a mirror's task and those who tell it or look at it have in common.
#[derive(Debug)]
pub(crate) struct MirrorState {
    kind: MirrorKind,
    clock: Arc<dyn Clock>,
    told: Mutex<Told>,
    changed: Notify,
    end: watch::Sender<Option<MirrorEnd>>,
}

#[derive(Debug, Default)]
struct Told {
    slot: Slot,
    errors: u64,
    /// Milliseconds since 1970-01-01 UTC; 0 before the first.
    last_success_ms: i64,
}

impl Mirror {
    /// Begins a term: all `offsets` are written. The application must be ours.
    pub(crate) fn start(
        kind: MirrorKind,
        target: Box<dyn MirrorTarget>,
        owner: Arc<dyn Ownership>,
        clock: Arc<dyn Clock>,
        offsets: Offsets,
    ) -> Self {
        let shared = Arc::new(MirrorState::new(kind, clock));
        shared.begin(offsets);
        let task = tokio::spawn(Worker::new(Arc::clone(&shared), target, owner).run());
        Self { shared, task: Mutex::new(Some(task)) }
    }

    /// What can be looked at.
    pub(crate) fn state(&self) -> Arc<MirrorState> {
        Arc::clone(&self.shared)
    }

    /// Ends it: what it has in hand, what `end` says, and what the target has to take away. The task that does not end within
    /// `limit` is left to itself, and is not waited for.
    pub(crate) async fn close(&self, end: MirrorEnd, limit: Duration) {
        self.shared.end.send_replace(Some(end));
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut task) = task
            && tokio::time::timeout(limit, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl MirrorState {
    pub(super) fn new(kind: MirrorKind, clock: Arc<dyn Clock>) -> Self {
        Self { kind, clock, told: Mutex::default(), changed: Notify::new(), end: watch::Sender::default() }
    }

    /// These are the stored offsets, whatever was written before.
    pub(crate) fn begin(&self, offsets: Offsets) {
        self.with(|told| told.slot.begin(offsets));
        self.changed.notify_one();
    }

    /// These are committed, and it was this process that committed them.
    pub(crate) fn committed(&self, offsets: impl IntoIterator<Item = (TopicPartition, Offset)>) {
        self.with(|told| told.slot.committed(offsets));
        self.changed.notify_one();
    }

    fn with<T>(&self, work: impl FnOnce(&mut Told) -> T) -> T {
        let mut told: MutexGuard<'_, Told> = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut told)
    }

    fn failed(&self) {
        self.with(|told| told.errors += 1);
    }

    fn succeeded(&self) {
        let now_ms = self.clock.now_ms();
        self.with(|told| told.last_success_ms = now_ms);
    }
}

/// The families of all mirrors; none where there is no mirror. Several of one kind, as with several clusters, are one series.
pub(super) fn render(mirrors: &[Arc<MirrorState>]) -> Vec<String> {
    if mirrors.is_empty() {
        return Vec::new();
    }
    let mut families = [&MIRROR_LAG, &MIRROR_ERRORS, &MIRROR_LAST_SUCCESS].map(Family::new);
    for kind in MirrorKind::ALL {
        let looks: Vec<(u64, u64, i64)> = mirrors
            .iter()
            .filter(|mirror| mirror.kind == kind)
            .map(|mirror| mirror.with(|told| (told.slot.lag(), told.errors, told.last_success_ms)))
            .collect();
        let Some(last_success_ms) = looks.iter().map(|look| look.2).min() else { continue };
        let [lag, errors, last_success] = &mut families;
        lag.add(&[kind.as_str()], looks.iter().map(|look| look.0).sum::<u64>());
        errors.add(&[kind.as_str()], looks.iter().map(|look| look.1).sum::<u64>());
        last_success.add(&[kind.as_str()], super::reporter::seconds_of_ms(last_success_ms));
    }
    families.map(Family::into_text).into()
}
