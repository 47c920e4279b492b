//! What the RDDs of one batch share: the batch, its input, the runner, and what was made once already.

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{LocalRunner, OperatorId, Rdd, Runner, StorageMemory};
use crate::{
    error::{Error, Result},
    types::{BatchInfo, BatchTime, Compute, OffsetRange, Record, ShuffleStage, Task},
};

/// What the RDDs of one batch share: the batch, its inputs, and the runner.
#[derive(Clone)]
pub struct BatchScope {
    inner: Arc<Inner>,
}

struct Inner {
    task: Task,
    runner: Arc<dyn Runner>,
    inputs: Vec<Input>,
    isolating: bool,
    zero_time_ms: i64,
    storage: Arc<StorageMemory>,
    shuffles: AtomicUsize,
    generated: Mutex<HashMap<OperatorId, Box<dyn Any + Send + Sync>>>,
}

/// The direct stream's own RDD of a batch and its ranges: range `i` is what partition `i` is read from.
#[derive(Clone)]
pub struct Input {
    /// The records.
    pub records: Arc<dyn Compute<Record>>,
    /// The ranges, partition by partition.
    pub ranges: Arc<[OffsetRange]>,
}

impl BatchScope {
    /// The scope of one batch. `inputs` are the direct streams, in order of definition.
    #[must_use]
    pub fn new(task: Task, runner: Arc<dyn Runner>, inputs: Vec<Input>) -> Self {
        Self::with(task, runner, inputs, 0, false)
    }

    /// The same on the grid of a job: `zero_time_ms` is where its slides begin, in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn on_grid(task: Task, runner: Arc<dyn Runner>, inputs: Vec<Input>, zero_time_ms: i64) -> Self {
        Self::with(task, runner, inputs, zero_time_ms, false)
    }

    /// The scope of a batch that is run again because the store refused rows: the output that can isolate them does.
    #[must_use]
    pub fn isolating(task: Task, runner: Arc<dyn Runner>, inputs: Vec<Input>, zero_time_ms: i64) -> Self {
        Self::with(task, runner, inputs, zero_time_ms, true)
    }

    fn with(task: Task, runner: Arc<dyn Runner>, inputs: Vec<Input>, zero_time_ms: i64, isolating: bool) -> Self {
        let (storage, shuffles, generated) = (Arc::default(), AtomicUsize::new(0), Mutex::default());
        Self { inner: Arc::new(Inner { task, runner, inputs, isolating, zero_time_ms, storage, shuffles, generated }) }
    }

    /// The same, where persisted elements share that memory with other batches. For a scope that nobody uses yet.
    #[must_use]
    pub(crate) fn storing_in(self, storage: Arc<StorageMemory>) -> Self {
        match Arc::try_unwrap(self.inner) {
            Ok(inner) => Self { inner: Arc::new(Inner { storage, ..inner }) },
            Err(inner) => Self { inner },
        }
    }

    /// The memory for persisted elements.
    pub(super) fn storage(&self) -> &Arc<StorageMemory> {
        &self.inner.storage
    }

    /// Whether a slide of so many milliseconds ends with this batch. Every batch ends one of `None`.
    pub(crate) fn is_due(&self, slide_ms: Option<i64>) -> bool {
        let since = self.batch().batch_time.as_ms().saturating_sub(self.inner.zero_time_ms);
        slide_ms.is_none_or(|slide_ms| since.rem_euclid(slide_ms.max(1)) == 0)
    }

    /// The scope of RDDs that belong to no batch.
    pub(super) fn outside() -> Self {
        let batch = BatchInfo { batch_seq: 0, batch_time: BatchTime::from_ms(0), ranges: Arc::new([]) };
        Self::new(Task::new(batch), Arc::new(LocalRunner::per_core()), Vec::new())
    }

    /// This scope, or the other if only that one is a batch's: what is made of two RDDs belongs to the batch.
    pub(super) fn of_a_batch<'s>(&'s self, other: &'s Self) -> &'s Self {
        if self.batch().batch_seq == 0 { other } else { self }
    }

    /// Whether the records that the store refuses are to be found.
    #[must_use]
    pub fn is_isolating(&self) -> bool {
        self.inner.isolating
    }

    /// The batch.
    #[must_use]
    pub fn batch(&self) -> &BatchInfo {
        &self.inner.task.batch
    }

    /// The RDD of an operator: made once per batch, so that a shuffle that two outputs need runs once. Only the
    /// computation is kept, which does not know the scope: no cycle, and all is freed with the batch.
    pub(crate) fn generate<T: Send + 'static>(
        &self,
        operator: OperatorId,
        make: impl FnOnce(&Self) -> Result<Rdd<T>>,
    ) -> Result<Rdd<T>> {
        let lock = || self.inner.generated.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&operator).and_then(|known| known.downcast_ref::<Arc<dyn Compute<T>>>().cloned());
        if let Some(compute) = known {
            return Ok(Rdd::new(compute, self.clone()));
        }
        let compute = Arc::clone(make(self)?.compute());
        lock().insert(operator, Box::new(Arc::clone(&compute)));
        // In this scope, also where the user's function gave an RDD from outside of the batch.
        Ok(Rdd::new(compute, self.clone()))
    }

    pub(crate) fn task(&self) -> &Task {
        &self.inner.task
    }

    pub(crate) fn runner(&self) -> &dyn Runner {
        &*self.inner.runner
    }

    pub(crate) fn input(&self, index: usize) -> Result<Input> {
        let input = self.inner.inputs.get(index).cloned();
        input.ok_or_else(|| Error::internal(format!("the batch has no input of this number input={index}")))
    }

    pub(crate) fn next_shuffle_id(&self) -> usize {
        self.inner.shuffles.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs the shuffles that are needed, parents first.
    pub(crate) fn run_shuffles(&self, shuffles: &[Arc<dyn ShuffleStage>]) -> Result<()> {
        // A shuffle keeps what its tasks gave: one that ran already needs nothing, nor those before it.
        for shuffle in shuffles.iter().filter(|shuffle| !shuffle.is_done()) {
            self.run_shuffles(&shuffle.parents())?;
            self.runner().run(shuffle.map_partitions(), &|partition| shuffle.run_map(partition, self.task()))?;
        }
        Ok(())
    }
}

impl fmt::Debug for BatchScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchScope").field("batch", self.batch()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("ranges", &self.ranges).finish_non_exhaustive()
    }
}
