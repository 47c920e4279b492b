//! How often, and how long, a batch that cannot be read is planned again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    config::StreamConfig,
    error::{Error, ErrorKind, Result},
};

/// A batch whose reading contradicts its plan is planned again so often in a row.
const CONTRADICTIONS_MAX: u32 = 3;
/// The pause after a batch that could not be read; doubled with each in a row.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How many batches may fail within some time: each failure may pass by itself, but a job that goes on failing is ended.
///
/// A batch that fails again and again is one failure: how long it is tried is bounded by `stream.unavailable_max`.
#[derive(Debug, Clone)]
pub(super) struct FailureBudget {
    max: u64,
    interval: Duration,
    /// When batches failed, by monotonic time; never more than `max` and one.
    failures: Arc<Mutex<VecDeque<Duration>>>,
}

impl FailureBudget {
    pub(super) fn new(stream: &StreamConfig) -> Self {
        let (max, interval) = (stream.max_failures, stream.failures_validity_interval);
        Self { max, interval, failures: Arc::default() }
    }

    /// A batch failed at `now`, for the first time. Gives its error back.
    ///
    /// # Errors
    /// If it is one too many: of the same kind.
    pub(super) fn spend(&self, error: Error, now: Duration) -> Result<Error> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        while failures.front().is_some_and(|&at| now.saturating_sub(at) >= self.interval) {
            failures.pop_front();
        }
        failures.push_back(now);
        if u64::try_from(failures.len()).is_ok_and(|count| count <= self.max) {
            return Ok(error);
        }
        let message = format!(
            "more batches failed than stream.max_failures allows within stream.failures_validity_interval max_failures={} \
             failures_validity_interval={:?}",
            self.max, self.interval
        );
        Err(Error::new(error.kind(), message).caused_by(error))
    }
}

/// Batches that were dropped one after the other.
pub(super) struct Failing {
    budget: FailureBudget,
    since: Option<Duration>,
    times: u32,
    contradictions: u32,
}

impl Failing {
    pub(super) fn new(budget: FailureBudget) -> Self {
        Self { budget, since: None, times: 0, contradictions: 0 }
    }

    /// A batch was not dropped.
    pub(super) fn ended(&mut self) {
        (self.since, self.times, self.contradictions) = (None, 0, 0);
    }

    /// Whether the last batch was dropped.
    pub(super) fn is_failing(&self) -> bool {
        self.times > 0
    }

    pub(super) fn pause(&self) -> Duration {
        match self.times {
            0 => Duration::ZERO,
            times => RETRY_PAUSE_MIN.saturating_mul(1 << times.min(16)).min(RETRY_PAUSE_MAX),
        }
    }

    /// One more. What only time can mend is waited for up to `unavailable_max`; what planning again should have mended,
    /// as where reading finds offsets gone that the plan found there, only a few times.
    pub(super) fn again(&mut self, mut error: Error, now: Duration, unavailable_max: Duration) -> Result<()> {
        // Rows that are refused are no failure: the batch is run again without their records.
        if self.times == 0 && !error.is_about_rows() {
            error = self.budget.spend(error, now)?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn budget() -> FailureBudget {
        let stream =
            StreamConfig { max_failures: 2, failures_validity_interval: 10 * SECOND, ..StreamConfig::default() };
        FailureBudget::new(&stream)
    }

    #[test]
    fn one_failure_too_many_within_the_interval_is_the_end() {
        let budget = budget();
        for at in [0, 1, 10, 11, 20] {
            budget.spend(Error::unavailable("away"), at * SECOND).unwrap();
        }
        let end = budget.spend(Error::unavailable("away again"), 20 * SECOND).unwrap_err();
        assert_eq!(end.kind(), ErrorKind::Unavailable);
        let told = end.chain();
        assert!(told.contains("max_failures=2") && told.contains("away again"), "{told}");
    }

    #[test]
    fn a_batch_that_is_dropped_again_is_one_failure() {
        let mut failing = Failing::new(budget());
        let fail = |failing: &mut Failing, times| {
            (0..times).try_for_each(|_| failing.again(Error::unavailable("away"), SECOND, 10 * SECOND))
        };
        for _ in 0..2 {
            fail(&mut failing, 5).unwrap();
            failing.ended();
        }
        fail(&mut failing, 1).unwrap_err();
    }
}
