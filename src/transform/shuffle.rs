//! The exchange between a map side and a reduce side: combined first, hashed with a fixed seed.

use std::{
    fmt,
    hash::{BuildHasher, Hash},
    ops::ControlFlow,
    sync::{Arc, OnceLock},
};

use foldhash::fast::FixedState;
use hashbrown::{Equivalent, HashTable, hash_table::Entry};

use crate::{
    error::Result,
    types::{Compute, Flow, ShuffleStage, Stop, Task},
};

/// The seed of every shuffle: the same key goes to the same partition in every run.
const SEED: u64 = 0x6469_7265_6374;

/// The partition, of so many, that a key belongs to.
pub(super) fn partition_of(key: &impl Hash, partitions: usize) -> usize {
    reducer_of(FixedState::with_seed(SEED).hash_one(key), partitions)
}

/// Pairs by key, each key once.
pub(crate) struct Combined<K, V> {
    hasher: FixedState,
    /// A value is taken out and put back while it is combined; it is missing only after a panic in between, and then the
    /// task and its table are thrown away.
    table: HashTable<(K, Option<V>)>,
}

impl<K: Hash + Eq, V> Combined<K, V> {
    fn new() -> Self {
        Self { hasher: FixedState::with_seed(SEED), table: HashTable::new() }
    }

    /// Combines `value` with what is there for `key`; `owned` makes the key to keep, when it is seen first.
    fn add<Q: Equivalent<K>>(
        &mut self,
        hash: u64,
        key: Q,
        owned: impl FnOnce(Q) -> K,
        value: V,
        combine: &impl Fn(V, V) -> V,
    ) {
        let hasher = &self.hasher;
        match self.table.entry(hash, |(known, _)| key.equivalent(known), |(known, _)| hasher.hash_one(known)) {
            Entry::Occupied(mut entry) => {
                let total = &mut entry.get_mut().1;
                *total = Some(match total.take() {
                    Some(before) => combine(before, value),
                    None => value,
                });
            }
            Entry::Vacant(entry) => {
                entry.insert((owned(key), Some(value)));
            }
        }
    }

    fn pairs(&self) -> impl Iterator<Item = (&K, &V)> {
        self.table.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)))
    }
}

/// What one map task combines: a table per reduce partition.
pub(crate) struct MapSide<'f, K, V, F> {
    hasher: FixedState,
    tables: Vec<Combined<K, V>>,
    combine: &'f F,
}

impl<K: Hash + Eq, V, F: Fn(V, V) -> V> MapSide<'_, K, V, F> {
    /// Takes a pair.
    pub(crate) fn add(&mut self, key: K, value: V) {
        let hash = self.hasher.hash_one(&key);
        let reducer = reducer_of(hash, self.tables.len());
        self.tables[reducer].add(hash, Own(key), |Own(key)| key, value, self.combine);
    }

    /// Takes a pair whose key is only borrowed: it is copied when it is seen first.
    pub(crate) fn add_borrowed<Q>(&mut self, key: &Q, value: V)
    where
        Q: Hash + Equivalent<K> + ?Sized,
        for<'q> K: From<&'q Q>,
    {
        let hash = self.hasher.hash_one(key);
        let reducer = reducer_of(hash, self.tables.len());
        self.tables[reducer].add(hash, Borrowed(key), |Borrowed(key)| key.into(), value, self.combine);
    }
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

/// Where the pairs of a shuffle come from.
pub(crate) trait Pairs<K, V, F>: Send + Sync {
    /// How many map tasks there are.
    fn partitions(&self) -> usize;

    /// The shuffles that must have run before.
    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>>;

    /// Gives every pair of `partition` to `side`, in order.
    fn combine(&self, partition: usize, task: &Task, side: &mut MapSide<'_, K, V, F>) -> Flow;
}

/// The pairs of an RDD.
impl<K, V, F> Pairs<K, V, F> for Arc<dyn Compute<(K, V)>>
where
    K: Hash + Eq,
    F: Fn(V, V) -> V,
{
    fn partitions(&self) -> usize {
        (**self).partitions()
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        (**self).shuffles()
    }

    fn combine(&self, partition: usize, task: &Task, side: &mut MapSide<'_, K, V, F>) -> Flow {
        self.compute(partition, task, &mut |(key, value)| {
            side.add(key, value);
            ControlFlow::Continue(())
        })
    }
}

/// Pairs by key: each map task combines its own pairs first.
pub(crate) struct ReduceByKey<K, V, F> {
    id: usize,
    parent: Box<dyn Pairs<K, V, F>>,
    combine: Arc<F>,
    reducers: usize,
    // One slot per map task; written once.
    combined: Vec<OnceLock<Vec<Combined<K, V>>>>,
}

impl<K, V, F> ReduceByKey<K, V, F> {
    pub(crate) fn new(id: usize, parent: Box<dyn Pairs<K, V, F>>, combine: Arc<F>, reducers: usize) -> Self {
        let combined = (0..parent.partitions()).map(|_| OnceLock::new()).collect();
        Self { id, parent, combine, reducers: reducers.max(1), combined }
    }
}

impl<K, V, F> fmt::Debug for ReduceByKey<K, V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReduceByKey").field("id", &self.id).field("reducers", &self.reducers).finish()
    }
}

impl<K, V, F> ShuffleStage for ReduceByKey<K, V, F>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    F: Fn(V, V) -> V + Send + Sync,
{
    fn id(&self) -> usize {
        self.id
    }

    fn parents(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.parent.shuffles()
    }

    fn map_partitions(&self) -> usize {
        self.parent.partitions()
    }

    fn run_map(&self, partition: usize, task: &Task) -> Result<()> {
        if self.combined[partition].get().is_some() {
            return Ok(());
        }
        let mut side = MapSide {
            hasher: FixedState::with_seed(SEED),
            tables: (0..self.reducers).map(|_| Combined::new()).collect(),
            combine: &*self.combine,
        };
        if let Flow::Break(Stop::Failed(error)) = self.parent.combine(partition, task, &mut side) {
            return Err(error);
        }
        // A second run of the same task gives the same: the first one stays.
        let _ = self.combined[partition].set(side.tables);
        Ok(())
    }
}

/// The high bits pick the partition: the table itself uses the low ones.
fn reducer_of(hash: u64, reducers: usize) -> usize {
    usize::try_from((hash >> 32) % reducers as u64).unwrap_or(0)
}

/// The reduce side.
pub(crate) struct Reduced<K, V, F> {
    pub(crate) stage: Arc<ReduceByKey<K, V, F>>,
}

impl<K, V, F> Compute<(K, V)> for Reduced<K, V, F>
where
    K: Clone + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    F: Fn(V, V) -> V + Send + Sync + 'static,
{
    fn partitions(&self) -> usize {
        self.stage.reducers
    }

    fn compute(&self, partition: usize, _task: &Task, each: &mut dyn FnMut((K, V)) -> Flow) -> Flow {
        // Merged in the order of map partitions, so that a combine that is not commutative gives the same every time.
        let mut merged: Combined<&K, V> = Combined::new();
        for tables in self.stage.combined.iter().filter_map(OnceLock::get) {
            for (key, value) in tables[partition].pairs() {
                let hash = merged.hasher.hash_one(key);
                merged.add(hash, Own(key), |Own(key)| key, value.clone(), &*self.stage.combine);
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
        vec![Arc::clone(&self.stage) as Arc<dyn ShuffleStage>]
    }
}
