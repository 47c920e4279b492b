//! `count_by_value`: how often each element is there.

use super::{DStream, Key, Rdd};

impl<T: Key> Rdd<T> {
    /// Each element once, with how often it is there. (Spark's `countByValue` of an RDD gives a map: that is
    /// [`collect_as_map`](Self::collect_as_map) of this.)
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let counts = Rdd::parallelize(["a", "b", "a"], 2).count_by_value().collect_as_map()?;
    /// assert_eq!((counts["a"], counts["b"]), (2, 1));
    /// # Ok::<(), directstream::Error>(())
    /// ```
    #[must_use]
    pub fn count_by_value(&self) -> Rdd<(T, u64)> {
        self.map(|item| (item, 1)).reduce_by_key(|a, b| a + b)
    }
}

impl<T: Key> DStream<T> {
    /// Each element of a batch once, with how often it is there. Spark: `countByValue`.
    ///
    /// ```
    /// # fn example(words: directstream::transform::DStream<String>) {
    /// words.count_by_value().map(|(word, count)| format!("{word}: {count}")).print();
    /// # }
    /// ```
    #[must_use]
    pub fn count_by_value(&self) -> DStream<(T, u64)> {
        self.derive("count_by_value", |rdd| Ok(rdd.count_by_value()))
    }
}
