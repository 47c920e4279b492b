//! What one pass over a batch's elements tells of event time: each goes into its windows, combined with what is there of its key,
//! or among the late ones.

use std::ops::ControlFlow;

use super::{
    BatchScope, Element, EventTimeDStream, Late, LateReason, Partitioner,
    aggregator::{Combined, MapSide, Reduce},
    event_window::Grid,
    keyed_state::{PARTITIONS, StateKey, StateValue},
};
use crate::error::Result;

/// A window's start, and a key.
pub(super) type Windowed<K> = (i64, K);

/// Which windows an element belongs to, with which key and value.
pub(super) struct WindowAssigner<T, P> {
    pub(super) events: EventTimeDStream<T>,
    pub(super) grid: Grid,
    pub(super) pair: P,
}

/// What was found among a batch's elements.
pub(super) struct Assigned<T, K, V> {
    /// What came, by partition of the state and by task.
    pub(super) parts: Vec<Vec<Combined<Windowed<K>, V>>>,
    /// The latest event time.
    pub(super) highest_ms: Option<i64>,
    /// Those that came too late, by task, if anybody wants them.
    pub(super) late: Vec<Vec<Late<T>>>,
    /// How many they are.
    pub(super) late_records: u64,
}

/// What one task found.
struct Found<'a, T, K, V: Element, F: Fn(V, V) -> V + Send + Sync + 'static> {
    side: MapSide<'a, Windowed<K>, Reduce<V, F>>,
    highest_ms: Option<i64>,
    late: Vec<Late<T>>,
    late_records: u64,
}

/// What holds for all elements of a batch.
#[derive(Clone, Copy)]
struct Limits {
    watermark_ms: Option<i64>,
    /// The latest event time that is believed.
    latest_ms: i64,
    wants_late: bool,
}

impl<T: Element, P> WindowAssigner<T, P> {
    /// Puts all elements of a batch in their places.
    pub(super) fn assign<K, V, F>(
        &self,
        scope: &BatchScope,
        (watermark_ms, wants_late): (Option<i64>, bool),
        (partitioner, reduce): (&Partitioner<Windowed<K>>, &Reduce<V, F>),
    ) -> Result<Assigned<T, K, V>>
    where
        K: StateKey,
        V: StateValue,
        P: Fn(T) -> (K, V) + Send + Sync + 'static,
        F: Fn(V, V) -> V + Send + Sync + 'static,
    {
        let now = scope.batch().batch_time.as_ms();
        let latest_ms = self.events.ahead_max_ms.map_or(i64::MAX, |ahead_ms| now.saturating_add(ahead_ms));
        let limits = Limits { watermark_ms, latest_ms, wants_late };
        let start =
            |_| Found { side: MapSide::new(partitioner, reduce), highest_ms: None, late: Vec::new(), late_records: 0 };
        let tasks = self.events.stream.rdd(scope)?.run(start, |found, element| {
            self.take(limits, element, found);
            ControlFlow::Continue(())
        })?;
        let parts = (0..PARTITIONS).map(|_| Vec::with_capacity(tasks.len())).collect();
        let mut assigned = Assigned { parts, highest_ms: None, late: Vec::new(), late_records: 0 };
        for task in tasks {
            let tables = task.side.into_tables();
            assigned.parts.iter_mut().zip(tables).for_each(|(part, table): (&mut Vec<_>, _)| part.push(table));
            assigned.highest_ms = assigned.highest_ms.max(task.highest_ms);
            assigned.late.push(task.late);
            assigned.late_records += task.late_records;
        }
        Ok(assigned)
    }

    /// Puts an element into its windows, or among the late ones.
    fn take<K, V, F>(&self, limits: Limits, element: T, found: &mut Found<'_, T, K, V, F>)
    where
        K: StateKey,
        V: StateValue,
        P: Fn(T) -> (K, V) + Send + Sync + 'static,
        F: Fn(V, V) -> V + Send + Sync + 'static,
    {
        let event_time_ms = (self.events.event_time)(&element);
        let watermark_ms = limits.watermark_ms;
        let reason = match event_time_ms {
            None => LateReason::NoTime,
            Some(time_ms) if !self.grid.holds(time_ms) => LateReason::OutOfRange,
            Some(time_ms) if time_ms > limits.latest_ms => LateReason::TooFarAhead,
            Some(time_ms) => {
                found.highest_ms = found.highest_ms.max(event_time_ms);
                let mut starts = self.grid.open(time_ms, watermark_ms);
                if let Some(first) = starts.next() {
                    let (key, value) = (self.pair)(element);
                    // Of tumbling windows there is one, and nothing is copied.
                    starts.for_each(|start| found.side.add((start, key.clone()), value.clone()));
                    found.side.add((first, key), value);
                    return;
                }
                LateReason::WindowsClosed
            }
        };
        found.late_records += 1;
        if limits.wants_late {
            found.late.push(Late { element, event_time_ms, watermark_ms, reason });
        }
    }
}
