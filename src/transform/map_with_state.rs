//! `map_with_state`: a function that sees each record together with the state of its key.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    BatchScope, DStream, KeepsState, MapWithStateDStream, Rdd, State, StateSpec,
    dstream::Nature,
    keyed_state::{
        CANCELLED_EVERY, Changes, Kept, KeyedState, PARTITIONS, StateKey, StateValue, View, cancelled, short_type_name,
    },
    state_spec::Function,
    touched_keys::TouchedKeys,
};
use crate::{
    error::{Error, Result},
    types::StateSegment,
};

/// The batch time of initial state before the first batch: it is as new as that.
const NOT_YET: i64 = i64::MAX;

struct MapWithState<K, V, S, M> {
    parent: DStream<(K, V)>,
    state: Arc<KeyedState<K, S>>,
    function: Arc<Function<K, V, S, M>>,
    timed: bool,
    /// What the last batch was mapped to.
    mapped: Mutex<Option<Mapped<M>>>,
}

struct Mapped<M> {
    batch_seq: u64,
    partitions: Arc<Vec<Vec<M>>>,
}

impl<K: StateKey, V: Send + 'static, S: StateValue, M> MapWithState<K, V, S, M> {
    /// The records of a partition, one after the other, then the keys that time out.
    fn partition(
        &self,
        scope: &BatchScope,
        before: &View<'_, K, S>,
        changes: &mut Changes<K, S>,
        pairs: Vec<Vec<(K, V)>>,
        idle: Vec<K>,
    ) -> Result<Vec<M>> {
        let (time, task) = (scope.batch().batch_time, scope.task());
        let now = if self.timed { time.as_ms() } else { 0 };
        let mut mapped = Vec::new();
        let mut touched = TouchedKeys::new();
        for (index, (key, value)) in pairs.into_iter().flatten().enumerate() {
            if index.is_multiple_of(CANCELLED_EVERY) && task.is_cancelled() {
                return Err(cancelled());
            }
            let (key, state, updated_ms) = touched.of(key, before);
            state.renewed();
            mapped.extend((self.function)(time, key, Some(value), state));
            state.check()?;
            if state.exists() && (state.is_updated() || self.timed) {
                *updated_ms = now;
            }
        }
        for key in idle.into_iter().filter(|key| !touched.contains(key)) {
            let old = before.get(&key);
            let mut state = State::of_idle(old.map(|old| old.state.clone()));
            mapped.extend((self.function)(time, &key, None, &mut state));
            state.check()?;
            changes.set(&key, old, None)?;
        }
        if self.timed && before.is_new() {
            let initial = before.iter().filter(|(_, old)| old.updated_ms == NOT_YET);
            for (key, old) in initial.filter(|(key, _)| !touched.contains(key)) {
                changes.set(key, Some(old), Some(Kept { state: old.state.clone(), updated_ms: now }))?;
            }
        }
        for (key, state, updated_ms) in touched.into_states() {
            changes.set(&key, before.get(&key), state.into_inner().map(|state| Kept { state, updated_ms }))?;
        }
        Ok(mapped)
    }
}

impl<K, V, S, M> MapWithState<K, V, S, M> {
    fn mapped(&self, batch_seq: u64) -> Result<Arc<Vec<Vec<M>>>> {
        let mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        let of_batch = mapped.as_ref().filter(|mapped| mapped.batch_seq == batch_seq);
        let partitions = of_batch.map(|mapped| Arc::clone(&mapped.partitions));
        partitions.ok_or_else(|| Error::internal("a batch's states are asked for before it has them"))
    }
}

