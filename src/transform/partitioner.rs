//! Which partition a key belongs to after a shuffle.

use std::{
    fmt,
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use foldhash::fast::FixedState;

use super::BatchScope;

/// The seed of every shuffle: the same key goes to the same partition in every run.
const SEED: u64 = 0x6469_7265_6374;

/// The hash that shuffles and their tables use.
pub(super) fn hasher() -> FixedState {
    FixedState::with_seed(SEED)
}

/// How many partitions a shuffle makes, and which of them a key goes to. Give it to [`Rdd::partition_by`](super::Rdd::partition_by).
///
/// A number alone is a [hash partitioner](Self::hash). Spark: `Partitioner`, `HashPartitioner`.
pub struct Partitioner<K> {
    partitions: usize,
    choose: Option<Arc<Choose<K>>>,
}

type Choose<K> = dyn Fn(&K) -> usize + Send + Sync;

impl<K> Partitioner<K> {
    /// Keys go to `partitions` partitions, at least one, by their hash. Its seed is fixed: the same key goes to the same
    /// partition in every batch and every run.
    #[must_use]
    pub fn hash(partitions: usize) -> Self {
        Self { partitions: partitions.max(1), choose: None }
    }

    /// A key goes to partition `choose(key)`, modulo `partitions`, at least one. It must be the same for equal keys.
    ///
    /// ```
    /// use directstream::transform::{Partitioner, Rdd};
    ///
    /// // Even numbers on one side, odd ones on the other.
    /// let numbers = Rdd::parallelize((0..6).map(|n| (n, ())), 3);
    /// let sides = numbers.partition_by(Partitioner::by(2, |n: &usize| *n)).keys().glom().collect()?;
    /// assert_eq!(sides, [[0, 2, 4], [1, 3, 5]]);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    pub fn by(partitions: usize, choose: impl Fn(&K) -> usize + Send + Sync + 'static) -> Self {
        Self { partitions: partitions.max(1), choose: Some(Arc::new(choose)) }
    }

    /// What a shuffle takes if it is not told: as many partitions as tasks run at a time, and no more than the `before`
    /// that its input has.
    pub(super) fn usual(scope: &BatchScope, before: usize) -> Self {
        Self::hash(usual_partitions(scope, before))
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// The partition of a key whose hash is known.
    pub(super) fn place(&self, key: &K, hash: u64) -> usize {
        match &self.choose {
            None => self.place_of_hash(hash),
            Some(choose) => choose(key) % self.partitions,
        }
    }

    /// The partition of a hash: 32 bits of it taken for a fraction, for a division would take as long as all the rest. They
    /// lie between those that hash tables use, which are the lowest ones and the highest seven.
    pub(super) fn place_of_hash(&self, hash: u64) -> usize {
        let fraction = (hash >> 25) & u64::from(u32::MAX);
        usize::try_from((fraction * self.partitions as u64) >> 32).unwrap_or(0)
    }
}

impl<K: Hash> Partitioner<K> {
    /// The partition of `key`, below [`partitions`](Self::partitions).
    #[must_use]
    pub fn partition(&self, key: &K) -> usize {
        self.place(key, hasher().hash_one(key))
    }
}

/// How many partitions a shuffle makes if it is not told.
pub(super) fn usual_partitions(scope: &BatchScope, before: usize) -> usize {
    scope.runner().parallelism().min(before).max(1)
}

impl<K> Clone for Partitioner<K> {
    fn clone(&self) -> Self {
        Self { partitions: self.partitions, choose: self.choose.clone() }
    }
}

impl<K> From<usize> for Partitioner<K> {
    fn from(partitions: usize) -> Self {
        Self::hash(partitions)
    }
}

impl<K> fmt::Debug for Partitioner<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.choose.is_some() { "by" } else { "hash" };
        f.debug_struct("Partitioner").field("partitions", &self.partitions).field("kind", &kind).finish()
    }
}
