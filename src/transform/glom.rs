//! `glom`: each partition as one element.

use super::{DStream, Rdd};

impl<T: Send + 'static> Rdd<T> {
    /// One element per partition: all its elements, which must fit into memory.
    #[must_use]
    pub fn glom(&self) -> Rdd<Vec<T>> {
        self.map_partitions(|items| [items])
    }
}

impl<T: Send + 'static> DStream<T> {
    /// One element per partition: all its elements, which must fit into memory. Spark: `glom`.
    ///
    /// ```
    /// # fn example(lines: directstream::transform::DStream<String>) {
    /// let lines_of_each_partition = lines.glom().map(|lines| lines.len());
    /// # }
    /// ```
    #[must_use]
    pub fn glom(&self) -> DStream<Vec<T>> {
        self.derive("glom", |rdd| Ok(rdd.glom()))
    }
}
