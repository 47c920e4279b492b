//! How the values of a key become one, and the tables in which they do: combined within each partition first, then over
//! partitions.

use std::{
    hash::{BuildHasher, Hash},
    marker::PhantomData,
    ops::ControlFlow,
    sync::Arc,
};

use foldhash::fast::FixedState;
use hashbrown::{Equivalent, HashTable, hash_table::Entry};

use super::{
    BatchScope, Element, Key, Partitioner, Rdd,
    partitioner::hasher,
    shuffle::{Shuffle, completed},
};
use crate::types::{Compute, Flow, ShuffleStage, Task};

/// How the values of a key become one. Spark: `Aggregator`.
pub(crate) trait Aggregator: Send + Sync + 'static {
    /// What is combined.
    type Value: Send + 'static;
    /// What comes out of it.
    type Combined: Element;

    /// A key's first value within a partition.
    fn create(&self, value: Self::Value) -> Self::Combined;

    /// A later value of the same partition.
    fn merge_value(&self, combined: Self::Combined, value: Self::Value) -> Self::Combined;

    /// What a later partition made of its values.
    fn merge_combiners(&self, combined: Self::Combined, later: Self::Combined) -> Self::Combined;
}

/// Values that combine with each other.
pub(crate) struct Reduce<V, F> {
    combine: F,
    value: PhantomData<fn(V) -> V>,
}

impl<V: Element, F: Fn(V, V) -> V + Send + Sync + 'static> Reduce<V, F> {
    pub(crate) fn new(combine: F) -> Arc<Self> {
        Arc::new(Self { combine, value: PhantomData })
    }
}

impl<V: Element, F: Fn(V, V) -> V + Send + Sync + 'static> Aggregator for Reduce<V, F> {
    type Value = V;
    type Combined = V;

    fn create(&self, value: V) -> V {
        value
    }

    fn merge_value(&self, combined: V, value: V) -> V {
        (self.combine)(combined, value)
    }

    fn merge_combiners(&self, combined: V, later: V) -> V {
        (self.combine)(combined, later)
    }
}

/// Pairs by key, each key once.
pub(crate) struct Combined<K, C> {
    hasher: FixedState,
    /// A value is taken out and put back while it is combined; it is missing only after a panic in between, and then the
    /// task and its table are thrown away.
    table: HashTable<(K, Option<C>)>,
}

impl<K: Hash + Eq, C> Combined<K, C> {
    fn new() -> Self {
        Self { hasher: hasher(), table: HashTable::new() }
    }

    /// The place of `key`'s value, empty if the key is seen first; then `owned` makes the key to keep.
    fn entry<Q: Equivalent<K>>(&mut self, hash: u64, key: Q, owned: impl FnOnce(Q) -> K) -> &mut Option<C> {
        let hasher = &self.hasher;
        match self.table.entry(hash, |(known, _)| key.equivalent(known), |(known, _)| hasher.hash_one(known)) {
            Entry::Occupied(entry) => &mut entry.into_mut().1,
            Entry::Vacant(entry) => &mut entry.insert((owned(key), None)).into_mut().1,
        }
    }

    fn pairs(&self) -> impl Iterator<Item = (&K, &C)> {
        self.table.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)))
    }

    /// The pairs of several tables as one, each key once: earlier tables come first.
    pub(super) fn merged<A>(tables: Vec<Self>, aggregator: &A) -> impl Iterator<Item = (K, C)> + use<K, C, A>
    where
        A: Aggregator<Combined = C>,
    {
        let mut tables = tables.into_iter();
        let mut merged = tables.next().unwrap_or_else(Self::new);
        for (key, later) in tables.flat_map(|table| table.table) {
            let Some(later) = later else { continue };
            let hash = merged.hasher.hash_one(&key);
            let place = merged.entry(hash, Own(key), |Own(key)| key);
            *place = Some(match place.take() {
                Some(before) => aggregator.merge_combiners(before, later),
                None => later,
            });
        }
        merged.table.into_iter().filter_map(|(key, value)| Some((key, value?)))
    }
}

/// What one map task combines: a table per reduce partition.
type Tables<K, C> = Vec<Combined<K, C>>;

/// What takes the pairs of one map task.
pub(crate) struct MapSide<'a, K, A: Aggregator> {
    hasher: FixedState,
    tables: Tables<K, A::Combined>,
    partitioner: &'a Partitioner<K>,
    aggregator: &'a A,
}

