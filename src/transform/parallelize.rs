//! RDDs over elements that are already there.

use std::sync::Arc;

use super::{BatchScope, Element, Rdd, union::Union};
use crate::types::{Compute, Flow, ShuffleStage, Task};

pub(super) struct Parallelized<T> {
    pub(super) partitions: Arc<Vec<Vec<T>>>,
}

impl<T: Clone + Send + Sync> Compute<T> for Parallelized<T> {
    fn partitions(&self) -> usize {
        self.partitions.len()
    }

    fn compute(&self, partition: usize, _task: &Task, each: &mut dyn FnMut(T) -> Flow) -> Flow {
        for item in self.partitions.get(partition).into_iter().flatten() {
            each(item.clone())?;
        }
        Flow::Continue(())
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        Vec::new()
    }
}

impl<T: Element> Rdd<T> {
    /// An RDD over `items`, in order, in `partitions` partitions of about the same size, at least one. It belongs to no
    /// batch: something to join the batches of a stream with, or to try a job's function on. Spark: `parallelize`.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let parts = Rdd::parallelize(1..=5, 2).glom().collect()?;
    /// assert_eq!(parts, [vec![1, 2], vec![3, 4, 5]]);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    pub fn parallelize(items: impl IntoIterator<Item = T>, partitions: usize) -> Self {
        let items: Vec<T> = items.into_iter().collect();
        let (count, partitions) = (items.len(), partitions.max(1));
        let mut items = items.into_iter();
        // Wide enough that no number of partitions that fits into memory is too large for the product.
        let start = |partition: usize| partition as u128 * count as u128 / partitions as u128;
        let length = |partition| usize::try_from(start(partition + 1) - start(partition)).unwrap_or(0);
        let parts = (0..partitions).map(|partition| items.by_ref().take(length(partition)).collect()).collect();
        Self::of_partitions(&BatchScope::outside(), parts)
    }

    /// An RDD whose partitions are already in memory.
    pub(crate) fn of_partitions(scope: &BatchScope, partitions: Vec<Vec<T>>) -> Self {
        Self::new(Arc::new(Parallelized { partitions: Arc::new(partitions) }), scope.clone())
    }

    /// The partitions of several that are in memory, one after the other.
    pub(crate) fn of_shared(scope: &BatchScope, shared: impl Iterator<Item = Arc<Vec<Vec<T>>>>) -> Self {
        let parents = shared.map(|partitions| Arc::new(Parallelized { partitions }) as Arc<dyn Compute<T>>);
        Self::new(Arc::new(Union { parents: parents.collect() }), scope.clone())
    }

    /// The same elements, computed now and kept: later actions on the result compute nothing again.
    ///
    /// # Errors
    /// What a task failed with.
    pub fn persist(&self) -> crate::Result<Self> {
        let partitions = self.run(|_| Vec::new(), super::rdd::push)?;
        Ok(Self::of_partitions(self.scope(), partitions))
    }
}