impl<K, V, S, M> KeepsState for MapWithState<K, V, S, M>
where
    K: StateKey,
    V: Send + 'static,
    S: StateValue,
    M: Send + Sync + 'static,
{
    fn advance(&self, scope: &BatchScope) -> Result<Vec<StateSegment>> {
        let pairs = self.parent.is_due(scope).then(|| self.parent.rdd(scope)).transpose()?;
        let work = |view: &View<'_, K, S>, changes: &mut Changes<K, S>, pairs, idle| {
            self.partition(scope, view, changes, pairs, idle)
        };
        let (partitions, segments) = self.state.advance(scope, pairs.as_ref(), work)?;
        let mapped = Mapped { batch_seq: scope.batch().batch_seq, partitions: Arc::new(partitions) };
        *self.mapped.lock().unwrap_or_else(PoisonError::into_inner) = Some(mapped);
        Ok(segments)
    }

    fn fingerprint(&self) -> &str {
        self.state.fingerprint()
    }

    fn partitions(&self) -> u32 {
        u32::try_from(PARTITIONS).unwrap_or(u32::MAX)
    }

    fn clear(&self) {
        self.state.clear();
    }

    fn restore(&self, partition: u32, segments: &[StateSegment], last: u64) -> Result<()> {
        self.state.restore(partition, segments, last)
    }

    fn is_due(&self, last: u64, batch_time_ms: i64) -> bool {
        self.state.has_idle(last, batch_time_ms)
    }

    fn keys(&self, last: u64) -> u64 {
        self.state.keys(last)
    }
}

impl<K, V> DStream<(K, V)>
where
    K: StateKey,
    V: Send + 'static,
{
    /// Each record through a function that sees and changes the state of its key: once per record, in order, and only keys with
    /// a record are touched, however many there are. Spark: `mapWithState`.
    ///
    /// The state is committed in the batch's own transaction, and is there again after a restart, as exactly as the offsets
    /// are. With a [timeout](StateSpec::timeout) keys leave by themselves; an interval without records has a batch if one does.
    /// What is said of types and their order of fields in [`update_state_by_key`](Self::update_state_by_key) holds here.
    ///
    /// ```
    /// # use directstream::transform::{DStream, State, StateSpec};
    /// # fn example(orders: DStream<(String, i64)>) {
    /// let running = orders.map_with_state(StateSpec::function(|customer: &String, amount, total: &mut State<i64>| {
    ///     let sum = total.get().copied().unwrap_or(0) + amount.unwrap_or(0);
    ///     total.update(sum);
    ///     (customer.clone(), sum)
    /// }));
    /// let everyone = running.state_snapshots();
    /// # }
    /// ```
    #[must_use]
    pub fn map_with_state<S: StateValue, M: Clone + Send + Sync + 'static>(
        &self,
        spec: StateSpec<K, V, S, M>,
    ) -> MapWithStateDStream<K, S, M> {
        let StateSpec { function, initial, timeout } = spec;
        let timeout_ms = timeout.map(|timeout| i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
        if timeout_ms.is_some_and(|ms| ms < 1) {
            self.graph().note_fault(format!("a state's timeout must be at least a millisecond timeout={timeout:?}"));
        }
        let timed = timeout_ms.is_some();
        let updated_ms = if timed { NOT_YET } else { 0 };
        let kind = if timed { " with timeout" } else { "" };
        let fingerprint = format!("map_with_state<{}, {}>{kind}", short_type_name::<K>(), short_type_name::<S>());
        let initial = initial.into_iter().map(|(key, state)| (key, Kept { state, updated_ms }));
        let parent = self.used();
        let operator = self.graph().add_state(|operator| MapWithState {
            parent,
            state: Arc::new(KeyedState::new(operator, fingerprint, timeout_ms).initially(initial)),
            function,
            timed,
            mapped: Mutex::new(None),
        });
        let (graph, state) = (self.graph(), Arc::clone(&operator.state));
        let nature = Nature { slide_ms: self.slide_ms(), stateful: true, kept: false };
        let mapped = DStream::of_nature(graph, "map_with_state", nature, move |scope| {
            let partitions = operator.mapped(scope.batch().batch_seq)?;
            Ok(Rdd::of_shared(scope, std::iter::once(partitions)))
        });
        graph.take(mapped.id());
        let snapshots = DStream::of_nature(graph, "state_snapshots", nature, move |scope| Ok(state.all(scope)));
        MapWithStateDStream { mapped, snapshots }
    }
}
