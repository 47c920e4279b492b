//! `map_partitions`: all elements of a partition at once.

use std::{ops::ControlFlow, sync::Arc};

use super::{DStream, Rdd, rdd::push};
use crate::types::{Compute, Flow, ShuffleStage, Task};

struct MapPartitions<T, F> {
    parent: Arc<dyn Compute<T>>,
    function: Arc<F>,
}

impl<T: 'static, I: IntoIterator, F: Fn(Vec<T>) -> I + Send + Sync> Compute<I::Item> for MapPartitions<T, F> {
    fn partitions(&self) -> usize {
        self.parent.partitions()
    }

    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut(I::Item) -> Flow) -> Flow {
        let mut items = Vec::new();
        self.parent.compute(partition, task, &mut |item| push(&mut items, item))?;
        for output in (self.function)(items) {
            each(output)?;
        }
        ControlFlow::Continue(())
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.parent.shuffles()
    }
}

impl<T: Send + 'static> Rdd<T> {
    /// Each partition's elements, all at once, through `function`.
    pub fn map_partitions<I>(&self, function: impl Fn(Vec<T>) -> I + Send + Sync + 'static) -> Rdd<I::Item>
    where
        I: IntoIterator<Item: Send + 'static> + 'static,
    {
        self.map_partitions_shared(Arc::new(function))
    }

    fn map_partitions_shared<I>(&self, function: Arc<impl Fn(Vec<T>) -> I + Send + Sync + 'static>) -> Rdd<I::Item>
    where
        I: IntoIterator<Item: Send + 'static> + 'static,
    {
        Rdd::new(Arc::new(MapPartitions { parent: Arc::clone(self.compute()), function }), self.scope().clone())
    }
}

impl<T: Send + 'static> DStream<T> {
    /// Each partition's elements, all at once, through `function`: for set-up that is worth doing once per partition.
    /// Spark: `mapPartitions`.
    ///
    /// ```
    /// # fn example(numbers: directstream::transform::DStream<i64>) {
    /// let sums = numbers.map_partitions(|items| [items.into_iter().sum::<i64>()]);
    /// # }
    /// ```
    pub fn map_partitions<I>(&self, function: impl Fn(Vec<T>) -> I + Send + Sync + 'static) -> DStream<I::Item>
    where
        I: IntoIterator<Item: Send + 'static> + 'static,
    {
        let function = Arc::new(function);
        self.derive("map_partitions", move |rdd| Ok(rdd.map_partitions_shared(Arc::clone(&function))))
    }
}
