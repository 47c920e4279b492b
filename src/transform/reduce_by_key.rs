//! `reduce_by_key`: one element per key and batch, by a shuffle.

use super::{DStream, Element, Key, Rdd, aggregator::Reduce};

impl<K: Key, V: Element> Rdd<(K, V)> {
    /// One pair per key, its values combined: within a partition in order, then partition by partition.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let pairs = Rdd::parallelize([("a", 1), ("b", 2), ("a", 3)], 2);
    /// let totals = pairs.reduce_by_key(|x, y| x + y).collect_as_map()?;
    /// assert_eq!((totals["a"], totals["b"]), (4, 2));
    /// # Ok::<(), directstream::Error>(())
    /// ```
    pub fn reduce_by_key(&self, combine: impl Fn(V, V) -> V + Send + Sync + 'static) -> Self {
        self.combined("reduce_by_key", Reduce::new(combine))
    }
}

impl<K: Key, V: Element> DStream<(K, V)> {
    /// One pair per key and batch, its values combined: first within each partition, then over partitions in their order.
    /// Spark: `reduceByKey`.
    ///
    /// ```
    /// # fn example(words: directstream::transform::DStream<String>) {
    /// let counts = words.map(|word| (word, 1_u64)).reduce_by_key(|a, b| a + b);
    /// # }
    /// ```
    pub fn reduce_by_key(&self, combine: impl Fn(V, V) -> V + Send + Sync + 'static) -> Self {
        self.combined("reduce_by_key", Reduce::new(combine))
    }
}
