//! `reduce`: one element per batch.

use super::{DStream, Rdd};

impl<T: Clone + Send + Sync + 'static> DStream<T> {
    /// One element per batch: all elements combined, within each partition in order, then partition by partition. None for
    /// an empty batch. Spark: `reduce`.
    ///
    /// ```
    /// # fn example(amounts: directstream::transform::DStream<i64>) {
    /// let total = amounts.reduce(|a, b| a + b);
    /// # }
    /// ```
    #[must_use]
    pub fn reduce(&self, combine: impl Fn(T, T) -> T + Send + Sync + 'static) -> Self {
        self.derive("reduce", move |rdd| {
            let total = rdd.reduce(&combine)?;
            Ok(Rdd::of_partitions(rdd.scope(), vec![total.into_iter().collect()]))
        })
    }
}