impl<'a, K: Hash + Eq, A: Aggregator> MapSide<'a, K, A> {
    /// Without any pair yet.
    pub(super) fn new(partitioner: &'a Partitioner<K>, aggregator: &'a A) -> Self {
        let tables = (0..partitioner.partitions()).map(|_| Combined::new()).collect();
        Self { hasher: hasher(), tables, partitioner, aggregator }
    }

    /// What was combined, by partition.
    pub(super) fn into_tables(self) -> Vec<Combined<K, A::Combined>> {
        self.tables
    }

    /// Takes a pair.
    pub(crate) fn add(&mut self, key: K, value: A::Value) {
        let hash = self.hasher.hash_one(&key);
        let table = self.partitioner.place(&key, hash);
        merge(self.aggregator, self.tables[table].entry(hash, Own(key), |Own(key)| key), value);
    }

    /// Takes a pair whose key is only borrowed: it is copied when it is seen first. Only for a hash partitioner, which needs
    /// no key to choose.
    pub(crate) fn add_borrowed<Q>(&mut self, key: &Q, value: A::Value)
    where
        Q: Hash + Equivalent<K> + ?Sized,
        for<'q> K: From<&'q Q>,
    {
        let hash = self.hasher.hash_one(key);
        let table = self.partitioner.place_of_hash(hash);
        merge(self.aggregator, self.tables[table].entry(hash, Borrowed(key), |Borrowed(key)| key.into()), value);
    }
}

fn merge<A: Aggregator>(aggregator: &A, place: &mut Option<A::Combined>, value: A::Value) {
    *place = Some(match place.take() {
        Some(before) => aggregator.merge_value(before, value),
        None => aggregator.create(value),
    });
}

/// A key to look up and to keep.
struct Own<K>(K);

impl<K: Eq> Equivalent<K> for Own<K> {
    fn equivalent(&self, key: &K) -> bool {
        self.0 == *key
    }
}

/// A key to look up.
struct Borrowed<'q, Q: ?Sized>(&'q Q);

impl<K, Q: Equivalent<K> + ?Sized> Equivalent<K> for Borrowed<'_, Q> {
    fn equivalent(&self, key: &K) -> bool {
        self.0.equivalent(key)
    }
}

/// The pairs that `feed` gives of each partition of `parent`, combined by key.
pub(super) fn combined<T: 'static, K: Key, A: Aggregator>(
    (scope, operation): (&BatchScope, &'static str),
    parent: &Arc<dyn Compute<T>>,
    partitioner: Partitioner<K>,
    aggregator: Arc<A>,
    feed: impl Fn(&dyn Compute<T>, (usize, &Task), &mut MapSide<'_, K, A>) -> Flow + Send + Sync + 'static,
) -> Rdd<(K, A::Combined)> {
    let partitions = partitioner.partitions();
    let shuffle = {
        let aggregator = Arc::clone(&aggregator);
        Shuffle::new((scope, operation), parent, move |parent, partition, task| {
            let mut side = MapSide::new(&partitioner, &*aggregator);
            completed(feed(parent, (partition, task), &mut side))?;
            Ok(side.into_tables())
        })
    };
    Rdd::new(Arc::new(Reduced { shuffle, aggregator, partitions }), scope.clone())
}

/// The reduce side.
struct Reduced<K, A: Aggregator> {
    shuffle: Arc<Shuffle<Tables<K, A::Combined>>>,
    aggregator: Arc<A>,
    partitions: usize,
}

impl<K: Key, A: Aggregator> Compute<(K, A::Combined)> for Reduced<K, A> {
    fn partitions(&self) -> usize {
        self.partitions
    }

    fn compute(&self, partition: usize, _task: &Task, each: &mut dyn FnMut((K, A::Combined)) -> Flow) -> Flow {
        // Merged in the order of map partitions, so that a combine that is not commutative gives the same every time.
        let mut merged: Combined<&K, A::Combined> = Combined::new();
        for tables in self.shuffle.outputs() {
            for (key, value) in tables[partition].pairs() {
                let hash = merged.hasher.hash_one(key);
                let place = merged.entry(hash, Own(key), |Own(key)| key);
                *place = Some(match place.take() {
                    Some(before) => self.aggregator.merge_combiners(before, value.clone()),
                    None => value.clone(),
                });
            }
        }
        for (key, value) in merged.table {
            if let Some(value) = value {
                each((key.clone(), value))?;
            }
        }
        ControlFlow::Continue(())
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.shuffle.stages()
    }
}
