//! How the values of a key become one, and the tables in which they do: combined within each partition first, then over
//! partitions.

use std::{
    hash::{BuildHasher, Hash},
    marker::PhantomData,
    ops::ControlFlow,
    slice,
    sync::Arc,
};

use foldhash::fast::FixedState;
use hashbrown::{Equivalent, HashTable, hash_table::Entry};
use prefetch_index::prefetch_index;
use smallvec::SmallVec;

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

    /// The place of `key`'s value, empty if the key is seen first.
    fn entry(&mut self, hash: u64, key: impl LookedUp<K>) -> &mut Option<C> {
        let hasher = &self.hasher;
        match self.table.entry(hash, |(known, _)| key.equivalent(known), |(known, _)| hasher.hash_one(known)) {
            Entry::Occupied(entry) => &mut entry.into_mut().1,
            Entry::Vacant(entry) => &mut entry.insert((key.into_key(), None)).into_mut().1,
        }
    }

    /// Asks memory for the place of the key that has the hash, without waiting for it.
    fn prefetch(&self, hash: u64) {
        if let Some(place) = self.table.iter_hash(hash).next() {
            prefetch_index(slice::from_ref(place), 0);
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
            let place = merged.entry(merged.hasher.hash_one(&key), Own(key));
            *place = Some(match place.take() {
                Some(before) => aggregator.merge_combiners(before, later),
                None => later,
            });
        }
        merged.table.into_iter().filter_map(|(key, value)| Some((key, value?)))
    }
}

/// A key to look up, and to keep where it is seen first.
trait LookedUp<K>: Equivalent<K> + Hash {
    fn into_key(self) -> K;

    /// Its partition.
    fn place(&self, partitioner: &Partitioner<K>, hash: u64) -> usize;
}

#[derive(Hash)]
struct Own<K>(K);

impl<K: Eq> Equivalent<K> for Own<K> {
    fn equivalent(&self, key: &K) -> bool {
        self.0 == *key
    }
}

impl<K: Hash + Eq> LookedUp<K> for Own<K> {
    fn into_key(self) -> K {
        self.0
    }

    fn place(&self, partitioner: &Partitioner<K>, hash: u64) -> usize {
        partitioner.place(&self.0, hash)
    }
}

/// A key that is copied only where it is kept.
#[derive(Hash)]
struct Borrowed<'q, Q: ?Sized>(&'q Q);

impl<K, Q: Equivalent<K> + ?Sized> Equivalent<K> for Borrowed<'_, Q> {
    fn equivalent(&self, key: &K) -> bool {
        self.0.equivalent(key)
    }
}

impl<'q, K: From<&'q Q>, Q: Hash + Equivalent<K> + ?Sized> LookedUp<K> for Borrowed<'q, Q> {
    fn into_key(self) -> K {
        self.0.into()
    }

    fn place(&self, partitioner: &Partitioner<K>, hash: u64) -> usize {
        partitioner.place_of_hash(hash)
    }
}

/// What one map task combines: a table per reduce partition.
type Tables<K, C> = Vec<Combined<K, C>>;

/// The tables of one map task while they are filled.
struct Filling<'a, K, A: Aggregator> {
    hasher: FixedState,
    tables: Tables<K, A::Combined>,
    partitioner: &'a Partitioner<K>,
    aggregator: &'a A,
}

/// So many pairs are looked up together: about as many as a core can ask its memory for at a time.
const TOGETHER: usize = 16;

/// Pairs that wait to be combined, each with the hash of its key and its table, in the order in which they came.
///
/// A table that is larger than the core's own cache answers late. The place of each pair is asked for when it comes, so that
/// the core waits for several answers at a time and not for one after the other.
struct Waiting<Q, V>(SmallVec<[(u64, usize, Q, V); TOGETHER]>);

impl<Q, V> Waiting<Q, V> {
    fn add<K, A>(&mut self, filling: &mut Filling<'_, K, A>, key: Q, value: V)
    where
        Q: LookedUp<K>,
        K: Hash + Eq,
        A: Aggregator<Value = V>,
    {
        if self.0.len() == TOGETHER {
            self.merge(filling);
        }
        let hash = filling.hasher.hash_one(&key);
        let table = key.place(filling.partitioner, hash);
        filling.tables[table].prefetch(hash);
        self.0.push((hash, table, key, value));
    }

    fn merge<K, A>(&mut self, filling: &mut Filling<'_, K, A>)
    where
        Q: LookedUp<K>,
        K: Hash + Eq,
        A: Aggregator<Value = V>,
    {
        for (hash, table, key, value) in self.0.drain(..) {
            let place = filling.tables[table].entry(hash, key);
            *place = Some(match place.take() {
                Some(before) => filling.aggregator.merge_value(before, value),
                None => filling.aggregator.create(value),
            });
        }
    }
}

/// What takes the pairs of one map task.
pub(crate) struct MapSide<'a, K, A: Aggregator> {
    filling: Filling<'a, K, A>,
    waiting: Waiting<Own<K>, A::Value>,
}

impl<'a, K: Hash + Eq, A: Aggregator> MapSide<'a, K, A> {
    /// Without any pair yet.
    pub(super) fn new(partitioner: &'a Partitioner<K>, aggregator: &'a A) -> Self {
        let tables = (0..partitioner.partitions()).map(|_| Combined::new()).collect();
        let filling = Filling { hasher: hasher(), tables, partitioner, aggregator };
        Self { filling, waiting: Waiting(SmallVec::new()) }
    }

    /// What was combined, by partition.
    pub(super) fn into_tables(mut self) -> Vec<Combined<K, A::Combined>> {
        self.waiting.merge(&mut self.filling);
        self.filling.tables
    }

    /// Takes a pair.
    pub(crate) fn add(&mut self, key: K, value: A::Value) {
        self.waiting.add(&mut self.filling, Own(key), value);
    }

    /// Takes the pairs that `emit` gives, whose keys are borrowed for `'q`: a key is copied when it is seen first. Only for a
    /// hash partitioner, which needs no key to choose, and not beside [`add`](Self::add), whose pairs may wait longer.
    pub(crate) fn add_borrowed<'q, Q>(&mut self, emit: impl FnOnce(&mut dyn FnMut(&'q Q, A::Value)))
    where
        Q: Hash + Equivalent<K> + ?Sized + 'q,
        K: From<&'q Q>,
    {
        let mut waiting = Waiting(SmallVec::new());
        emit(&mut |key, value| waiting.add(&mut self.filling, Borrowed(key), value));
        waiting.merge(&mut self.filling);
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
                let place = merged.entry(merged.hasher.hash_one(key), Own(key));
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
