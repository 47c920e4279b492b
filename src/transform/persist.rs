//! `persist`: elements that are kept once they are computed, at a storage level.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    DStream, Rdd, StateValue, StorageLevel, StorageMemory,
    kept_partition::{Keeping, Kept},
};
use crate::types::{Compute, Flow, ShuffleStage, Stop, Task};

struct Persisted<T> {
    parent: Arc<dyn Compute<T>>,
    level: StorageLevel,
    memory: Arc<StorageMemory>,
    partitions: Box<[Mutex<Kept<T>>]>,
}

impl<T: StateValue> Persisted<T> {
    fn slot(&self, partition: usize) -> Option<MutexGuard<'_, Kept<T>>> {
        self.partitions.get(partition).map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Computes a partition into storage. No room is no failure.
    fn keep(&self, partition: usize, task: &Task) -> Result<Kept<T>, Stop> {
        let mut keeping = Keeping::begin(self.level, &self.memory).map_err(Stop::Failed)?;
        let mut full = false;
        let flow = self.parent.compute(partition, task, &mut |item| {
            let added = keeping.add(item).and_then(|room| match room {
                true => Ok(true),
                false if self.level.uses_disk() => keeping.spill().map(|()| true),
                false => Ok(false),
            });
            match added {
                Ok(true) => ControlFlow::Continue(()),
                Ok(false) => {
                    full = true;
                    ControlFlow::Break(Stop::Enough)
                }
                Err(error) => ControlFlow::Break(Stop::Failed(error)),
            }
        });
        match flow {
            ControlFlow::Continue(()) => keeping.end(self.level).map_err(Stop::Failed),
            ControlFlow::Break(Stop::Enough) if full => Ok(Kept::NoRoom),
            ControlFlow::Break(stop) => Err(stop),
        }
    }
}

impl<T: StateValue> Compute<T> for Persisted<T> {
    fn partitions(&self) -> usize {
        self.parent.partitions()
    }

    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut(T) -> Flow) -> Flow {
        let Some(mut slot) = self.slot(partition) else { return ControlFlow::Continue(()) };
        // Whoever else wants the partition meanwhile waits here, and finds it computed.
        if matches!(*slot, Kept::NotComputed) {
            let kept = match self.keep(partition, task) {
                Ok(kept) => kept,
                Err(stop) => return ControlFlow::Break(stop),
            };
            // A task that was cancelled ends early, and not by a failure: half of a partition is not kept.
            *slot = if task.is_cancelled() { Kept::NotComputed } else { kept };
        }
        let (items, blocks) = match &*slot {
            Kept::Elements { items, .. } => (Some(Arc::clone(items)), None),
            Kept::Blocks(blocks) => (None, Some(Arc::clone(blocks))),
            Kept::NotComputed | Kept::NoRoom => (None, None),
        };
        drop(slot);
        match (items, blocks) {
            (Some(items), _) => items.iter().try_for_each(|item| each(item.clone())),
            (_, Some(blocks)) => blocks.each(task, each),
            (None, None) => self.parent.compute(partition, task, each),
        }
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.parent.shuffles()
    }
}

impl<T: StateValue> Rdd<T> {
    /// The same elements, each partition of which is kept at `level` once an action has computed it, until the RDD is gone.
    /// [`persist`](Self::persist) computes them all at once and keeps them in memory whatever they take. Spark:
    /// `persist(newLevel)`.
    ///
    /// ```
    /// use directstream::transform::{Rdd, StorageLevel};
    ///
    /// let squares = Rdd::parallelize(1..=4_u64, 2).map(|n| n * n).persist_at(StorageLevel::DISK_ONLY);
    /// assert_eq!((squares.count()?, squares.collect()?), (4, vec![1, 4, 9, 16]));
    /// # Ok::<(), directstream::Error>(())
    /// ```
    #[must_use]
    pub fn persist_at(&self, level: StorageLevel) -> Self {
        let partitions = (0..self.partitions()).map(|_| Mutex::new(Kept::NotComputed)).collect();
        let (parent, memory) = (Arc::clone(self.compute()), Arc::clone(self.scope().storage()));
        Self::new(Arc::new(Persisted { parent, level, memory, partitions }), self.scope().clone())
    }
}

impl<T: StateValue> DStream<T> {
    /// Each batch's elements are kept at `level` once they are computed, until the batch is committed: for what several outputs
    /// need and is dear to compute, or large. Spark: `persist(level)`; its default for streams is `MEMORY_ONLY_SER`.
    ///
    /// Without it the records of Kafka are kept for as long as two outputs need them, and what is made of them is computed by
    /// each output. Where all outputs come from streams that are persisted with a level that uses the disk, records are not
    /// kept: they stream through.
    ///
    /// ```
    /// # use directstream::transform::{Append, DStream, StorageLevel};
    /// # fn example(lines: DStream<String>) -> directstream::Result<()> {
    /// let words = lines.flat_map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    /// let words = words.persist(StorageLevel::MEMORY_AND_DISK_SER);
    /// words.count().print();
    /// words.count_by_value().map(|(word, count)| format!("{word} {count}")).print();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn persist(&self, level: StorageLevel) -> Self {
        self.derive_persisted(level.uses_disk(), move |rdd| Ok(rdd.persist_at(level)))
    }

    /// [`persist`](Self::persist) with Spark's default for streams, `MEMORY_ONLY_SER`. Spark: `cache`.
    #[must_use]
    pub fn cache(&self) -> Self {
        self.persist(StorageLevel::MEMORY_ONLY_SER)
    }
}

#[cfg(test)]
#[path = "persist_tests.rs"]
mod tests;
