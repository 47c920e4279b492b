//! `map_with_state`: a function that sees each record together with the state of its key.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{
    BatchScope, DStream, KeepsState, Rdd,
    dstream::Nature,
    keyed_state::{
        CANCELLED_EVERY, Changes, Kept, KeyedState, PARTITIONS, StateKey, StateValue, View, cancelled, short_type_name,
    },
    partitioner::hasher,
};
use crate::{
    error::{Error, Result},
    types::{BatchTime, StateSegment},
};

/// The batch time of initial state before the first batch: it is as new as that.
const NOT_YET: i64 = i64::MAX;

/// The state of a key as the function of [`map_with_state`](DStream::map_with_state) sees and changes it. Spark: `State`.
#[derive(Debug)]
pub struct State<S> {
    state: Option<S>,
    updated: bool,
    removed: bool,
    timing_out: bool,
    /// What the function did that it may not.
    fault: Option<&'static str>,
}

impl<S> State<S> {
    fn of(state: Option<S>) -> Self {
        Self { state, updated: false, removed: false, timing_out: false, fault: None }
    }

    /// Whether the key has a state.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.state.is_some()
    }

    /// The state, if there is one. Spark: `getOption`; its `get` is an error where there is none.
    #[must_use]
    pub fn get(&self) -> Option<&S> {
        self.state.as_ref()
    }

    /// Makes `state` the key's state. Once the state was removed in the same call, or while it [times out](Self::is_timing_out),
    /// that is a mistake: the batch fails, and the stream ends with exit code 6.
    pub fn update(&mut self, state: S) {
        match (self.timing_out, self.removed) {
            (true, _) => self.note("the state of a key that times out cannot be updated"),
            (_, true) => self.note("a state cannot be updated after it was removed"),
            _ => (self.state, self.updated) = (Some(state), true),
        }
    }

    /// Removes the state. Twice in one call, or while it [times out](Self::is_timing_out), is a mistake, as for
    /// [`update`](Self::update).
    pub fn remove(&mut self) {
        match (self.timing_out, self.removed) {
            (true, _) => self.note("the state of a key that times out is removed by itself"),
            (_, true) => self.note("a state cannot be removed twice"),
            _ => (self.state, self.removed, self.updated) = (None, true, false),
        }
    }

    /// Whether the key was idle for longer than the [timeout](StateSpec::timeout): the function is called without a value, and
    /// the state is removed after it.
    #[must_use]
    pub fn is_timing_out(&self) -> bool {
        self.timing_out
    }

    fn note(&mut self, fault: &'static str) {
        self.fault.get_or_insert(fault);
    }

    /// Ready for the next record of its key.
    fn renewed(&mut self) {
        (self.updated, self.removed) = (false, false);
    }

    fn check(&self) -> Result<()> {
        self.fault.map_or(Ok(()), |fault| Err(Error::transform(fault)))
    }
}

type Function<K, V, S, M> = dyn Fn(BatchTime, &K, Option<V>, &mut State<S>) -> Option<M> + Send + Sync;

/// What [`map_with_state`](DStream::map_with_state) does. Spark: `StateSpec`.
pub struct StateSpec<K, V, S, M> {
    function: Arc<Function<K, V, S, M>>,
    initial: Vec<(K, S)>,
    timeout: Option<Duration>,
}

