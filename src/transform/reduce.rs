//! `reduce`: one element per batch.

use super::{DStream, Element};

impl<T: Element> DStream<T> {
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
        self.derive_action("reduce", move |rdd| rdd.reduce(&combine))
    }
}
