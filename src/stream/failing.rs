//! How often, and how long, a batch that cannot be read is planned again.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// A batch whose reading contradicts its plan is planned again so often in a row.
const CONTRADICTIONS_MAX: u32 = 3;
/// The pause after a batch that could not be read; doubled with each in a row.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Batches that were dropped one after the other.
#[derive(Default)]
pub(super) struct Failing {
    since: Option<Duration>,
    times: u32,
    contradictions: u32,
}

impl Failing {
    pub(super) fn pause(&self) -> Duration {
        match self.times {
            0 => Duration::ZERO,
            times => RETRY_PAUSE_MIN.saturating_mul(1 << times.min(16)).min(RETRY_PAUSE_MAX),
        }
    }

    /// One more. What only time can mend is waited for up to `unavailable_max`; what planning again should have mended,
    /// as where reading finds offsets gone that the plan found there, only a few times.
    pub(super) fn again(&mut self, error: Error, now: Duration, unavailable_max: Duration) -> Result<()> {
        self.times += 1;
        let since = *self.since.get_or_insert(now);
        if error.kind() != ErrorKind::Unavailable {
            self.contradictions += 1;
        }
        if self.contradictions > CONTRADICTIONS_MAX || now.saturating_sub(since) >= unavailable_max {
            return Err(error);
        }
        tracing::warn!("the batch is dropped and planned again: {}", error.chain());
        Ok(())
    }
}
