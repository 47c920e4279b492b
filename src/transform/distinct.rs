//! `distinct`: each element once.

use super::{DStream, Key, Rdd};

impl<T: Key> Rdd<T> {
    /// Each element once, by one shuffle.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// assert_eq!(Rdd::parallelize(["a", "b", "a"], 2).distinct().count()?, 2);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    #[must_use]
    pub fn distinct(&self) -> Self {
        self.map(|item| (item, ())).reduce_by_key(|(), ()| ()).keys()
    }
}

impl<T: Key> DStream<T> {
    /// Each element of a batch once. Spark: `distinct`.
    ///
    /// ```
    /// # fn example(users: directstream::transform::DStream<String>) {
    /// let users_of_each_batch = users.distinct().count();
    /// # }
    /// ```
    #[must_use]
    pub fn distinct(&self) -> Self {
        self.derive("distinct", |rdd| Ok(rdd.distinct()))
    }
}
