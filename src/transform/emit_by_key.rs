//! `emit_by_key`: `flat_map` and `reduce_by_key` in one step, whose keys are borrowed.

use std::{hash::Hash, ops::ControlFlow, sync::Arc};

use hashbrown::Equivalent;

use super::{
    DStream, Element, Key, Partitioner, Rdd,
    aggregator::{Reduce, combined},
};

/// Takes one pair, its key borrowed from the element, for `'k`.
pub type Emit<'e, 'k, Q, V> = dyn FnMut(&'k Q, V) + 'e;

fn emitted<T, Q, K, V, E, F>(rdd: &Rdd<T>, function: Arc<E>, combine: Arc<Reduce<V, F>>) -> Rdd<(K, V)>
where
    T: Send + 'static,
    Q: Hash + Equivalent<K> + ?Sized + 'static,
    for<'q> K: Key + From<&'q Q>,
    V: Element,
    E: for<'k> Fn(&'k T, &mut Emit<'_, 'k, Q, V>) + Send + Sync + 'static,
    F: Fn(V, V) -> V + Send + Sync + 'static,
{
    let (scope, parent) = (rdd.scope(), rdd.compute());
    let partitioner = Partitioner::usual(scope, parent.partitions());
    combined((scope, "emit_by_key"), parent, partitioner, combine, move |parent, (partition, task), side| {
        parent.compute(partition, task, &mut |item| {
            side.add_borrowed(|emit| function(&item, emit));
            ControlFlow::Continue(())
        })
    })
}

impl<T: Send + 'static> Rdd<T> {
    /// One pair per key that `function` emits, as [`DStream::emit_by_key`].
    pub fn emit_by_key<Q, K, V>(
        &self,
        function: impl for<'k> Fn(&'k T, &mut Emit<'_, 'k, Q, V>) + Send + Sync + 'static,
        combine: impl Fn(V, V) -> V + Send + Sync + 'static,
    ) -> Rdd<(K, V)>
    where
        Q: Hash + Equivalent<K> + ?Sized + 'static,
        for<'q> K: Key + From<&'q Q>,
        V: Element,
    {
        emitted(self, Arc::new(function), Reduce::new(combine))
    }
}

impl<T: Send + 'static> DStream<T> {
    /// `flat_map` to pairs and [`reduce_by_key`](DStream::reduce_by_key) in one step: `function` emits pairs whose keys borrow
    /// from the element, and a key is copied only when a partition sees it for the first time. It gives what the two steps
    /// give, and allocates nothing per element. Keys that are made on the way, in lower case for instance, are for the two
    /// steps. Spark has no such form.
    ///
    /// ```
    /// # use directstream::{transform::DStream, types::Record};
    /// # fn example(lines: DStream<Record>) {
    /// let counts: DStream<(String, i64)> = lines.emit_by_key(
    ///     |line, emit| {
    ///         for word in line.text().unwrap_or_default().split_whitespace() {
    ///             emit(word, 1);
    ///         }
    ///     },
    ///     |a, b| a + b,
    /// );
    /// # }
    /// ```
    pub fn emit_by_key<Q, K, V>(
        &self,
        function: impl for<'k> Fn(&'k T, &mut Emit<'_, 'k, Q, V>) + Send + Sync + 'static,
        combine: impl Fn(V, V) -> V + Send + Sync + 'static,
    ) -> DStream<(K, V)>
    where
        Q: Hash + Equivalent<K> + ?Sized + 'static,
        for<'q> K: Key + From<&'q Q>,
        V: Element,
    {
        let (function, combine) = (Arc::new(function), Reduce::new(combine));
        self.derive("emit_by_key", move |rdd| Ok(emitted(&rdd, Arc::clone(&function), Arc::clone(&combine))))
    }
}
