//! `update_state_by_key`: a state per key that every batch may change.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{
    BatchScope, DStream, KeepsState,
    dstream::Nature,
    keyed_state::{
        CANCELLED_EVERY, Changes, Kept, KeyedState, PARTITIONS, StateKey, StateValue, View, cancelled, short_type_name,
    },
    partitioner::hasher,
};
use crate::{
    error::Result,
    types::{StateSegment, Task},
};

struct UpdateStateByKey<K, V, S, F> {
    parent: DStream<(K, V)>,
    state: Arc<KeyedState<K, S>>,
    update: F,
}

impl<K, V, S, F> UpdateStateByKey<K, V, S, F>
where
    K: StateKey,
    S: StateValue,
    F: Fn(&K, Vec<V>, Option<S>) -> Option<S>,
{
    /// Every known key, also without a value, and every new one.
    fn partition(
        &self,
        task: &Task,
        before: &View<'_, K, S>,
        changes: &mut Changes<K, S>,
        pairs: Vec<Vec<(K, V)>>,
    ) -> Result<()> {
        let mut values: HashMap<K, Vec<V>, FixedState> = HashMap::with_hasher(hasher());
        for (key, value) in pairs.into_iter().flatten() {
            values.entry(key).or_default().push(value);
        }
        let kept = |state| Kept { state, updated_ms: 0 };
        for (index, (key, old)) in before.iter().enumerate() {
            if index.is_multiple_of(CANCELLED_EVERY) && task.is_cancelled() {
                return Err(cancelled());
            }
            let new = (self.update)(key, values.remove(key).unwrap_or_default(), Some(old.state.clone()));
            changes.set(key, Some(old), new.map(kept))?;
        }
        for (key, values) in values {
            let new = (self.update)(&key, values, None);
            changes.set(&key, None, new.map(kept))?;
        }
        Ok(())
    }
}

impl<K, V, S, F> KeepsState for UpdateStateByKey<K, V, S, F>
where
    K: StateKey,
    V: Send + 'static,
    S: StateValue,
    F: Fn(&K, Vec<V>, Option<S>) -> Option<S> + Send + Sync,
{
    fn advance(&self, scope: &BatchScope) -> Result<Vec<StateSegment>> {
        let pairs = self.parent.is_due(scope).then(|| self.parent.rdd(scope)).transpose()?;
        let work = |view: &View<'_, K, S>, changes: &mut Changes<K, S>, pairs, _idle| {
            self.partition(scope.task(), view, changes, pairs)
        };
        let (_, segments) = self.state.advance(scope, pairs.as_ref(), work)?;
        Ok(segments)
    }

    fn fingerprint(&self) -> &str {
        self.state.fingerprint()
    }

    fn partitions(&self) -> u32 {
        u32::try_from(PARTITIONS).unwrap_or(u32::MAX)
    }

    fn restore(&self, partition: u32, segments: &[StateSegment], last: u64) -> Result<()> {
        self.state.restore(partition, segments, last)
    }

    fn clear(&self) {
        self.state.clear();
    }

    fn is_due(&self, last: u64, _batch_time_ms: i64) -> bool {
        self.state.keys(last) > 0
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
    /// A state per key, and with every batch all keys with their states. `update` is called for every known key, with the key's
    /// values of the batch, which may be none, and its state; for a new key the state is `None`. What it gives is the state from
    /// then on; `None` removes the key. Spark: `updateStateByKey`.
    ///
    /// The state is committed in the batch's own transaction, and is there again after a restart, as exactly as the offsets
    /// are. A batch that is not committed leaves no trace of it. As long as there are keys, every interval
    /// has a batch; intervals that were missed are merged into one, as everywhere.
    ///
    /// Each batch goes through all keys, and only what changed is written. Where few of many keys change in a batch,
    /// [`map_with_state`](Self::map_with_state) does less.
    ///
    /// Keys and states are stored by the order of their fields, not by name: a start with other types is refused (exit code 2), a
    /// change inside a type of the same name may be. Make states that will grow an `enum` with a variant per version.
    ///
    /// ```
    /// # fn example(words: directstream::transform::DStream<String>) {
    /// let counts = words
    ///     .map(|word| (word, 1_u64))
    ///     .update_state_by_key(|_word, ones, count| Some(count.unwrap_or(0) + ones.len() as u64));
    /// # }
    /// ```
    pub fn update_state_by_key<S: StateValue>(
        &self,
        update: impl Fn(&K, Vec<V>, Option<S>) -> Option<S> + Send + Sync + 'static,
    ) -> DStream<(K, S)> {
        self.update_state_by_key_with_initial(update, [])
    }

    /// [`update_state_by_key`](Self::update_state_by_key) with states that are there before the application's very first
    /// batch. Once that is committed they are not looked at any more. Spark: `updateStateByKey` with `initialRDD`.
    ///
    /// ```
    /// # fn example(words: directstream::transform::DStream<String>) {
    /// let counts = words.map(|word| (word, 1_u64)).update_state_by_key_with_initial(
    ///     |_word, ones, count| Some(count.unwrap_or(0) + ones.len() as u64),
    ///     [("a".to_owned(), 100)],
    /// );
    /// # }
    /// ```
    pub fn update_state_by_key_with_initial<S: StateValue>(
        &self,
        update: impl Fn(&K, Vec<V>, Option<S>) -> Option<S> + Send + Sync + 'static,
        initial: impl IntoIterator<Item = (K, S)>,
    ) -> DStream<(K, S)> {
        let parent = self.used();
        let fingerprint = format!("update_state_by_key<{}, {}>", short_type_name::<K>(), short_type_name::<S>());
        let initial = initial.into_iter().map(|(key, state)| (key, Kept { state, updated_ms: 0 }));
        let operator = self.graph().add_state(|operator| UpdateStateByKey {
            parent,
            state: Arc::new(KeyedState::new(operator, fingerprint, None).initially(initial)),
            update,
        });
        let state = Arc::clone(&operator.state);
        let nature = Nature { slide_ms: self.slide_ms(), stateful: true, kept: false };
        DStream::of_nature(self.graph(), "update_state_by_key", nature, move |scope| Ok(state.all(scope)))
    }
}
