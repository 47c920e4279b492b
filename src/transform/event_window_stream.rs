//! What windows over event time give: those that are over, those that changed, and what came too late.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{DStream, Element, EventWindow, Graph, Late, Rdd, dstream::Nature};
use crate::error::Error;

/// Elements by partition, shared with the RDDs that are made of them.
pub(super) type Shared<T> = Arc<Vec<Vec<T>>>;

/// What one batch tells.
pub(super) struct Told<T, K, V> {
    pub(super) batch_seq: u64,
    /// Windows that are over.
    pub(super) closed: Shared<(EventWindow, K, V)>,
    /// Windows that the batch changed, if anybody asks for them.
    pub(super) updates: Shared<(EventWindow, K, V)>,
    /// What came into no window, if anybody asks for it.
    pub(super) late: Shared<Late<T>>,
    pub(super) late_records: u64,
}

/// What the batch in hand tells, and what is asked for.
pub(super) struct Telling<T, K, V> {
    told: Mutex<Option<Told<T, K, V>>>,
    wants_updates: AtomicBool,
    wants_late: AtomicBool,
}

impl<T, K, V> Telling<T, K, V> {
    pub(super) fn new() -> Arc<Self> {
        let (told, wants_updates, wants_late) = (Mutex::new(None), AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { told, wants_updates, wants_late })
    }

    pub(super) fn wants_updates(&self) -> bool {
        self.wants_updates.load(Ordering::Relaxed)
    }

    pub(super) fn wants_late(&self) -> bool {
        self.wants_late.load(Ordering::Relaxed)
    }

    pub(super) fn tell(&self, told: Told<T, K, V>) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }

    /// What batch `batch_seq` told, as long as it is the last one.
    pub(super) fn of<R>(&self, batch_seq: u64, which: impl FnOnce(&Told<T, K, V>) -> R) -> Option<R> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.as_ref().filter(|told| told.batch_seq == batch_seq).map(which)
    }
}

/// What [`reduce_by_key_and_event_window`](super::EventTimeDStream::reduce_by_key_and_event_window) gives: the windows that are over,
/// each once with its key and value; beside it those that changed, and what came too late.
pub struct EventWindowDStream<T, K, V> {
    closed: DStream<(EventWindow, K, V)>,
    updates: DStream<(EventWindow, K, V)>,
    late: DStream<Late<T>>,
    telling: Arc<Telling<T, K, V>>,
}

impl<T: Element, K: Element, V: Element> EventWindowDStream<T, K, V> {
    pub(super) fn new(graph: &Graph, slide_ms: Option<i64>, telling: Arc<Telling<T, K, V>>) -> Self {
        let nature = Nature { slide_ms, stateful: true, kept: false };
        let closed = told(graph, ("reduce_by_key_and_event_window", nature), &telling, |told| Arc::clone(&told.closed));
        graph.take(closed.id());
        let updates = told(graph, ("updates", nature), &telling, |told| Arc::clone(&told.updates));
        graph.take(closed.id());
        let late = told(graph, ("late", nature), &telling, |told| Arc::clone(&told.late));
        Self { closed, updates, late, telling }
    }
}

impl<T, K, V> EventWindowDStream<T, K, V> {
    /// With every batch the windows that its elements changed, as they are after it: what they have so far. Write them with
    /// [`Upsert`](super::Upsert) by window and key, the value as `last`. Spark: the update mode of Structured Streaming, where
    /// this stream itself is its append mode.
    #[must_use]
    pub fn updates(&self) -> DStream<(EventWindow, K, V)> {
        self.telling.wants_updates.store(true, Ordering::Relaxed);
        self.updates.clone()
    }

    /// The elements of the batch that came into no window: too late, or without a time that can be used. They are in memory as
    /// long as the batch is in hand; a job that does not ask for them keeps none. They are counted either way, in the metric
    /// `directstream_late_records_total`.
    #[must_use]
    pub fn late(&self) -> DStream<Late<T>> {
        self.telling.wants_late.store(true, Ordering::Relaxed);
        self.late.clone()
    }
}

impl<T, K, V> Deref for EventWindowDStream<T, K, V> {
    type Target = DStream<(EventWindow, K, V)>;

    fn deref(&self) -> &DStream<(EventWindow, K, V)> {
        &self.closed
    }
}

impl<T, K, V> fmt::Debug for EventWindowDStream<T, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventWindowDStream").field("closed", &self.closed).finish_non_exhaustive()
    }
}

/// A stream of something that each batch tells.
fn told<T: Element, K: Element, V: Element, U: Element>(
    graph: &Graph,
    (name, nature): (&'static str, Nature),
    telling: &Arc<Telling<T, K, V>>,
    which: fn(&Told<T, K, V>) -> Shared<U>,
) -> DStream<U> {
    let telling = Arc::clone(telling);
    DStream::of_nature(graph, name, nature, move |scope| {
        let partitions = telling
            .of(scope.batch().batch_seq, which)
            .ok_or_else(|| Error::internal("a batch's windows over event time are asked for before it has them"))?;
        Ok(Rdd::of_shared(scope, std::iter::once(partitions)))
    })
}
