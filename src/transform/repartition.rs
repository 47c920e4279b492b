//! `repartition`: the same elements, spread evenly over another number of partitions.

use std::sync::Arc;

use super::{DStream, Element, Rdd, exchange::Exchanged};

impl<T: Element> Rdd<T> {
    /// The same elements in `partitions` partitions, at least one, each of about the same size, by a shuffle that keeps them
    /// in memory. To have fewer partitions without a shuffle there is [`coalesce`](Self::coalesce); to choose a partition by
    /// key, [`partition_by`](Self::partition_by).
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let parts = Rdd::parallelize(0..6, 1).repartition(3).glom().collect()?;
    /// assert_eq!(parts, [[0, 3], [1, 4], [2, 5]]);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    #[must_use]
    pub fn repartition(&self, partitions: usize) -> Self {
        let partitions = partitions.max(1);
        // One after the other, each map partition beginning with another one: many small ones do not all fill the first.
        let deal = move |(from, number): (usize, usize), _: &T| from.wrapping_add(number) % partitions;
        let exchanged = Exchanged::new((self.scope(), "repartition"), self.compute(), partitions, deal);
        Self::new(Arc::new(exchanged), self.scope().clone())
    }
}

impl<T: Element> DStream<T> {
    /// The same elements in `partitions` partitions of about the same size: more of them, and more tasks run at a time. A
    /// shuffle, which keeps the batch in memory. Spark: `repartition`.
    ///
    /// ```
    /// # fn example(lines: directstream::transform::DStream<String>) {
    /// let spread = lines.repartition(8);
    /// # }
    /// ```
    #[must_use]
    pub fn repartition(&self, partitions: usize) -> Self {
        self.derive("repartition", move |rdd| Ok(rdd.repartition(partitions)))
    }
}
