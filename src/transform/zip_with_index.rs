//! `zip_with_index`: each element with its number.

use std::sync::Arc;

use super::{DStream, Element, Rdd, shuffle::Shuffle};
use crate::types::{Compute, Flow, ShuffleStage, Task};

/// The elements of all partitions, kept: a number is known when all partitions before it are.
struct Numbered<T> {
    shuffle: Arc<Shuffle<Vec<T>>>,
    partitions: usize,
}

impl<T: Element> Compute<(T, u64)> for Numbered<T> {
    fn partitions(&self) -> usize {
        self.partitions
    }

    fn compute(&self, partition: usize, _task: &Task, each: &mut dyn FnMut((T, u64)) -> Flow) -> Flow {
        let first: usize = self.shuffle.outputs().take(partition).map(Vec::len).sum();
        let items = self.shuffle.outputs().nth(partition).into_iter().flatten();
        (first as u64..).zip(items).try_for_each(|(number, item)| each((item.clone(), number)))
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        self.shuffle.stages()
    }
}

impl<T: Element> Rdd<T> {
    /// Each element with its number, from 0, in the order of partitions. All elements are held in memory.
    ///
    /// ```
    /// use directstream::transform::Rdd;
    ///
    /// let numbered = Rdd::parallelize(["a", "b", "c"], 2).zip_with_index();
    /// assert_eq!(numbered.collect()?, [("a", 0), ("b", 1), ("c", 2)]);
    /// # Ok::<(), directstream::Error>(())
    /// ```
    #[must_use]
    pub fn zip_with_index(&self) -> Rdd<(T, u64)> {
        let shuffle = Shuffle::of_elements((self.scope(), "zip_with_index"), self.compute(), |items| items);
        Rdd::new(Arc::new(Numbered { shuffle, partitions: self.partitions() }), self.scope().clone())
    }
}

impl<T: Element> DStream<T> {
    /// Each element with its number within the batch, from 0, in the order of partitions. The batch is held in memory.
    /// Spark: `zipWithIndex`.
    #[must_use]
    pub fn zip_with_index(&self) -> DStream<(T, u64)> {
        self.derive("zip_with_index", |rdd| Ok(rdd.zip_with_index()))
    }
}
