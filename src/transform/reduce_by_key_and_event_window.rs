//! `reduce_by_key_and_event_window`: windows over event time, kept as state until the watermark reaches their end.
//!
//! The state of a window's key is that of the key `(start, key)`, whose time of update is the window's end: what is idle at the
//! watermark is what has to be told. What a batch adds is found by one pass over its elements (`window_assigner`).

use std::sync::Arc;

use super::{
    BatchScope, Element, EventTimeDStream, EventWindow, EventWindowDStream, EventWindows, KeepsState, Partitioner,
    aggregator::{Aggregator, Combined, Reduce},
    event_window::Grid,
    event_window_stream::{Telling, Told},
    keyed_state::{
        CANCELLED_EVERY, Changes, Kept, KeyedState, PARTITIONS, StateKey, StateValue, View, cancelled, short_type_name,
    },
    watermark::Watermark,
    window_assigner::{Assigned, WindowAssigner, Windowed},
};
use crate::{
    error::Result,
    types::{StateSegment, Task},
};

type Rows<K, V> = Vec<(EventWindow, K, V)>;

struct ByEventWindow<T, K, V, P, F> {
    assigner: WindowAssigner<T, P>,
    reduce: Arc<Reduce<V, F>>,
    partitioner: Partitioner<Windowed<K>>,
    state: KeyedState<Windowed<K>, V>,
    watermark: Watermark,
    telling: Arc<Telling<T, K, V>>,
}

impl<T, K, V, P, F> ByEventWindow<T, K, V, P, F>
where
    T: Element,
    K: StateKey,
    V: StateValue,
    P: Fn(T) -> (K, V) + Send + Sync + 'static,
    F: Fn(V, V) -> V + Send + Sync + 'static,
{
    /// Windows that are over leave with what they have; what came is added to the others.
    fn partition(
        &self,
        task: &Task,
        before: &View<'_, Windowed<K>, V>,
        changes: &mut Changes<Windowed<K>, V>,
        parts: Vec<Combined<Windowed<K>, V>>,
        over: Vec<Windowed<K>>,
    ) -> Result<(Rows<K, V>, Rows<K, V>)> {
        let (mut closed, mut updates) = (Vec::with_capacity(over.len()), Vec::new());
        for (index, key) in over.into_iter().enumerate() {
            check(task, index)?;
            let Some(old) = before.get(&key) else { continue };
            changes.set(&key, Some(old), None)?;
            closed.push((self.assigner.grid.window(key.0), key.1, old.state.clone()));
        }
        let wants_updates = self.telling.wants_updates();
        for (index, (key, value)) in Combined::merged(parts, &*self.reduce).enumerate() {
            check(task, index)?;
            let (old, window) = (before.get(&key), self.assigner.grid.window(key.0));
            let state = match old {
                Some(old) => self.reduce.merge_combiners(old.state.clone(), value),
                None => value,
            };
            if wants_updates {
                updates.push((window, key.1.clone(), state.clone()));
            }
            changes.set(&key, old, Some(Kept { state, updated_ms: window.end_ms }))?;
        }
        Ok((closed, updates))
    }
}

fn check(task: &Task, index: usize) -> Result<()> {
    if index.is_multiple_of(CANCELLED_EVERY) && task.is_cancelled() { Err(cancelled()) } else { Ok(()) }
}

/// The watermark is stored after the partitions of the windows, as one more.
fn watermark_partition() -> u32 {
    u32::try_from(PARTITIONS).unwrap_or(u32::MAX)
}

