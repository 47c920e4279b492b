//! `emit_by_key`: `flat_map` and `reduce_by_key` in one step, whose keys are borrowed.

use std::{hash::Hash, marker::PhantomData, ops::ControlFlow, sync::Arc};

use hashbrown::Equivalent;

use super::{
    BatchScope, DStream, Rdd,
    reduce_by_key::shuffled,
    shuffle::{MapSide, Pairs},
};
use crate::types::{Compute, Flow, ShuffleStage, Task};

/// Takes one pair, its key borrowed from the element.
pub type Emit<'e, Q, V> = dyn FnMut(&Q, V) + 'e;

struct Emitting<T, Q: ?Sized, E> {
    parent: Arc<dyn Compute<T>>,
    function: Arc<E>,
    key: PhantomData<fn(&Q)>,
}

impl<T, Q, K, V, E, F> Pairs<K, V, F> for Emitting<T, Q, E>
where
    Q: Hash + Equivalent<K> + ?Sized,
    for<'q> K: Hash + Eq + From<&'q Q>,
    E: Fn(&T, &mut Emit<'_, Q, V>) + Send + Sync,
    F: Fn(V, V) -> V,
{
    fn partitions(&self) -> usize {
        self.parent.partitions()
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.parent.shuffles()
    }

    fn combine(&self, partition: usize, task: &Task, side: &mut MapSide<'_, K, V, F>) -> Flow {
        self.parent.compute(partition, task, &mut |item| {
            (self.function)(&item, &mut |key, value| side.add_borrowed(key, value));
            ControlFlow::Continue(())
        })
    }
}

fn emitting<T, Q, K, V, E, F>(scope: &BatchScope, parent: &Rdd<T>, function: &Arc<E>, combine: &Arc<F>) -> Rdd<(K, V)>
where
    T: Send + 'static,
    Q: Hash + Equivalent<K> + ?Sized + 'static,
    for<'q> K: Clone + Hash + Eq + From<&'q Q> + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Fn(&T, &mut Emit<'_, Q, V>) + Send + Sync + 'static,
    F: Fn(V, V) -> V + Send + Sync + 'static,
{
    let pairs = Emitting { parent: Arc::clone(parent.compute()), function: Arc::clone(function), key: PhantomData };
    shuffled(scope, Box::new(pairs), Arc::clone(combine))
}

impl<T: Send + 'static> Rdd<T> {
    /// One pair per key that `function` emits, as [`DStream::emit_by_key`].
    pub fn emit_by_key<Q, K, V>(
        &self,
        function: impl Fn(&T, &mut Emit<'_, Q, V>) + Send + Sync + 'static,
        combine: impl Fn(V, V) -> V + Send + Sync + 'static,
    ) -> Rdd<(K, V)>
    where
        Q: Hash + Equivalent<K> + ?Sized + 'static,
        for<'q> K: Clone + Hash + Eq + From<&'q Q> + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        emitting(self.scope(), self, &Arc::new(function), &Arc::new(combine))
    }
}

impl<T: Send + 'static> DStream<T> {
    /// `flat_map` to pairs and [`reduce_by_key`](DStream::reduce_by_key) in one step: `function` emits pairs whose keys borrow
    /// from the element, and a key is copied only when a partition sees it for the first time. It gives what the two steps
    /// give, and allocates nothing per element. Spark has no such form.
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
        function: impl Fn(&T, &mut Emit<'_, Q, V>) + Send + Sync + 'static,
        combine: impl Fn(V, V) -> V + Send + Sync + 'static,
    ) -> DStream<(K, V)>
    where
        Q: Hash + Equivalent<K> + ?Sized + 'static,
        for<'q> K: Clone + Hash + Eq + From<&'q Q> + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        let (function, combine) = (Arc::new(function), Arc::new(combine));
        self.derive("emit_by_key", move |rdd| Ok(emitting(rdd.scope(), &rdd, &function, &combine)))
    }
}
