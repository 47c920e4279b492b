//! `coalesce`: neighbouring partitions become one.

use std::sync::Arc;

use super::{DStream, Rdd};
use crate::types::{Compute, Flow, ShuffleStage, Task};

struct Coalesced<T> {
    parent: Arc<dyn Compute<T>>,
    partitions: usize,
}

impl<T: 'static> Compute<T> for Coalesced<T> {
    fn partitions(&self) -> usize {
        self.partitions
    }

    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut(T) -> Flow) -> Flow {
        let before = self.parent.partitions();
        let start = |partition| partition * before / self.partitions;
        (start(partition)..start(partition + 1)).try_for_each(|partition| self.parent.compute(partition, task, each))
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.parent.shuffles()
    }
}

impl<T: Send + 'static> Rdd<T> {
    /// The same elements in the same order, in no more than `partitions` partitions, at least one: neighbours are computed
    /// one after the other by one task. No shuffle; an RDD that has no more than that stays as it is.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let parts = Rdd::parallelize(0..6, 3).coalesce(2).glom().collect()?;
    /// assert_eq!(parts, [vec![0, 1], vec![2, 3, 4, 5]]);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    #[must_use]
    pub fn coalesce(&self, partitions: usize) -> Self {
        let partitions = partitions.max(1);
        if self.partitions() <= partitions {
            return self.clone();
        }
        let parent = Arc::clone(self.compute());
        Self::new(Arc::new(Coalesced { parent, partitions }), self.scope().clone())
    }
}

impl<T: Send + 'static> DStream<T> {
    /// The same elements in the same order, in no more than `partitions` partitions, without a shuffle. Spark: `coalesce`.
    #[must_use]
    pub fn coalesce(&self, partitions: usize) -> Self {
        self.derive("coalesce", move |rdd| Ok(rdd.coalesce(partitions)))
    }
}
