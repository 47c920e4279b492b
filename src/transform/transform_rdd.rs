//! `transform`: any function from a batch's RDD to another.

use super::{DStream, Rdd};
use crate::error::Result;

impl<T: Send + 'static> DStream<T> {
    /// Each batch's RDD through `function`, which runs in the driver once per batch. Spark: `transform`.
    ///
    /// ```
    /// # fn example(lines: directstream::transform::DStream<String>) {
    /// let errors = lines.transform(|rdd| Ok(rdd.filter(|line| line.starts_with("error"))));
    /// # }
    /// ```
    pub fn transform<U: Send + 'static>(
        &self,
        function: impl Fn(Rdd<T>) -> Result<Rdd<U>> + Send + Sync + 'static,
    ) -> DStream<U> {
        self.derive("transform", function)
    }
}
