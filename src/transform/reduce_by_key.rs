//! `reduce_by_key`: one element per key and batch, by a shuffle.

use std::{hash::Hash, sync::Arc};

use super::{
    DStream, Rdd,
    shuffle::{ReduceByKey, Reduced},
};

impl<K, V> Rdd<(K, V)>
where
    K: Clone + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// One pair per key, its values combined: within a partition in order, then partition by partition.
    pub fn reduce_by_key(&self, combine: impl Fn(V, V) -> V + Send + Sync + 'static) -> Self {
        self.reduce_by_key_shared(Arc::new(in_place(combine)))
    }

    fn reduce_by_key_shared(&self, combine: Arc<impl Fn(&mut V, V) + Send + Sync + 'static>) -> Self {
        let scope = self.scope();
        let reducers = scope.runner().parallelism().min(self.partitions());
        let stage = ReduceByKey::new(scope.next_shuffle_id(), Arc::clone(self.compute()), combine, reducers);
        Self::new(Arc::new(Reduced { stage: Arc::new(stage) }), scope.clone())
    }
}

/// Tables hold values in place; `combine` takes them by value, as Spark's does.
fn in_place<V: Clone>(combine: impl Fn(V, V) -> V) -> impl Fn(&mut V, V) {
    move |total, value| {
        let before = total.clone();
        *total = combine(before, value);
    }
}

impl<K, V> DStream<(K, V)>
where
    K: Clone + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// One pair per key and batch, its values combined: first within each partition, then over partitions in their order.
    /// Spark: `reduceByKey`.
    ///
    /// ```
    /// # fn example(words: directstream::transform::DStream<String>) {
    /// let counts = words.map(|word| (word, 1_u64)).reduce_by_key(|a, b| a + b);
    /// # }
    /// ```
    pub fn reduce_by_key(&self, combine: impl Fn(V, V) -> V + Send + Sync + 'static) -> Self {
        let combine = Arc::new(in_place(combine));
        self.derive("reduce_by_key", move |rdd| Ok(rdd.reduce_by_key_shared(Arc::clone(&combine))))
    }
}
