//! `combine_by_key`: the shuffle of which the other keyed operations are cases.

use std::{marker::PhantomData, ops::ControlFlow, sync::Arc};

use super::{
    DStream, Element, Key, Partitioner, Rdd,
    aggregator::{Aggregator, combined},
};

/// The user's three functions.
struct Combine<V, C, F, G, H> {
    create: F,
    merge_value: G,
    merge_combiners: H,
    types: PhantomData<fn(V) -> C>,
}

impl<V, C, F, G, H> Combine<V, C, F, G, H> {
    fn new(create: F, merge_value: G, merge_combiners: H) -> Arc<Self> {
        Arc::new(Self { create, merge_value, merge_combiners, types: PhantomData })
    }
}

impl<V, C, F, G, H> Aggregator for Combine<V, C, F, G, H>
where
    V: Send + 'static,
    C: Element,
    F: Fn(V) -> C + Send + Sync + 'static,
    G: Fn(C, V) -> C + Send + Sync + 'static,
    H: Fn(C, C) -> C + Send + Sync + 'static,
{
    type Value = V;
    type Combined = C;

    fn create(&self, value: V) -> C {
        (self.create)(value)
    }

    fn merge_value(&self, combined: C, value: V) -> C {
        (self.merge_value)(combined, value)
    }

    fn merge_combiners(&self, combined: C, later: C) -> C {
        (self.merge_combiners)(combined, later)
    }
}

impl<K: Key, V: Send + 'static> Rdd<(K, V)> {
    /// One pair per key, its values combined as `aggregator` says, by one shuffle.
    pub(super) fn combined<A: Aggregator<Value = V>>(
        &self,
        operation: &'static str,
        aggregator: Arc<A>,
    ) -> Rdd<(K, A::Combined)> {
        let taken = self.to_shuffle();
        let (scope, pairs) = (self.scope(), taken.pairs.compute());
        let partitioner = taken.partitioner.unwrap_or_else(|| Partitioner::usual(scope, pairs.partitions()));
        combined((scope, operation), pairs, partitioner, aggregator, |pairs, (partition, task), side| {
            pairs.compute(partition, task, &mut |(key, value)| {
                side.add(key, value);
                ControlFlow::Continue(())
            })
        })
    }

    /// One pair per key. Within each partition `create` makes something of a key's first value, and `merge_value` adds the
    /// later ones, in order; `merge_combiners` then puts together what the partitions made, in their order.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// // The mean: a sum and a number of each key.
    /// let pairs = Rdd::parallelize([("a", 1.0), ("a", 2.0), ("b", 5.0)], 2);
    /// let sums = pairs.combine_by_key(
    ///     |value| (value, 1.0),
    ///     |(sum, count), value| (sum + value, count + 1.0),
    ///     |(sum, count), (later, more)| (sum + later, count + more),
    /// );
    /// let means = sums.map_values(|(sum, count)| sum / count).collect_as_map()?;
    /// assert_eq!((means["a"], means["b"]), (1.5, 5.0));
    /// # Ok::<(), directstream::Error>(())
    /// ```
    pub fn combine_by_key<C: Element>(
        &self,
        create: impl Fn(V) -> C + Send + Sync + 'static,
        merge_value: impl Fn(C, V) -> C + Send + Sync + 'static,
        merge_combiners: impl Fn(C, C) -> C + Send + Sync + 'static,
    ) -> Rdd<(K, C)> {
        self.combined("combine_by_key", Combine::new(create, merge_value, merge_combiners))
    }
}

impl<K: Key, V: Send + 'static> DStream<(K, V)> {
    /// One pair per key and batch, its values combined as `aggregator` says.
    pub(super) fn combined<A: Aggregator<Value = V>>(
        &self,
        operation: &'static str,
        aggregator: Arc<A>,
    ) -> DStream<(K, A::Combined)> {
        self.derive(operation, move |rdd| Ok(rdd.combined(operation, Arc::clone(&aggregator))))
    }

    /// One pair per key and batch. Within each partition `create` makes something of a key's first value, and `merge_value`
    /// adds the later ones, in order; `merge_combiners` then puts together what the partitions made, in their order.
    /// Spark: `combineByKey`.
    ///
    /// ```
    /// # use directstream::transform::DStream;
    /// # fn example(pairs: DStream<(String, f64)>) {
    /// // The largest value of each key, and how many there are.
    /// let largest = pairs.combine_by_key(
    ///     |value| (value, 1),
    ///     |(max, count), value| (f64::max(max, value), count + 1),
    ///     |(max, count), (later, more)| (f64::max(max, later), count + more),
    /// );
    /// # }
    /// ```
    pub fn combine_by_key<C: Element>(
        &self,
        create: impl Fn(V) -> C + Send + Sync + 'static,
        merge_value: impl Fn(C, V) -> C + Send + Sync + 'static,
        merge_combiners: impl Fn(C, C) -> C + Send + Sync + 'static,
    ) -> DStream<(K, C)> {
        self.combined("combine_by_key", Combine::new(create, merge_value, merge_combiners))
    }
}
