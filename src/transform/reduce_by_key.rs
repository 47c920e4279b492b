//! `reduce_by_key`: one element per key and batch, by a shuffle.

use std::{hash::Hash, sync::Arc};

use super::{
    BatchScope, DStream, Rdd,
    shuffle::{Pairs, ReduceByKey, Reduced},
};

impl<K, V> Rdd<(K, V)>
where
    K: Clone + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// One pair per key, its values combined: within a partition in order, then partition by partition.
    pub fn reduce_by_key(&self, combine: impl Fn(V, V) -> V + Send + Sync + 'static) -> Self {
        shuffled(self.scope(), Box::new(Arc::clone(self.compute())), Arc::new(combine))
    }
}

/// The reduce side of a shuffle of `pairs`.
pub(super) fn shuffled<K, V, F>(scope: &BatchScope, pairs: Box<dyn Pairs<K, V, F>>, combine: Arc<F>) -> Rdd<(K, V)>
where
    K: Clone + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    F: Fn(V, V) -> V + Send + Sync + 'static,
{
    let reducers = scope.runner().parallelism().min(pairs.partitions());
    let stage = ReduceByKey::new(scope.next_shuffle_id(), pairs, combine, reducers);
    Rdd::new(Arc::new(Reduced { stage: Arc::new(stage) }), scope.clone())
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
        let combine = Arc::new(combine);
        self.derive("reduce_by_key", move |rdd| {
            Ok(shuffled(rdd.scope(), Box::new(Arc::clone(rdd.compute())), Arc::clone(&combine)))
        })
    }
}
