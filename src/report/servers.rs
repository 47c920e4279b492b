//! What the reporter is told of the servers, and of what was there before this process.

use std::time::Duration;

use super::reporter::{Reporter, seconds_of_ms};
use crate::{clock::Clock, types::BatchTime};

impl Reporter {
    /// The process before this one committed its last batch at this time: what it left lying is taken to be as old.
    ///
    /// ```
    /// use directstream::{BatchTime, clock::SystemClock, report::Reporter};
    ///
    /// let reporter = Reporter::new("orders", SystemClock::shared());
    /// reporter.resumed(BatchTime::from_ms(1_700_000_000_000));
    /// assert!(reporter.render_metrics().contains("directstream_last_batch_time_seconds 1700000000\n"));
    /// ```
    pub fn resumed(&self, last_batch_time: BatchTime) {
        let clock = &self.shared.clock;
        self.shared.instruments.last_batch_time.set(seconds_of_ms(last_batch_time.as_ms()));
        let ago_ms = clock.now_ms().saturating_sub(last_batch_time.as_ms()).max(0);
        let at_ms = monotonic_ms(&**clock).saturating_sub(ago_ms);
        self.state().positions.resumed(at_ms);
    }

    /// Whether the store answers, and how often it was connected to again and failed since the process started.
    ///
    /// ```
    /// use directstream::{clock::SystemClock, report::Reporter};
    ///
    /// let reporter = Reporter::new("orders", SystemClock::shared());
    /// reporter.store(true, 2, 5);
    /// assert!(reporter.render_metrics().contains("directstream_store_reconnects_total 2\n"));
    /// ```
    pub fn store(&self, up: bool, reconnects: u64, errors: u64) {
        self.shared.instruments.store_reconnects.absolute(reconnects);
        self.shared.instruments.store_errors.absolute(errors);
        self.state().store_up = Some(up);
    }

    /// How long Kafka has told nothing usable about a partition or topic of the job; zero if it has.
    ///
    /// ```
    /// use std::time::Duration;
    /// use directstream::{clock::SystemClock, report::Reporter};
    ///
    /// let reporter = Reporter::new("orders", SystemClock::shared());
    /// reporter.kafka_silent(Duration::from_secs(7));
    /// assert!(reporter.render_metrics().contains("directstream_kafka_silent_seconds 7\n"));
    /// ```
    pub fn kafka_silent(&self, lasted: Duration) {
        self.shared.instruments.kafka_silent.set(lasted.as_secs_f64());
    }
}

/// Monotonic time as a number that can be reckoned with before the process's start.
pub(super) fn monotonic_ms(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.monotonic().as_millis()).unwrap_or(i64::MAX)
}
