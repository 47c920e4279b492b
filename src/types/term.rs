//! One term of ownership: whose batches they are.

use std::sync::Arc;

/// The application a batch belongs to, and the term of ownership that it is run in. What an output keeps outside of the
/// store tells by it whether it was left by this application, and whether by an earlier owner or a later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The application's name.
    pub application: Arc<str>,
    /// The zero time of the application, in milliseconds since 1970-01-01 UTC: fixed at its first start. An application of
    /// the same name in a store that was made anew has another one.
    pub zero_time_ms: i64,
    /// The epoch: each owner has a higher one than those before. At least 1.
    pub epoch: u64,
}
