//! The only place that asks the time.

use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

/// Ends when its time has come. Dropped, it is given up.
pub type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Where time comes from: the system's clocks, or a test's hand.
pub trait Clock: Debug + Send + Sync {
    /// Milliseconds since 1970-01-01 UTC. It may jump and go back; nothing is decided by it but names and logs.
    fn now_ms(&self) -> i64;

    /// Time that only goes forward, since an arbitrary start.
    fn monotonic(&self) -> Duration;

    /// Waits until so much time of this clock has passed since the call: what batches are begun by. Default: the time of the
    /// async runtime that the call is made in.
    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The system's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// The same, ready to be shared.
    #[must_use]
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that a test moves. Wall and monotonic time move together. Spark: `ManualClock`.
///
/// A stream on such a clock begins a batch when the clock was moved to its time, and never by itself;
/// [`testing::TestContext`](crate::testing::TestContext) moves it by whole intervals.
///
/// ```
/// use std::time::Duration;
/// use directstream::clock::{Clock, ManualClock};
///
/// let clock = ManualClock::at(1_000);
/// clock.advance(Duration::from_secs(2));
/// assert_eq!((clock.now_ms(), clock.monotonic()), (3_000, Duration::from_secs(2)));
/// ```
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ms: watch::Sender<i64>,
    start_ms: i64,
}

impl ManualClock {
    /// A clock that stands at `now_ms`: milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn at(now_ms: i64) -> Self {
        Self { now_ms: watch::Sender::new(now_ms), start_ms: now_ms }
    }

    /// Moves it forward, by whole milliseconds. Whoever sleeps until then wakes up.
    pub fn advance(&self, by: Duration) {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.now_ms.send_modify(|now_ms| *now_ms = now_ms.saturating_add(by_ms));
    }

    /// Moves it forward to `now_ms`, in milliseconds since 1970-01-01 UTC; never back.
    pub fn advance_to(&self, now_ms: i64) {
        self.now_ms.send_modify(|now| *now = now_ms.max(*now));
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        *self.now_ms.borrow()
    }

    fn monotonic(&self) -> Duration {
        let passed = self.now_ms().saturating_sub(self.start_ms);
        Duration::from_millis(u64::try_from(passed).unwrap_or(0))
    }

    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        let until_ms = self.now_ms().saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
        let mut now_ms = self.now_ms.subscribe();
        Box::pin(async move {
            // The clock outlives the wait, so there is no end but this one.
            let _ = now_ms.wait_for(|now_ms| *now_ms >= until_ms).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_sleep_by_hand_ends_when_the_clock_was_moved_far_enough() {
        let clock = ManualClock::at(10_000);
        let (mut short, mut long) = (clock.sleep(Duration::from_secs(1)), clock.sleep(Duration::from_secs(3)));
        clock.advance(Duration::from_millis(999));
        assert!((&mut short).now_or_never().is_none());
        clock.advance(Duration::from_millis(1));
        assert!((&mut short).now_or_never().is_some() && (&mut long).now_or_never().is_none());
        clock.advance_to(13_000);
        clock.advance_to(12_000);
        long.await;
        clock.sleep(Duration::ZERO).await;
        assert_eq!((clock.now_ms(), clock.monotonic()), (13_000, Duration::from_secs(3)));
    }
}
