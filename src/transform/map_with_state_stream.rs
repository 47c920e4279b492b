//! What `map_with_state` gives: what the records were mapped to, and the states.

use std::{fmt, ops::Deref};

use super::DStream;

/// What [`map_with_state`](DStream::map_with_state) gives: the stream that the records were mapped to, and beside it the
/// states. Spark: `MapWithStateDStream`.
pub struct MapWithStateDStream<K, S, M> {
    pub(super) mapped: DStream<M>,
    pub(super) snapshots: DStream<(K, S)>,
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
