//! The keys that a batch has records of, each with its state while its records are mapped.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{
    State,
    keyed_state::{StateKey, StateValue, View},
    partitioner::hasher,
};

/// The keys of a batch in one partition, in the order in which they came.
pub(super) struct TouchedKeys<K, S> {
    index: HashMap<K, usize, FixedState>,
    keys: Vec<(K, State<S>, i64)>,
}

impl<K: StateKey, S: StateValue> TouchedKeys<K, S> {
    pub(super) fn new() -> Self {
        Self { index: HashMap::with_hasher(hasher()), keys: Vec::new() }
    }

    /// The key's state, and when it was updated.
    pub(super) fn of(&mut self, key: K, before: &View<'_, K, S>) -> &mut (K, State<S>, i64) {
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

    pub(super) fn contains(&self, key: &K) -> bool {
        self.index.contains_key(key)
    }

    /// Each key with its state now, and when that was updated.
    pub(super) fn into_states(self) -> Vec<(K, State<S>, i64)> {
        self.keys
    }
}
