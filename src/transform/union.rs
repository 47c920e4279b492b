//! `union`: the partitions of two streams, one after the other.

use std::sync::Arc;

use super::{DStream, Rdd};
use crate::types::{Compute, Flow, ShuffleStage, Task};

pub(super) struct Union<T> {
    pub(super) parents: Vec<Arc<dyn Compute<T>>>,
}

impl<T: 'static> Compute<T> for Union<T> {
    fn partitions(&self) -> usize {
        self.parents.iter().map(|parent| parent.partitions()).sum()
    }

    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut(T) -> Flow) -> Flow {
        let mut index = partition;
        for parent in &self.parents {
            if index < parent.partitions() {
                return parent.compute(index, task, each);
            }
            index -= parent.partitions();
        }
        Flow::Continue(())
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.parents.iter().flat_map(|parent| parent.shuffles()).collect()
    }
}

impl<T: Send + 'static> Rdd<T> {
    /// The partitions of this RDD, then those of the other.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let parents = vec![Arc::clone(self.compute()), Arc::clone(other.compute())];
        Self::new(Arc::new(Union { parents }), self.scope().clone())
    }
}

impl<T: Send + 'static> DStream<T> {
    /// The elements of both streams, batch by batch. Spark: `union`.
    ///
    /// ```
    /// # fn example(orders: directstream::transform::DStream<String>, refunds: directstream::transform::DStream<String>) {
    /// let all = orders.union(&refunds);
    /// # }
    /// ```
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (other, stateful) = (other.used(), other.is_stateful());
        let union = self.derive_with("union", &[other.slide_ms()], move |scope, rdd| Ok(rdd.union(&other.rdd(scope)?)));
        union.depends_on_state(stateful);
        union
    }
}
