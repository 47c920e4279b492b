//! `queue_stream`: a queue that the program fills, batch by batch.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{DStream, Element, Graph, Rdd, union::Union};
use crate::types::Compute;

/// RDDs that wait for their batch: what the program pushes, `StreamingContext::queue_stream` gives out. Spark: the `Queue` of
/// `queueStream`.
///
/// Clones are the same queue, which may be filled before the start and while the stream runs, by any thread. What is in it is
/// in memory alone: it is gone with the process, unless it is committed.
///
/// ```
/// use directstream::transform::{Rdd, RddQueue};
///
/// let queue = RddQueue::new();
/// queue.push(["to be", "or not"]);
/// queue.push_rdd(Rdd::parallelize(["to be"], 2));
/// assert_eq!(queue.len(), 2);
/// ```
pub struct RddQueue<T> {
    inner: Arc<Mutex<Inner<T>>>,
}

struct Inner<T> {
    waiting: VecDeque<Arc<dyn Compute<T>>>,
    /// How many of them, from the front on, each batch took that is not committed yet.
    taken: BTreeMap<u64, usize>,
}

impl<T> Clone for RddQueue<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> Default for RddQueue<T> {
    fn default() -> Self {
        let inner = Inner { waiting: VecDeque::new(), taken: BTreeMap::new() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }
}

impl<T> fmt::Debug for RddQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RddQueue").field("waiting", &self.len()).finish_non_exhaustive()
    }
}

impl<T> RddQueue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many RDDs are in it, those among them that a batch has taken and not committed yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether all that was pushed is committed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Element> RddQueue<T> {
    /// Puts `items` at the end, as one RDD of one partition. No items are an RDD as well: a batch comes of it.
    pub fn push(&self, items: impl IntoIterator<Item = T>) {
        self.push_rdd(Rdd::parallelize(items, 1));
    }

    /// Puts an RDD at the end.
    #[expect(clippy::needless_pass_by_value, reason = "it is the queue's from now on")]
    pub fn push_rdd(&self, rdd: Rdd<T>) {
        self.lock().waiting.push_back(Arc::clone(rdd.compute()));
    }
}

/// A queue as the driver sees it: which batch takes what.
pub trait Queued: Send + Sync {
    /// Takes what batch `batch_seq` is to have. One that is run again has the same as before, and what was taken ahead of it
    /// is put back.
    fn take(&self, batch_seq: u64);

    /// Whether batch `batch_seq` would have something.
    fn is_due(&self, batch_seq: u64) -> bool;

    /// Batch `batch_seq` is committed: what it had is gone.
    fn committed(&self, batch_seq: u64);
}

struct QueueInput<T> {
    queue: RddQueue<T>,
    one_at_a_time: bool,
}

impl<T> Inner<T> {
    /// What is before the items of batch `batch_seq`: those of the batches before, which may not be committed yet.
    fn before(&self, batch_seq: u64) -> usize {
        self.taken.range(..batch_seq).map(|(_, count)| count).sum()
    }
}

impl<T: Send> Queued for QueueInput<T> {
    fn take(&self, batch_seq: u64) {
        let mut inner = self.queue.lock();
        inner.taken.retain(|taken, _| *taken <= batch_seq);
        if !inner.taken.contains_key(&batch_seq) {
            let left = inner.waiting.len().saturating_sub(inner.before(batch_seq));
            let count = if self.one_at_a_time { left.min(1) } else { left };
            inner.taken.insert(batch_seq, count);
        }
    }

    fn is_due(&self, batch_seq: u64) -> bool {
        let inner = self.queue.lock();
        inner.waiting.len() > inner.before(batch_seq)
    }

    fn committed(&self, batch_seq: u64) {
        let mut inner = self.queue.lock();
        let done = inner.before(batch_seq.saturating_add(1)).min(inner.waiting.len());
        inner.waiting.drain(..done);
        inner.taken.retain(|taken, _| *taken > batch_seq);
    }
}

