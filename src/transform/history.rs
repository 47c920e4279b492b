//! What windows remember: the elements of their parent's last batches, in memory.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{BatchScope, DStream, rdd::push};
use crate::{error::Result, types::BatchTime};

/// A stream whose batches are remembered. Registered with the graph, so that the driver lets it see every batch, and past
/// ones again after a restart.
pub trait Remembers: Send + Sync {
    /// Takes the batch in. One that is run again replaces what was there of it and of those after it.
    ///
    /// # Errors
    /// What a task failed with.
    fn remember(&self, scope: &BatchScope) -> Result<()>;

    /// For how long, in milliseconds of batch time.
    fn remembered_ms(&self) -> i64;

    /// Whether what is remembered still counts in a batch of that time: the batch must be run, also without any record.
    fn counts_at(&self, batch_time_ms: i64) -> bool;
}

/// The batches of a stream that windows look back on.
pub(super) struct History<T> {
    parent: DStream<T>,
    remembered_ms: i64,
    /// For so long after a batch its records still change what comes out: one slide more than they are in the window, for the
    /// first window without them.
    counts_ms: i64,
    batches: Mutex<VecDeque<Remembered<T>>>,
}

/// The elements of one batch. Partitions without elements are left out.
pub(super) struct Remembered<T> {
    batch_seq: u64,
    time_ms: i64,
    pub(super) partitions: Arc<Vec<Vec<T>>>,
}

impl<T> Remembered<T> {
    pub(super) fn time(&self) -> BatchTime {
        BatchTime::from_ms(self.time_ms)
    }
}

impl<T> Clone for Remembered<T> {
    fn clone(&self) -> Self {
        Self { batch_seq: self.batch_seq, time_ms: self.time_ms, partitions: Arc::clone(&self.partitions) }
    }
}

impl<T: Clone + Send + Sync + 'static> History<T> {
    /// Remembers `parent` for `remembered_ms`; its elements count for `counts_ms`.
    pub(super) fn of(parent: &DStream<T>, remembered_ms: i64, counts_ms: i64) -> Arc<Self> {
        if parent.is_stateful() {
            // At start windows read past batches again; the state that those were made with is gone by then.
            let fault = "a window cannot look back on state: put the window before update_state_by_key, map_with_state and \
                         windows over event time";
            parent.graph().note_fault(fault.to_owned());
        }
        let history =
            Arc::new(Self { parent: parent.used(), remembered_ms, counts_ms, batches: Mutex::new(VecDeque::new()) });
        parent.graph().add_history(Arc::clone(&history) as Arc<dyn Remembers>);
        history
    }

    /// The batches with a time in `(after, until]`, the oldest first.
    pub(super) fn between(&self, after_ms: i64, until_ms: i64) -> Vec<Remembered<T>> {
        let inside = |batch: &&Remembered<T>| batch.time_ms > after_ms && batch.time_ms <= until_ms;
        self.lock().iter().filter(inside).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Remembered<T>>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Send + Sync + 'static> Remembers for History<T> {
    fn remember(&self, scope: &BatchScope) -> Result<()> {
        let (batch_seq, time_ms) = (scope.batch().batch_seq, scope.batch().batch_time.as_ms());
        let mut partitions = match self.parent.is_due(scope) {
            true => self.parent.rdd(scope)?.run(|_| Vec::new(), push)?,
            false => Vec::new(),
        };
        partitions.retain(|partition| !partition.is_empty());
        let mut batches = self.lock();
        // This batch is run again, or what was run ahead of it was not committed.
        while batches.back().is_some_and(|batch| batch.batch_seq >= batch_seq) {
            batches.pop_back();
        }
        // The batch before may still be run again, under its own time or a later one: it decides what nobody needs any more.
        if let Some(before) = batches.back().map(|batch| batch.time_ms) {
            let needed = |batch: &Remembered<T>| batch.time_ms > before.saturating_sub(self.remembered_ms);
            while batches.front().is_some_and(|batch| !needed(batch)) {
                batches.pop_front();
            }
        }
        batches.push_back(Remembered { batch_seq, time_ms, partitions: Arc::new(partitions) });
        Ok(())
    }

    fn remembered_ms(&self) -> i64 {
        self.remembered_ms
    }

    fn counts_at(&self, batch_time_ms: i64) -> bool {
        let last = self.lock().iter().rev().find(|batch| !batch.partitions.is_empty()).map(|batch| batch.time_ms);
        last.is_some_and(|last| last > batch_time_ms.saturating_sub(self.counts_ms))
    }
}