impl<K, V, S, M> fmt::Debug for StateSpec<K, V, S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.initial.len();
        f.debug_struct("StateSpec").field("initial", &keys).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl<K, V, S, M> StateSpec<K, V, S, M> {
    /// A function of key, value and state; what it gives is an element of the mapped stream. The value is `None` only for a key
    /// that [times out](State::is_timing_out). Spark: `StateSpec.function`.
    pub fn function(function: impl Fn(&K, Option<V>, &mut State<S>) -> M + Send + Sync + 'static) -> Self {
        Self::function_with_time(move |_, key, value, state| Some(function(key, value, state)))
    }

    /// A function that sees the batch time as well, and may give no element. Spark: the other form of `StateSpec.function`.
    pub fn function_with_time(
        function: impl Fn(BatchTime, &K, Option<V>, &mut State<S>) -> Option<M> + Send + Sync + 'static,
    ) -> Self {
        Self { function: Arc::new(function), initial: Vec::new(), timeout: None }
    }

    /// States that are there before the application's very first batch, which counts as their last update. Once that batch is
    /// committed they are not looked at any more. Spark: `initialState`.
    #[must_use]
    pub fn initial_state(mut self, initial: impl IntoIterator<Item = (K, S)>) -> Self {
        self.initial = initial.into_iter().collect();
        self
    }

    /// Removes a key that was idle for longer than `timeout` of batch time, in whole milliseconds, after one more call of the
    /// function for it. A key is idle while no record of it comes. Spark: `timeout`.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

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

/// The keys of a batch in one partition, in the order in which they came.
struct Touched<K, S> {
    index: HashMap<K, usize, FixedState>,
    keys: Vec<(K, State<S>, i64)>,
}

impl<K: StateKey, S: StateValue> Touched<K, S> {
    fn new() -> Self {
        Self { index: HashMap::with_hasher(hasher()), keys: Vec::new() }
    }

    /// The key's state, and when it was updated.
    fn of(&mut self, key: K, before: &View<'_, K, S>) -> &mut (K, State<S>, i64) {
        let index = match self.index.get(&key) {
            Some(index) => *index,
            None => {
                let old = before.get(&key);
                let updated_ms = old.map_or(0, |old| old.updated_ms);
                let state = State::of(old.map(|old| old.state.clone()));
                self.index.insert(key.clone(), self.keys.len());
                self.keys.push((key, state, updated_ms));
                self.keys.len() - 1
            }
        };
        &mut self.keys[index]
    }
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
        let mut touched = Touched::new();
        for (index, (key, value)) in pairs.into_iter().flatten().enumerate() {
            if index.is_multiple_of(CANCELLED_EVERY) && task.is_cancelled() {
                return Err(cancelled());
            }
            let (key, state, updated_ms) = touched.of(key, before);
            state.renewed();
            mapped.extend((self.function)(time, key, Some(value), state));
            state.check()?;
            if state.exists() && (state.updated || self.timed) {
                *updated_ms = now;
            }
        }
        for key in idle.into_iter().filter(|key| !touched.index.contains_key(key)) {
            let old = before.get(&key);
            let mut state = State { timing_out: true, ..State::of(old.map(|old| old.state.clone())) };
            mapped.extend((self.function)(time, &key, None, &mut state));
            state.check()?;
            changes.set(&key, old, None)?;
        }
        if self.timed && before.is_new() {
            let initial = before.iter().filter(|(_, old)| old.updated_ms == NOT_YET);
            for (key, old) in initial.filter(|(key, _)| !touched.index.contains_key(*key)) {
                changes.set(key, Some(old), Some(Kept { state: old.state.clone(), updated_ms: now }))?;
            }
        }
        for (key, State { state, .. }, updated_ms) in touched.keys {
            changes.set(&key, before.get(&key), state.map(|state| Kept { state, updated_ms }))?;
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

/// What [`map_with_state`](DStream::map_with_state) gives: the stream that the records were mapped to, and beside it the
/// states. Spark: `MapWithStateDStream`.
pub struct MapWithStateDStream<K, S, M> {
    mapped: DStream<M>,
    snapshots: DStream<(K, S)>,
}

impl<K, S, M> MapWithStateDStream<K, S, M> {
    /// With every batch all keys with their states. Spark: `stateSnapshots`.
    #[must_use]
    pub fn state_snapshots(&self) -> DStream<(K, S)> {
        self.snapshots.clone()
    }
}

impl<K, S, M> Deref for MapWithStateDStream<K, S, M> {
    type Target = DStream<M>;

    fn deref(&self) -> &DStream<M> {
        &self.mapped
    }
}

impl<K, S, M> fmt::Debug for MapWithStateDStream<K, S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapWithStateDStream").field("mapped", &self.mapped).finish_non_exhaustive()
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
        let snapshots = DStream::of_nature(graph, "state_snapshots", nature, move |scope| Ok(state.all(scope)));
        MapWithStateDStream { mapped, snapshots }
    }
}