/// The stream of a queue.
pub(crate) fn queue_stream<T: Element>(graph: &Graph, queue: &RddQueue<T>, one_at_a_time: bool) -> DStream<T> {
    graph.add_queue(Arc::new(QueueInput { queue: queue.clone(), one_at_a_time }));
    let queue = queue.clone();
    DStream::new(graph, "queue_stream", move |scope| {
        let inner = queue.lock();
        let batch_seq = scope.batch().batch_seq;
        let count = inner.taken.get(&batch_seq).copied().unwrap_or(0);
        let parents = inner.waiting.iter().skip(inner.before(batch_seq)).take(count).cloned().collect();
        Ok(Rdd::new(Arc::new(Union { parents }), scope.clone()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        transform::{BatchScope, LocalRunner},
        types::{BatchInfo, BatchTime, Task},
    };

    /// A queue of the single items, its stream, and what the driver sees.
    fn queue(items: &[i32], one_at_a_time: bool) -> (RddQueue<i32>, DStream<i32>, Arc<dyn Queued>) {
        let queue = RddQueue::new();
        items.iter().for_each(|&item| queue.push([item]));
        let graph = Graph::default();
        let stream = queue_stream(&graph, &queue, one_at_a_time);
        let queued = graph.queues().pop().unwrap();
        (queue, stream, queued)
    }

    /// Batch `batch_seq`, not committed yet.
    fn run(stream: &DStream<i32>, queued: &dyn Queued, batch_seq: u64) -> Vec<i32> {
        queued.take(batch_seq);
        let batch = BatchInfo { batch_seq, batch_time: BatchTime::from_ms(0), ranges: Arc::new([]) };
        let scope = BatchScope::new(Task::new(batch), Arc::new(LocalRunner::per_core()), Vec::new());
        stream.rdd(&scope).unwrap().collect().unwrap()
    }

    #[test]
    fn one_at_a_time_or_all_that_are_there() {
        let (_, stream, queued) = queue(&[1, 2, 3], true);
        // The next batch is read while the one before commits.
        assert_eq!([1, 2, 3, 4].map(|seq| run(&stream, &*queued, seq)), [vec![1], vec![2], vec![3], vec![]]);
        let (queue, stream, queued) = queue(&[1, 2, 3], false);
        assert_eq!(run(&stream, &*queued, 1), [1, 2, 3]);
        queue.push([4, 5]);
        assert_eq!(run(&stream, &*queued, 2), [4, 5]);
    }

    #[test]
    fn a_batch_that_is_run_again_has_the_same_items_and_what_was_taken_ahead_of_it_is_put_back() {
        let (queue, stream, queued) = queue(&[1, 2, 3], true);
        assert_eq!([1, 2].map(|seq| run(&stream, &*queued, seq)), [[1], [2]]);
        assert_eq!([1, 2].map(|seq| run(&stream, &*queued, seq)), [[1], [2]]);
        queued.committed(1);
        assert_eq!((queue.len(), run(&stream, &*queued, 2)), (2, vec![2]));
        // Everything that is there, but not what came since.
        let (queue, stream, queued) = self::queue(&[1, 2], false);
        assert_eq!(run(&stream, &*queued, 7), [1, 2]);
        queue.push([3]);
        assert_eq!(run(&stream, &*queued, 7), [1, 2]);
        queued.committed(7);
        assert_eq!((queue.len(), run(&stream, &*queued, 8)), (1, vec![3]));
    }

    #[test]
    fn a_batch_is_due_while_something_waits_that_no_batch_before_has() {
        let (queue, stream, queued) = queue(&[1], true);
        assert!(queued.is_due(1));
        run(&stream, &*queued, 1);
        assert!(queued.is_due(1) && !queued.is_due(2));
        // An RDD without elements is one all the same.
        queue.push([]);
        assert!(queued.is_due(2));
        queued.committed(1);
        run(&stream, &*queued, 2);
        queued.committed(2);
        assert!(!queued.is_due(3) && queue.is_empty());
    }
}
