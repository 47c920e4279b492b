//! What `map_with_state` is told, and the state of a key as its function sees it.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    error::{Error, Result},
    types::BatchTime,
};

/// The state of a key as the function of [`map_with_state`](super::DStream::map_with_state) sees and changes it. Spark: `State`.
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
    pub(super) fn of(state: Option<S>) -> Self {
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

    /// The state of a key that times out.
    pub(super) fn of_idle(state: Option<S>) -> Self {
        Self { timing_out: true, ..Self::of(state) }
    }

    /// Whether the last call of the function made it what it is.
    pub(super) fn is_updated(&self) -> bool {
        self.updated
    }

    pub(super) fn into_inner(self) -> Option<S> {
        self.state
    }

    /// Ready for the next record of its key.
    pub(super) fn renewed(&mut self) {
        (self.updated, self.removed) = (false, false);
    }

    pub(super) fn check(&self) -> Result<()> {
        self.fault.map_or(Ok(()), |fault| Err(Error::transform(fault)))
    }
}

pub(super) type Function<K, V, S, M> = dyn Fn(BatchTime, &K, Option<V>, &mut State<S>) -> Option<M> + Send + Sync;

/// What [`map_with_state`](super::DStream::map_with_state) does. Spark: `StateSpec`.
pub struct StateSpec<K, V, S, M> {
    pub(super) function: Arc<Function<K, V, S, M>>,
    pub(super) initial: Vec<(K, S)>,
    pub(super) timeout: Option<Duration>,
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
