//! What a stream's batches gave, kept for a test.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    transform::{DStream, Element},
    types::BatchTime,
};

/// The elements of a stream, batch by batch: what [`collect_into`](DStream::collect_into) fills. Spark: `TestOutputStream`.
///
/// Clones are the same collection. It may outlive a context and be filled by the next one; a batch that is run again replaces
/// what it gave before.
///
/// ```
/// use std::time::Duration;
/// use directstream::testing::{Collected, RddQueue, TestContext};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let (queue, squares) = (RddQueue::new(), Collected::new());
/// let context = TestContext::new("squares", Duration::from_secs(1))?;
/// context.queue_stream(&queue, true)?.map(|n: i32| n * n).collect_into(&squares);
/// queue.push([1, 2]);
/// queue.push([3]);
/// context.run_batches(2).await?;
/// assert_eq!(squares.values(), [vec![1, 4], vec![9]]);
/// # Ok::<(), directstream::Error>(())
/// # }).unwrap();
/// ```
pub struct Collected<T> {
    batches: Arc<Mutex<Batches<T>>>,
}

/// By their number.
type Batches<T> = BTreeMap<u64, (BatchTime, Vec<T>)>;

impl<T> Clone for Collected<T> {
    fn clone(&self) -> Self {
        Self { batches: Arc::clone(&self.batches) }
    }
}

impl<T> Default for Collected<T> {
    fn default() -> Self {
        Self { batches: Arc::default() }
    }
}

impl<T> fmt::Debug for Collected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collected").field("batches", &self.lock().len()).finish_non_exhaustive()
    }
}

impl<T> Collected<T> {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Batches<T>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Collected<T> {
    /// Each batch's time and elements, the oldest first: elements in the order of partitions.
    #[must_use]
    pub fn batches(&self) -> Vec<(BatchTime, Vec<T>)> {
        self.lock().values().cloned().collect()
    }

    /// Each batch's elements, the oldest first.
    #[must_use]
    pub fn values(&self) -> Vec<Vec<T>> {
        self.lock().values().map(|(_, items)| items.clone()).collect()
    }

    /// The elements of all batches.
    #[must_use]
    pub fn all(&self) -> Vec<T> {
        self.values().concat()
    }
}

impl<T: Clone + Ord> Collected<T> {
    /// Each batch's elements in order, where that of partitions means nothing, as after a shuffle. Spark: `useSet`.
    #[must_use]
    pub fn sorted(&self) -> Vec<Vec<T>> {
        let mut values = self.values();
        values.iter_mut().for_each(|items| items.sort());
        values
    }
}

impl<T: Element> DStream<T> {
    /// Keeps the elements of each batch in `collected`: an output for tests. A stream with a slide gives the batches that end
    /// one. As every output outside of the batch's transaction, it runs before the commit, and again with its batch.
    pub fn collect_into(&self, collected: &Collected<T>) {
        let collected = collected.clone();
        self.foreach_rdd(move |rdd| {
            let (batch, items) = (rdd.batch().clone(), rdd.collect()?);
            collected.lock().insert(batch.batch_seq, (batch.batch_time, items));
            Ok(())
        });
    }
}
