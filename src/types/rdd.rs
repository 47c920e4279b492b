//! What running an RDD needs: partitions that compute, tasks, and why a task stops.

use std::{
    any::Any,
    fmt,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{BatchInfo, Term};
use crate::error::{Error, Result};

/// Why the elements of a partition stop before their end.
#[derive(Debug)]
pub enum Stop {
    /// Whoever takes them has enough, as `take` does.
    Enough,
    /// The task failed.
    Failed(Error),
}

/// Go on, or stop.
pub type Flow = ControlFlow<Stop>;

/// What a task knows of its batch.
#[derive(Debug, Clone)]
pub struct Task {
    /// The batch.
    pub batch: BatchInfo,
    term: Option<Arc<Term>>,
    cancelled: Arc<AtomicBool>,
}

impl Task {
    /// A task of `batch`.
    #[must_use]
    pub fn new(batch: BatchInfo) -> Self {
        Self { batch, term: None, cancelled: Arc::new(AtomicBool::new(false)) }
    }

    /// The same in a term of ownership, as a running stream's tasks are.
    #[must_use]
    pub fn in_term(self, term: Arc<Term>) -> Self {
        Self { term: Some(term), ..self }
    }

    /// The term of ownership; `None` outside of a running stream.
    #[must_use]
    pub fn term(&self) -> Option<&Term> {
        self.term.as_deref()
    }

    /// Asks the tasks of this batch to stop at their next chunk.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether the batch was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// An RDD as the runner sees it: partitions whose elements are computed on demand, each in one loop.
pub trait Compute<T>: Send + Sync {
    /// How many partitions there are.
    fn partitions(&self) -> usize;

    /// Gives every element of `partition` to `each`, in order, until it stops.
    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut(T) -> Flow) -> Flow;

    /// The shuffles that must have run before this can be computed. Narrow operations give their parents'.
    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>>;

    /// Itself, if it is an exchange by key that the shuffle of a keyed operation can do on its way.
    fn exchange(&self) -> Option<&dyn Any> {
        None
    }
}

/// The map side of a shuffle: one task per partition of the parent.
pub trait ShuffleStage: Send + Sync + fmt::Debug {
    /// Its identity within the batch: a shuffle that two outputs need runs once.
    fn id(&self) -> usize;

    /// The shuffles that must have run before this one.
    fn parents(&self) -> Vec<Arc<dyn ShuffleStage>>;

    /// How many map tasks there are.
    fn map_partitions(&self) -> usize;

    /// Whether the output of every map task is there: then neither this shuffle nor one before it has to run.
    fn is_done(&self) -> bool;

    /// Runs one map task and keeps its output for the reduce side.
    ///
    /// # Errors
    /// What the task failed with.
    fn run_map(&self, partition: usize, task: &Task) -> Result<()>;
}