impl<T, K, V, P, F> KeepsState for ByEventWindow<T, K, V, P, F>
where
    T: Element,
    K: StateKey,
    V: StateValue,
    P: Fn(T) -> (K, V) + Send + Sync + 'static,
    F: Fn(V, V) -> V + Send + Sync + 'static,
{
    fn advance(&self, scope: &BatchScope) -> Result<Vec<StateSegment>> {
        let batch_seq = scope.batch().batch_seq;
        let watermark_ms = self.watermark.after(batch_seq.saturating_sub(1));
        let assign = || {
            let wanted = (watermark_ms, self.telling.wants_late());
            self.assigner.assign(scope, wanted, (&self.partitioner, &*self.reduce))
        };
        let events = &self.assigner.events;
        let assigned = events.stream.is_due(scope).then(assign).transpose()?;
        let (parts, highest_ms, late, late_records) = match assigned {
            Some(Assigned { parts, highest_ms, late, late_records }) => (Some(parts), highest_ms, late, late_records),
            None => (None, None, Vec::new(), 0),
        };
        let work = |view: &View<'_, Windowed<K>, V>, changes: &mut Changes<Windowed<K>, V>, parts, over| {
            self.partition(scope.task(), view, changes, parts, over)
        };
        let over_before_ms = watermark_ms.map(|watermark_ms| watermark_ms.saturating_add(1));
        let (rows, mut segments) = self.state.advance_parts(scope, parts, over_before_ms, work)?;
        let until_ms = highest_ms.map(|highest_ms| highest_ms.saturating_sub(events.lateness_ms));
        segments.push(self.watermark.advance(batch_seq, until_ms)?);
        let (closed, updates) = rows.into_iter().unzip();
        let told = Told {
            batch_seq,
            closed: Arc::new(closed),
            updates: Arc::new(updates),
            late: Arc::new(late),
            late_records,
        };
        self.telling.tell(told);
        Ok(segments)
    }

    fn fingerprint(&self) -> &str {
        self.state.fingerprint()
    }

    fn partitions(&self) -> u32 {
        watermark_partition().saturating_add(1)
    }

    fn clear(&self) {
        self.state.clear();
        self.watermark.clear();
    }

    fn restore(&self, partition: u32, segments: &[StateSegment], last: u64) -> Result<()> {
        if partition == watermark_partition() {
            return self.watermark.restore(segments, last);
        }
        self.state.restore(partition, segments, last)
    }

    /// A window is over, and no batch has told it: the last one has moved the watermark.
    fn is_due(&self, last: u64, _batch_time_ms: i64) -> bool {
        let watermark_ms = self.watermark.after(last);
        watermark_ms.is_some_and(|watermark_ms| self.state.has_idle_before(last, watermark_ms.saturating_add(1)))
    }

    fn keys(&self, last: u64) -> u64 {
        self.state.keys(last)
    }

    fn late_records(&self, batch_seq: u64) -> u64 {
        self.telling.of(batch_seq, |told| told.late_records).unwrap_or(0)
    }
}

impl<T: Element> EventTimeDStream<T> {
    /// One value per window and key: `pair` makes a key and a value of an element, and `combine` combines the values of a key in
    /// a window. The stream gives each window once, in the first batch whose watermark has reached its end
    /// ([`with_watermark`](super::DStream::with_watermark)); [`updates`](EventWindowDStream::updates) gives them as they grow.
    ///
    /// Open windows and the watermark are committed in the batch's own transaction, and are there again after a restart, as
    /// exactly as the offsets are. After a batch that moves the watermark past the end of a window there is another one, also
    /// without any record. All open windows are in memory: one value per key and window. Shorter windows, a smaller allowed
    /// lateness and fewer keys need less. Where time comes from records alone, nothing else bounds them: keys whose windows no
    /// later record ends stay.
    ///
    /// Window and slide are part of what is stored: another one is refused at start (exit code 2). The allowed lateness may
    /// change; the watermark does not go back for it. What is said of types in
    /// [`update_state_by_key`](super::DStream::update_state_by_key) holds here.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use directstream::transform::{Append, DStream, EventWindows};
    /// # fn example(clicks: DStream<(i64, String)>) -> directstream::Result<()> {
    /// let hour = EventWindows::tumbling(Duration::from_secs(3600));
    /// let pages = clicks
    ///     .with_watermark(|(time_ms, _page)| Some(*time_ms), Duration::from_secs(120))?
    ///     .reduce_by_key_and_event_window(hour, |(_time_ms, page)| (page, 1_i64), |a, b| a + b)?;
    /// pages
    ///     .map(|(hour, page, clicks)| (hour.start_ms, page, clicks))
    ///     .save_to_table(Append::into("pages").column("hour_ms").column("page").column("clicks"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if a duration is not whole milliseconds, or the slide is 0 or does not divide the window.
    pub fn reduce_by_key_and_event_window<K: StateKey, V: StateValue>(
        &self,
        windows: EventWindows,
        pair: impl Fn(T) -> (K, V) + Send + Sync + 'static,
        combine: impl Fn(V, V) -> V + Send + Sync + 'static,
    ) -> Result<EventWindowDStream<T, K, V>> {
        let grid = Grid::of(windows)?;
        let (key, value) = (short_type_name::<K>(), short_type_name::<V>());
        let Grid { length_ms, slide_ms, .. } = grid;
        let fingerprint =
            format!("reduce_by_key_and_event_window<{key}, {value}> of {length_ms} ms every {slide_ms} ms");
        let (graph, telling) = (self.stream.graph(), Telling::new());
        graph.add_state(|operator| ByEventWindow {
            assigner: WindowAssigner { events: Self { stream: self.stream.used(), ..self.clone() }, grid, pair },
            reduce: Reduce::new(combine),
            partitioner: Partitioner::hash(PARTITIONS),
            // Idle are windows whose end is before a time: each batch says which.
            state: KeyedState::new(operator, fingerprint, Some(0)),
            watermark: Watermark::new(operator, watermark_partition()),
            telling: Arc::clone(&telling),
        });
        Ok(EventWindowDStream::new(graph, self.stream.slide_ms(), telling))
    }
}
