//! `filter`: keeps some elements.

use std::{ops::ControlFlow, sync::Arc};

use super::{DStream, Rdd};
use crate::types::{Compute, Flow, ShuffleStage, Task};

struct Filter<T, F> {
    parent: Arc<dyn Compute<T>>,
    keep: Arc<F>,
}

impl<T: 'static, F: Fn(&T) -> bool + Send + Sync> Compute<T> for Filter<T, F> {
    fn partitions(&self) -> usize {
        self.parent.partitions()
    }

    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut(T) -> Flow) -> Flow {
        let mut kept = |item| if (self.keep)(&item) { each(item) } else { ControlFlow::Continue(()) };
        self.parent.compute(partition, task, &mut kept)
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.parent.shuffles()
    }
}

impl<T: Send + 'static> Rdd<T> {
    /// The elements that `keep` is true for.
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.filter_shared(Arc::new(keep))
    }

    fn filter_shared(&self, keep: Arc<impl Fn(&T) -> bool + Send + Sync + 'static>) -> Self {
        Self::new(Arc::new(Filter { parent: Arc::clone(self.compute()), keep }), self.scope().clone())
    }
}

impl<T: Send + 'static> DStream<T> {
    /// The elements that `keep` is true for. Spark: `filter`.
    ///
    /// ```
    /// # fn example(numbers: directstream::transform::DStream<i64>) {
    /// let even = numbers.filter(|number| number % 2 == 0);
    /// # }
    /// ```
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        let keep = Arc::new(keep);
        self.derive("filter", move |rdd| Ok(rdd.filter_shared(Arc::clone(&keep))))
    }
}
