//! `keys`, `values` and `swap`: one half of each pair, or both the other way round.

use super::{DStream, Rdd};

impl<K: Send + 'static, V: Send + 'static> Rdd<(K, V)> {
    /// The key of each pair.
    #[must_use]
    pub fn keys(&self) -> Rdd<K> {
        self.map(|(key, _)| key)
    }

    /// The value of each pair.
    #[must_use]
    pub fn values(&self) -> Rdd<V> {
        self.map(|(_, value)| value)
    }

    /// Each pair with its value as the key.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let counts = Rdd::parallelize([("a", 3), ("b", 7)], 1);
    /// assert_eq!(counts.swap().top(1)?, [(7, "b")]);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    #[must_use]
    pub fn swap(&self) -> Rdd<(V, K)> {
        self.map(|(key, value)| (value, key))
    }
}

impl<K: Send + 'static, V: Send + 'static> DStream<(K, V)> {
    /// The key of each pair. Spark: `keys` of an RDD of pairs.
    #[must_use]
    pub fn keys(&self) -> DStream<K> {
        self.derive("keys", |rdd| Ok(rdd.keys()))
    }

    /// The value of each pair. Spark: `values` of an RDD of pairs.
    #[must_use]
    pub fn values(&self) -> DStream<V> {
        self.derive("values", |rdd| Ok(rdd.values()))
    }

    /// Each pair with its value as the key. Spark: `map(_.swap)`.
    #[must_use]
    pub fn swap(&self) -> DStream<(V, K)> {
        self.derive("swap", |rdd| Ok(rdd.swap()))
    }
}
