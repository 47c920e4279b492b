//! RDDs over elements that are already there.

use std::sync::Arc;

use super::{BatchScope, Rdd, union::Union};
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

impl<T: Clone + Send + Sync + 'static> Rdd<T> {
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
