//! `map` and `try_map`: each element becomes one other.

use std::sync::Arc;

use super::{DStream, Rdd};
use crate::{
    error::Result,
    types::{Compute, Flow, ShuffleStage, Task},
};

struct Map<T, F> {
    parent: Arc<dyn Compute<T>>,
    function: F,
}

impl<T: 'static, U, F: Fn(T) -> U + Send + Sync> Compute<U> for Map<T, Arc<F>> {
    fn partitions(&self) -> usize {
        self.parent.partitions()
    }

    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut(U) -> Flow) -> Flow {
        self.parent.compute(partition, task, &mut |item| each((self.function)(item)))
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.parent.shuffles()
    }
}

struct TryMap<T, F> {
    parent: Arc<dyn Compute<T>>,
    function: F,
}

impl<T: 'static, U, F: Fn(T) -> Result<U> + Send + Sync> Compute<U> for TryMap<T, Arc<F>> {
    fn partitions(&self) -> usize {
        self.parent.partitions()
    }

    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut(U) -> Flow) -> Flow {
        self.parent.compute(partition, task, &mut |item| match (self.function)(item) {
            Ok(item) => each(item),
            Err(error) => Flow::Break(crate::types::Stop::Failed(error)),
        })
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.parent.shuffles()
    }
}

impl<T: Send + 'static> Rdd<T> {
    /// Each element through `function`.
    pub fn map<U: Send + 'static>(&self, function: impl Fn(T) -> U + Send + Sync + 'static) -> Rdd<U> {
        self.map_shared(Arc::new(function))
    }

    /// Each element through a `function` that can fail; the first failure is the action's.
    pub fn try_map<U: Send + 'static>(&self, function: impl Fn(T) -> Result<U> + Send + Sync + 'static) -> Rdd<U> {
        self.try_map_shared(Arc::new(function))
    }

    fn map_shared<U: Send + 'static>(&self, function: Arc<impl Fn(T) -> U + Send + Sync + 'static>) -> Rdd<U> {
        Rdd::new(Arc::new(Map { parent: Arc::clone(self.compute()), function }), self.scope().clone())
    }

    fn try_map_shared<U: Send + 'static>(
        &self,
        function: Arc<impl Fn(T) -> Result<U> + Send + Sync + 'static>,
    ) -> Rdd<U> {
        Rdd::new(Arc::new(TryMap { parent: Arc::clone(self.compute()), function }), self.scope().clone())
    }
}

impl<T: Send + 'static> DStream<T> {
    /// Each element through `function`. Spark: `map`.
    ///
    /// ```
    /// # fn example(lines: directstream::transform::DStream<String>) {
    /// let lengths = lines.map(|line| line.len());
    /// # }
    /// ```
    pub fn map<U: Send + 'static>(&self, function: impl Fn(T) -> U + Send + Sync + 'static) -> DStream<U> {
        let function = Arc::new(function);
        self.derive("map", move |rdd| Ok(rdd.map_shared(Arc::clone(&function))))
    }

    /// Each element through a `function` that can fail. A failure fails the batch: nothing of it is committed, and the
    /// stream ends with exit code 6.
    pub fn try_map<U: Send + 'static>(&self, function: impl Fn(T) -> Result<U> + Send + Sync + 'static) -> DStream<U> {
        let function = Arc::new(function);
        self.derive("try_map", move |rdd| Ok(rdd.try_map_shared(Arc::clone(&function))))
    }
}
