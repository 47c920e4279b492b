//! `group_by_key`: all values of a key, one after the other.

use std::{marker::PhantomData, sync::Arc};

use super::{DStream, Element, Key, Rdd, aggregator::Aggregator};

struct Group<V>(PhantomData<fn(V) -> V>);

impl<V: Element> Aggregator for Group<V> {
    type Value = V;
    type Combined = Vec<V>;

    fn create(&self, value: V) -> Vec<V> {
        vec![value]
    }

    fn merge_value(&self, mut values: Vec<V>, value: V) -> Vec<V> {
        values.push(value);
        values
    }

    fn merge_combiners(&self, mut values: Vec<V>, later: Vec<V>) -> Vec<V> {
        values.extend(later);
        values
    }
}

impl<K: Key, V: Element> Rdd<(K, V)> {
    /// One pair per key with all its values: those of a partition in order, then partition by partition.
    ///
    /// All values are held in memory. If only a sum, a maximum or the like is made of them,
    /// [`reduce_by_key`](Self::reduce_by_key) or [`combine_by_key`](Self::combine_by_key) need far less of it.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let pairs = Rdd::parallelize([("a", 1), ("b", 2), ("a", 3)], 2);
    /// let groups = pairs.group_by_key().collect_as_map()?;
    /// assert_eq!((&groups["a"], &groups["b"]), (&vec![1, 3], &vec![2]));
    /// # Ok::<(), directstream::Error>(())
    /// ```
    #[must_use]
    pub fn group_by_key(&self) -> Rdd<(K, Vec<V>)> {
        self.combined("group_by_key", Arc::new(Group(PhantomData)))
    }
}

impl<K: Key, V: Element> DStream<(K, V)> {
    /// One pair per key and batch with all its values: those of a partition in order, then partition by partition. They are
    /// held in memory: see [`Rdd::group_by_key`]. Spark: `groupByKey`.
    ///
    /// ```
    /// # fn example(clicks: directstream::transform::DStream<(String, String)>) {
    /// let pages_of_each_user = clicks.group_by_key();
    /// # }
    /// ```
    #[must_use]
    pub fn group_by_key(&self) -> DStream<(K, Vec<V>)> {
        self.combined("group_by_key", Arc::new(Group(PhantomData)))
    }
}
