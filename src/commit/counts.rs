//! How often the store failed, and was connected to again: for whoever watches it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counts since the start. Cheap to clone; all clones are the same counts.
///
/// ```
/// let counts = directstream::commit::StoreCounts::default();
/// assert_eq!((counts.reconnects(), counts.errors()), (0, 0));
/// ```
#[derive(Debug, Clone, Default)]
pub struct StoreCounts {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    connections: AtomicU64,
    errors: AtomicU64,
}

impl StoreCounts {
    pub(super) fn connected(&self) {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.shared.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections after the first one.
    #[must_use]
    pub fn reconnects(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Steps that failed, those that were tried again included.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.shared.errors.load(Ordering::Relaxed)
    }
}
