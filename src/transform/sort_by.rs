//! `sort_by` and `sort_by_key`: all elements in order, over all partitions.

use std::sync::{Arc, OnceLock};

use super::{DStream, Element, Rdd, partitioner::usual_partitions, shuffle::Shuffle};
use crate::types::{Compute, Flow, ShuffleStage, Task};

/// How many keys are looked at per partition to find where partitions begin: their sizes differ by some percent then, and
/// sorting the sample costs nothing beside sorting the elements.
const SAMPLE_PER_PARTITION: usize = 64;

/// The elements of one map partition with their keys, in order.
type Run<K, T> = Vec<(K, T)>;

struct Sorted<K, T> {
    shuffle: Arc<Shuffle<Run<K, T>>>,
    partitions: usize,
    /// Where each partition but the first begins: the run and the place in it that hold its first key.
    bounds: OnceLock<Vec<(usize, usize)>>,
}

impl<K: Ord + Send + Sync + 'static, T: Element> Sorted<K, T> {
    /// Keys, evenly spaced, that divide all runs into partitions. Fewer if there are not as many keys: equal ones stay
    /// together.
    fn find_bounds(&self, runs: &[&Run<K, T>]) -> Vec<(usize, usize)> {
        let key = |&(run, place): &(usize, usize)| &runs[run][place].0;
        let total: usize = runs.iter().map(|run| run.len()).sum();
        let stride = (total / self.partitions.saturating_mul(SAMPLE_PER_PARTITION)).max(1);
        let places = runs.iter().enumerate();
        let mut sample: Vec<(usize, usize)> =
            places.flat_map(|(number, run)| (0..run.len()).step_by(stride).map(move |place| (number, place))).collect();
        sample.sort_by(|a, b| key(a).cmp(key(b)));
        let first = |partition| sample.get(partition * sample.len() / self.partitions).copied();
        let mut bounds: Vec<(usize, usize)> = (1..self.partitions).filter_map(first).collect();
        bounds.dedup_by(|a, b| key(a) == key(b));
        bounds
    }

    /// The part of a run that belongs to a partition.
    fn part<'r>(&self, run: &'r Run<K, T>, partition: usize, bounds: &[&K]) -> &'r [(K, T)] {
        let start = |partition: usize| match (partition, bounds.get(partition.wrapping_sub(1))) {
            (0, _) => 0,
            (_, Some(bound)) => run.partition_point(|(key, _)| key < *bound),
            (_, None) => run.len(),
        };
        // An order that contradicts itself may give an end before its start: nothing, rather than a panic.
        run.get(start(partition)..start(partition + 1)).unwrap_or_default()
    }
}

impl<K: Ord + Send + Sync + 'static, T: Element> Compute<T> for Sorted<K, T> {
    fn partitions(&self) -> usize {
        self.partitions
    }

    fn compute(&self, partition: usize, _task: &Task, each: &mut dyn FnMut(T) -> Flow) -> Flow {
        let runs: Vec<&Run<K, T>> = self.shuffle.outputs().collect();
        let bounds = self.bounds.get_or_init(|| self.find_bounds(&runs));
        let bounds: Vec<&K> = bounds.iter().map(|&(run, place)| &runs[run][place].0).collect();
        let mut all: Vec<&(K, T)> = runs.iter().flat_map(|run| self.part(run, partition, &bounds)).collect();
        // Runs that are in order already, in the order of map partitions: this merges them, and equal keys stay in it.
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.into_iter().map(|(_, item)| item.clone()).try_for_each(each)
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.shuffle.stages()
    }
}

impl<T: Element> Rdd<T> {
    /// All elements in the order of `key`: those of the first partition first. Equal ones stay in the order in which they
    /// were. The other way round: `sort_by(|item| std::cmp::Reverse(...))`.
    ///
    /// All elements are held in memory. For the first or last few, [`take_ordered`](Self::take_ordered) and
    /// [`top`](Self::top) need little of it.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let words = Rdd::parallelize(["pear", "fig", "apple"], 3);
    /// assert_eq!(words.sort_by(|word| word.len()).collect()?, ["fig", "pear", "apple"]);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    #[must_use]
    pub fn sort_by<K>(&self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self
    where
        K: Ord + Send + Sync + 'static,
    {
        let partitions = usual_partitions(self.scope(), self.partitions());
        let sorted = move |items: Vec<T>| {
            let mut run: Run<K, T> = items.into_iter().map(|item| (key(&item), item)).collect();
            run.sort_by(|(a, _), (b, _)| a.cmp(b));
            run
        };
        let shuffle = Shuffle::of_elements((self.scope(), "sort_by"), self.compute(), sorted);
        Self::new(Arc::new(Sorted { shuffle, partitions, bounds: OnceLock::new() }), self.scope().clone())
    }
}

impl<K: Element + Ord, V: Element> Rdd<(K, V)> {
    /// All pairs in the order of their keys, as [`sort_by`](Self::sort_by).
    #[must_use]
    pub fn sort_by_key(&self) -> Self {
        self.sort_by(|(key, _)| key.clone())
    }
}

impl<T: Element> DStream<T> {
    /// All elements of a batch in the order of `key`; equal ones stay in the order in which they were. They are held in
    /// memory: see [`Rdd::sort_by`]. Spark: `sortBy`.
    ///
    /// ```
    /// # fn example(counts: directstream::transform::DStream<(String, u64)>) {
    /// // The most frequent first.
    /// let by_count = counts.sort_by(|(_, count)| std::cmp::Reverse(*count));
    /// # }
    /// ```
    #[must_use]
    pub fn sort_by<K>(&self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self
    where
        K: Ord + Send + Sync + 'static,
    {
        let key = Arc::new(key);
        self.derive("sort_by", move |rdd| {
            let key = Arc::clone(&key);
            Ok(rdd.sort_by(move |item| key(item)))
        })
    }
}

impl<K: Element + Ord, V: Element> DStream<(K, V)> {
    /// All pairs of a batch in the order of their keys, as [`sort_by`](Self::sort_by). Spark: `sortByKey`.
    #[must_use]
    pub fn sort_by_key(&self) -> Self {
        self.derive("sort_by_key", |rdd| Ok(rdd.sort_by_key()))
    }
}
