//! `partition_by`: the partitions of a shuffle, as the user wants them.

use std::{any::Any, hash::BuildHasher, sync::Arc};

use super::{DStream, Element, Key, Partitioner, Rdd, exchange::Exchanged, partitioner::hasher};
use crate::types::{Compute, Flow, ShuffleStage, Task};

/// Pairs in the partitions of their keys. A keyed operation looks for it, and does this exchange within its own.
struct PartitionBy<K, V> {
    before: Arc<dyn Compute<(K, V)>>,
    partitioner: Partitioner<K>,
    exchanged: Exchanged<(K, V)>,
}

impl<K: Key, V: Element> Compute<(K, V)> for PartitionBy<K, V> {
    fn partitions(&self) -> usize {
        self.exchanged.partitions()
    }

    fn compute(&self, partition: usize, task: &Task, each: &mut dyn FnMut((K, V)) -> Flow) -> Flow {
        self.exchanged.compute(partition, task, each)
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.exchanged.shuffles()
    }

    fn exchange(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

/// Pairs as the shuffle of a keyed operation takes them.
pub(super) struct ToShuffle<K, V> {
    pub(super) pairs: Rdd<(K, V)>,
    /// What a `partition_by` right before says.
    pub(super) partitioner: Option<Partitioner<K>>,
}

impl<K: Key, V: Send + 'static> Rdd<(K, V)> {
    /// These pairs, or those before a `partition_by` that has not run and need not: the shuffle that takes them does the
    /// same exchange.
    pub(super) fn to_shuffle(&self) -> ToShuffle<K, V> {
        match self.compute().exchange().and_then(<dyn Any>::downcast_ref::<PartitionBy<K, V>>) {
            Some(exchange) => ToShuffle {
                pairs: Self::new(Arc::clone(&exchange.before), self.scope().clone()),
                partitioner: Some(exchange.partitioner.clone()),
            },
            None => ToShuffle { pairs: self.clone(), partitioner: None },
        }
    }
}

impl<K: Key, V: Element> Rdd<(K, V)> {
    /// The same pairs in other partitions: pairs of one key in one, chosen by `partitioner`, which may be just a number of
    /// partitions.
    ///
    /// Right before a keyed operation it costs nothing: that operation's own shuffle makes these partitions. So this is how
    /// the number of partitions of any of them is set. (Operations on elements that are not pairs, as
    /// [`distinct`](Self::distinct), can be told as pairs: `items.map(|item| (item, ())).partition_by(8).reduce_by_key(...)`.)
    /// Before anything else it is a shuffle, which keeps its elements in memory.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let pairs = Rdd::parallelize([("a", 1), ("b", 2), ("a", 3)], 2);
    /// let totals = pairs.partition_by(3).reduce_by_key(|x, y| x + y);
    /// assert_eq!((totals.partitions(), totals.count()?), (3, 2));
    /// # Ok::<(), directstream::Error>(())
    /// ```
    pub fn partition_by(&self, partitioner: impl Into<Partitioner<K>>) -> Self {
        let partitioner = partitioner.into();
        let choose = {
            let partitioner = partitioner.clone();
            move |_, (key, _): &(K, V)| partitioner.place(key, hasher().hash_one(key))
        };
        let at = (self.scope(), "partition_by");
        let exchanged = Exchanged::new(at, self.compute(), partitioner.partitions(), choose);
        let before = Arc::clone(self.compute());
        Self::new(Arc::new(PartitionBy { before, partitioner, exchanged }), self.scope().clone())
    }
}

impl<K: Key, V: Element> DStream<(K, V)> {
    /// The same pairs in other partitions: pairs of one key in one, chosen by `partitioner`, which may be just a number of
    /// partitions. Right before a keyed operation it sets the partitions of that operation's shuffle and costs nothing:
    /// see [`Rdd::partition_by`]. Spark: `partitionBy`, and the partitioner that its keyed operations take.
    ///
    /// ```
    /// # fn example(pairs: directstream::transform::DStream<(String, i64)>) {
    /// let totals = pairs.partition_by(8).reduce_by_key(|a, b| a + b);
    /// # }
    /// ```
    #[must_use]
    pub fn partition_by(&self, partitioner: impl Into<Partitioner<K>>) -> Self {
        let partitioner = partitioner.into();
        self.derive("partition_by", move |rdd| Ok(rdd.partition_by(partitioner.clone())))
    }
}
