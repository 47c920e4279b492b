//! `count`: how many elements a batch has.

use super::DStream;

impl<T: Send + 'static> DStream<T> {
    /// One element per batch: how many elements the batch has; 0 for an empty batch. Spark: `count`.
    ///
    /// ```
    /// # fn example(lines: directstream::transform::DStream<String>) {
    /// lines.count().print();
    /// # }
    /// ```
    #[must_use]
    pub fn count(&self) -> DStream<u64> {
        self.derive_action("count", |rdd| Ok([rdd.count()?]))
    }
}
