//! `flat_map`: each element becomes any number of elements.

use std::{ops::ControlFlow, sync::Arc};

use super::{DStream, Rdd};
use crate::types::{Compute, Flow, ShuffleStage, Task};

struct FlatMap<T, F> {
    parent: Arc<dyn Compute<T>>,
    function: Arc<F>,
}

impl<T: 'static, I: IntoIterator, F: Fn(T) -> I + Send + Sync> Compute<I::Item> for FlatMap<T, F> {
    fn partitions(&self) -> usize {
        self.parent.partitions()
    }

    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut(I::Item) -> Flow) -> Flow {
        self.parent.compute(partition, task, &mut |item| {
            for output in (self.function)(item) {
                each(output)?;
            }
            ControlFlow::Continue(())
        })
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.parent.shuffles()
    }
}

impl<T: Send + 'static> Rdd<T> {
    /// Each element through `function`, which gives any number of elements.
    pub fn flat_map<I>(&self, function: impl Fn(T) -> I + Send + Sync + 'static) -> Rdd<I::Item>
    where
        I: IntoIterator<Item: Send + 'static> + 'static,
    {
        self.flat_map_shared(Arc::new(function))
    }

    fn flat_map_shared<I>(&self, function: Arc<impl Fn(T) -> I + Send + Sync + 'static>) -> Rdd<I::Item>
    where
        I: IntoIterator<Item: Send + 'static> + 'static,
    {
        Rdd::new(Arc::new(FlatMap { parent: Arc::clone(self.compute()), function }), self.scope().clone())
    }
}

impl<T: Send + 'static> DStream<T> {
    /// Each element through `function`, which gives any number of elements. Spark: `flatMap`.
    ///
    /// ```
    /// # fn example(lines: directstream::transform::DStream<String>) {
    /// let words = lines.flat_map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    /// # }
    /// ```
    pub fn flat_map<I>(&self, function: impl Fn(T) -> I + Send + Sync + 'static) -> DStream<I::Item>
    where
        I: IntoIterator<Item: Send + 'static> + 'static,
    {
        let function = Arc::new(function);
        self.derive("flat_map", move |rdd| Ok(rdd.flat_map_shared(Arc::clone(&function))))
    }
}
