//! `cogroup`: the values of two streams, key by key.

use std::{marker::PhantomData, sync::Arc};

use super::{DStream, Element, Key, Partitioner, Rdd, aggregator::Aggregator};

/// A key's values on both sides.
pub type Groups<V, W> = (Vec<V>, Vec<W>);

/// A value and where it comes from.
#[derive(Clone)]
enum Side<V, W> {
    Left(V),
    Right(W),
}

struct Cogroup<V, W>(PhantomData<fn(V) -> W>);

impl<V: Element, W: Element> Aggregator for Cogroup<V, W> {
    type Value = Side<V, W>;
    type Combined = Groups<V, W>;

    fn create(&self, value: Side<V, W>) -> Groups<V, W> {
        match value {
            Side::Left(value) => (vec![value], Vec::new()),
            Side::Right(value) => (Vec::new(), vec![value]),
        }
    }

    fn merge_value(&self, mut groups: Groups<V, W>, value: Side<V, W>) -> Groups<V, W> {
        match value {
            Side::Left(value) => groups.0.push(value),
            Side::Right(value) => groups.1.push(value),
        }
        groups
    }

    fn merge_combiners(&self, mut groups: Groups<V, W>, later: Groups<V, W>) -> Groups<V, W> {
        groups.0.extend(later.0);
        groups.1.extend(later.1);
        groups
    }
}

impl<K: Key, V: Element> Rdd<(K, V)> {
    /// One pair per key of either RDD, with its values here and its values there, each in the order of partitions. A side
    /// without the key has none.
    ///
    /// All values of both are held in memory. The partitions are those of a [`partition_by`](Self::partition_by) before
    /// this RDD, else before the other.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let orders = Rdd::parallelize([("ann", 1), ("bob", 2), ("ann", 3)], 2);
    /// let refunds = Rdd::parallelize([("ann", "9 EUR")], 1);
    /// let both = orders.cogroup(&refunds).collect_as_map()?;
    /// assert_eq!(both["ann"], (vec![1, 3], vec!["9 EUR"]));
    /// assert_eq!(both["bob"], (vec![2], vec![]));
    /// # Ok::<(), directstream::Error>(())
    /// ```
    #[must_use]
    pub fn cogroup<W: Element>(&self, other: &Rdd<(K, W)>) -> Rdd<(K, Groups<V, W>)> {
        self.cogrouped("cogroup", other)
    }

    /// One shuffle of both sides' pairs, each value with its side.
    pub(super) fn cogrouped<W: Element>(&self, operation: &'static str, other: &Rdd<(K, W)>) -> Rdd<(K, Groups<V, W>)> {
        let (left, right) = (self.to_shuffle(), other.to_shuffle());
        // As many partitions as the larger side would get, not as both together have.
        let before = left.pairs.partitions().max(right.pairs.partitions());
        let partitioner = left.partitioner.or(right.partitioner);
        let both = left.pairs.map_values(Side::Left).union(&right.pairs.map_values(Side::Right));
        let partitioner = partitioner.unwrap_or_else(|| Partitioner::usual(both.scope(), before));
        both.partition_by(partitioner).combined(operation, Arc::new(Cogroup(PhantomData)))
    }
}

impl<K: Key, V: Element> DStream<(K, V)> {
    /// One pair per key of either stream and batch, with its values here and its values there. They are held in memory: see
    /// [`Rdd::cogroup`]. Spark: `cogroup`.
    ///
    /// ```
    /// # use directstream::transform::DStream;
    /// # fn example(orders: DStream<(String, i64)>, refunds: DStream<(String, i64)>) {
    /// let left = orders.cogroup(&refunds).map_values(|(orders, refunds)| orders.len() - refunds.len());
    /// # }
    /// ```
    #[must_use]
    pub fn cogroup<W: Element>(&self, other: &DStream<(K, W)>) -> DStream<(K, Groups<V, W>)> {
        self.derive_with(other, "cogroup", |rdd, other| Ok(rdd.cogroup(&other)))
    }
}
