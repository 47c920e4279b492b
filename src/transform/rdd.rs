//! The elements of one batch, and the actions that compute them.

use std::{
    fmt,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use super::BatchScope;
use crate::{
    error::Result,
    types::{BatchInfo, Compute, Flow, Stop},
};

/// The elements of one batch, in partitions, computed when an action asks for them.
///
/// Operations as [`map`](Self::map) make another RDD and compute nothing yet; actions as [`collect`](Self::collect) compute, each
/// anew, unless the RDD is [`persist`](Self::persist)ed. What a shuffle made stays until the RDDs that need it are gone.
/// Cloning an RDD copies no element.
///
/// ```
/// use directstream::transform::Rdd;
///
/// let words = Rdd::parallelize(["to be or", "not to be"], 2).flat_map(|line| line.split(' '));
/// let counts = words.count_by_value();
/// assert_eq!(counts.swap().top(2)?, [(2, "to"), (2, "be")]);
/// # Ok::<(), directstream::Error>(())
/// ```
pub struct Rdd<T> {
    compute: Arc<dyn Compute<T>>,
    scope: BatchScope,
}

impl<T> Clone for Rdd<T> {
    fn clone(&self) -> Self {
        Self { compute: Arc::clone(&self.compute), scope: self.scope.clone() }
    }
}

impl<T> fmt::Debug for Rdd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rdd").field("partitions", &self.compute.partitions()).field("scope", &self.scope).finish()
    }
}

impl<T: Send + 'static> Rdd<T> {
    pub(crate) fn new(compute: Arc<dyn Compute<T>>, scope: BatchScope) -> Self {
        Self { compute, scope }
    }

    pub(crate) fn compute(&self) -> &Arc<dyn Compute<T>> {
        &self.compute
    }

    pub(crate) fn scope(&self) -> &BatchScope {
        &self.scope
    }

    /// The batch this RDD belongs to, with all its ranges.
    #[must_use]
    pub fn batch(&self) -> &BatchInfo {
        self.scope.batch()
    }

    /// Gives every element of every partition to `each`: partitions in parallel, the elements of one in order. One state
    /// per partition is made by `start` and comes back, in the order of partitions.
    ///
    /// # Errors
    /// What a task failed with.
    pub(crate) fn run<S: Send>(
        &self,
        start: impl Fn(usize) -> S + Sync,
        each: impl Fn(&mut S, T) -> Flow + Sync,
    ) -> Result<Vec<S>> {
        self.run_whole(|partition| Ok(start(partition)), each, Ok)
    }

    /// The same where a partition also has a beginning and an end that may fail: both run in its own task, so that no more
    /// partitions are in hand than tasks run at a time.
    ///
    /// # Errors
    /// What a task failed with.
    pub(super) fn run_whole<S, R: Send>(
        &self,
        start: impl Fn(usize) -> Result<S> + Sync,
        each: impl Fn(&mut S, T) -> Flow + Sync,
        end: impl Fn(S) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        self.run_over(&(0..self.partitions()).collect::<Vec<_>>(), start, each, end)
    }

    fn run_over<S, R: Send>(
        &self,
        partitions: &[usize],
        start: impl Fn(usize) -> Result<S> + Sync,
        each: impl Fn(&mut S, T) -> Flow + Sync,
        end: impl Fn(S) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        blocking(|| {
            self.scope.run_shuffles(&self.compute.shuffles())?;
            let slots: Vec<Mutex<Option<R>>> = partitions.iter().map(|_| Mutex::new(None)).collect();
            self.scope.runner().run(partitions.len(), &|index| {
                let mut state = start(partitions[index])?;
                let flow =
                    self.compute.compute(partitions[index], self.scope.task(), &mut |item| each(&mut state, item));
                if let ControlFlow::Break(Stop::Failed(error)) = flow {
                    return Err(error);
                }
                *slots[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(end(state)?);
                Ok(())
            })?;
            let taken = slots.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
            Ok(taken.flatten().collect())
        })
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.compute.partitions()
    }

    /// How many elements it has.
    ///
    /// # Errors
    /// What a task failed with.
    pub fn count(&self) -> Result<u64> {
        let counts = self.run(
            |_| 0_u64,
            |count, _| {
                *count += 1;
                ControlFlow::Continue(())
            },
        )?;
        Ok(counts.iter().sum())
    }

    /// All elements, in the order of partitions. They must fit into memory.
    ///
    /// # Errors
    /// What a task failed with.
    pub fn collect(&self) -> Result<Vec<T>> {
        let parts = self.run(|_| Vec::new(), push)?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// The first `count` elements, in the order of partitions. Reads only as many partitions as it needs. Spark: `take`.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// assert_eq!(Rdd::parallelize(["to", "be", "or"], 3).take(2)?, ["to", "be"]);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// What a task failed with.
    pub fn take(&self, count: usize) -> Result<Vec<T>> {
        let mut taken = Vec::new();
        for partition in 0..self.partitions() {
            let missing = count - taken.len();
            if missing == 0 {
                break;
            }
            let part = self.run_over(
                &[partition],
                |_| Ok(Vec::new()),
                |part: &mut Vec<T>, item| {
                    part.push(item);
                    if part.len() < missing { ControlFlow::Continue(()) } else { ControlFlow::Break(Stop::Enough) }
                },
                Ok,
            )?;
            taken.extend(part.into_iter().flatten());
        }
        Ok(taken)
    }

    /// The first element, if there is one. Spark: `first`, which fails where there is none.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let words = Rdd::parallelize(["to", "be"], 2);
    /// assert_eq!((words.first()?, words.filter(|_| false).first()?), (Some("to"), None));
    /// # Ok::<(), directstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// What a task failed with.
    pub fn first(&self) -> Result<Option<T>> {
        Ok(self.take(1)?.pop())
    }

    /// Whether there is no element.
    ///
    /// # Errors
    /// What a task failed with.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.take(1)?.is_empty())
    }

    /// Combines all elements: within a partition in order, then partition by partition. `None` if there are none.
    ///
    /// # Errors
    /// What a task failed with.
    pub fn reduce(&self, combine: impl Fn(T, T) -> T + Sync) -> Result<Option<T>> {
        let parts = self.run(
            |_| None,
            |total: &mut Option<T>, item| {
                *total = Some(match total.take() {
                    Some(before) => combine(before, item),
                    None => item,
                });
                ControlFlow::Continue(())
            },
        )?;
        Ok(parts.into_iter().flatten().reduce(combine))
    }

    /// Runs `each` on every element, in parallel over partitions, in order within one.
    ///
    /// # Errors
    /// What a task failed with.
    pub fn for_each(&self, each: impl Fn(T) + Sync) -> Result<()> {
        self.run(
            |_| (),
            |(), item| {
                each(item);
                ControlFlow::Continue(())
            },
        )?;
        Ok(())
    }
}

pub(crate) fn push<T>(part: &mut Vec<T>, item: T) -> Flow {
    part.push(item);
    ControlFlow::Continue(())
}

/// Runs work that blocks. On a thread of an async runtime (`foreach_rdd_in`) the runtime is told, so that its other tasks
/// go on elsewhere.
fn blocking<R>(work: impl FnOnce() -> R) -> R {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
