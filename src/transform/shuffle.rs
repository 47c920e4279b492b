//! The exchange between a map side and a reduce side: combined first, hashed with a fixed seed.

use std::{
    fmt,
    hash::{BuildHasher, Hash},
    ops::ControlFlow,
    sync::{Arc, OnceLock},
};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::{
    error::Result,
    types::{Compute, Flow, ShuffleStage, Stop, Task},
};

/// The seed of every shuffle: the same key goes to the same partition in every run.
const SEED: u64 = 0x6469_7265_6374;

type Combined<K, V> = HashMap<K, V, FixedState>;

/// Pairs by key: each map task combines its own pairs first, one table per reduce partition.
pub(crate) struct ReduceByKey<K, V, F> {
    id: usize,
    parent: Arc<dyn Compute<(K, V)>>,
    combine: Arc<F>,
    reducers: usize,
    // One slot per map task; written once.
    combined: Vec<OnceLock<Vec<Combined<K, V>>>>,
}

impl<K, V, F> ReduceByKey<K, V, F> {
    pub(crate) fn new(id: usize, parent: Arc<dyn Compute<(K, V)>>, combine: Arc<F>, reducers: usize) -> Self {
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
    F: Fn(&mut V, V) + Send + Sync,
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
        let hasher = FixedState::with_seed(SEED);
        let empty = |_| HashMap::with_hasher(FixedState::with_seed(SEED));
        let mut tables: Vec<Combined<K, V>> = (0..self.reducers).map(empty).collect();
        let reducers = self.reducers;
        let flow = self.parent.compute(partition, task, &mut |(key, value)| {
            let reducer = reducer_of(hasher.hash_one(&key), reducers);
            match tables[reducer].entry(key) {
                hashbrown::hash_map::Entry::Occupied(mut entry) => (self.combine)(entry.get_mut(), value),
                hashbrown::hash_map::Entry::Vacant(entry) => {
                    entry.insert(value);
                }
            }
            ControlFlow::Continue(())
        });
        if let Flow::Break(Stop::Failed(error)) = flow {
            return Err(error);
        }
        // A second run of the same task gives the same: the first one stays.
        let _ = self.combined[partition].set(tables);
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
    F: Fn(&mut V, V) + Send + Sync + 'static,
{
    fn partitions(&self) -> usize {
        self.stage.reducers
    }

    fn compute(&self, partition: usize, _task: &Task, each: &mut dyn FnMut((K, V)) -> Flow) -> Flow {
        // Merged in the order of map partitions, so that a combine that is not commutative gives the same every time.
        let mut merged: Combined<&K, V> = HashMap::with_hasher(FixedState::with_seed(SEED));
        for tables in self.stage.combined.iter().filter_map(OnceLock::get) {
            for (key, value) in &tables[partition] {
                match merged.entry(key) {
                    hashbrown::hash_map::Entry::Occupied(mut entry) => {
                        (self.stage.combine)(entry.get_mut(), value.clone());
                    }
                    hashbrown::hash_map::Entry::Vacant(entry) => {
                        entry.insert(value.clone());
                    }
                }
            }
        }
        for (key, value) in merged {
            each((key.clone(), value))?;
        }
        ControlFlow::Continue(())
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        vec![Arc::clone(&self.stage) as Arc<dyn ShuffleStage>]
    }
}
