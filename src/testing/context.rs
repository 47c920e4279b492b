//! A context on a clock that the test moves, one interval at a time.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use super::{ManualClock, TestStore};
use crate::{
    clock::Clock,
    error::{Error, Result},
    stream::{Resting, StreamingContext, StreamingContextBuilder, StreamingContextState},
};

/// So long, in real time, a batch may take in a test: whatever holds it up does not end.
const BATCH_MAX: Duration = Duration::from_secs(60);

type Configure = Arc<dyn Fn(StreamingContextBuilder) -> StreamingContextBuilder + Send + Sync>;

/// A [`StreamingContext`] for a test: with a [`TestStore`], and on a [`ManualClock`] that [`run_batch`](Self::run_batch) moves
/// from one interval to the next. Spark: `TestSuiteBase`.
///
/// The clock stands one interval after 1970-01-01 UTC at first, so with an interval of one second batches have the times 1000,
/// 2000, 3000 and so on, in milliseconds, as in Spark's own tests. Nothing happens between them: a batch is begun when the test
/// says so, and a call comes back when it is committed. No test has to sleep.
///
/// See [`testing`](crate::testing) for an example.
pub struct TestContext {
    context: StreamingContext,
    clock: Arc<ManualClock>,
    store: Arc<TestStore>,
    application: String,
    interval: Duration,
    configure: Configure,
}

impl TestContext {
    /// A context for `application` with one batch every `interval` of the clock, on a store of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no room for the store.
    pub fn new(application: impl Into<String>, interval: Duration) -> Result<Self> {
        Self::configured(application, interval, |builder| builder)
    }

    /// The same with other settings than the defaults. Store and clock stay the test's, unless they are replaced.
    ///
    /// ```
    /// use std::time::Duration;
    /// use directstream::testing::TestContext;
    ///
    /// let limited = |builder: directstream::stream::StreamingContextBuilder| builder.max_rate_per_partition(5);
    /// let context = TestContext::configured("orders", Duration::from_secs(1), limited)?;
    /// # Ok::<(), directstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn configured(
        application: impl Into<String>,
        interval: Duration,
        configure: impl Fn(StreamingContextBuilder) -> StreamingContextBuilder + Send + Sync + 'static,
    ) -> Result<Self> {
        let first_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
        let (clock, store) = (Arc::new(ManualClock::at(first_ms)), Arc::new(TestStore::new()?));
        Self::on(application.into(), interval, (clock, store), Arc::new(configure))
    }

    fn on(
        application: String,
        interval: Duration,
        (clock, store): (Arc<ManualClock>, Arc<TestStore>),
        configure: Configure,
    ) -> Result<Self> {
        let builder = StreamingContext::builder(&application, interval).store(&store.url())?;
        let context = configure(builder.clock(Arc::clone(&clock) as Arc<dyn Clock>)).build()?;
        Ok(Self { context, clock, store, application, interval, configure })
    }

    /// The store of results and offsets.
    #[must_use]
    pub fn store(&self) -> &TestStore {
        &self.store
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// One interval: the clock is moved to the next batch, and all that comes of it is waited for, up to the commit. The first
    /// call starts the context; where a batch is due at once, as at the very first start, the clock stays where it is.
    ///
    /// Gives how many batches were committed: one; none if there was nothing to do; more if the memory budget cut a batch short.
    /// A batch that is dropped, as while the broker is away, is tried again as in production, by the clock and at once.
    ///
    /// # Errors
    /// What the stream ended with, as an error of user code. [`ErrorKind::Config`](crate::ErrorKind::Config) if it had ended before.
    pub async fn run_batch(&self) -> Result<u64> {
        let before = self.context.reporter().totals().batches;
        match self.context.state() {
            StreamingContextState::Initialized => {
                self.context.start().await?;
                // Started at the time of its last batch, it waits for the next one.
                if self.rested().await?.is_some_and(|resting| resting.intervals == 0) {
                    self.next_interval().await?;
                }
            }
            StreamingContextState::Active => self.next_interval().await?,
            StreamingContextState::Stopped => {
                // What ended it is told as long as it is asked for; a good end is an end as well.
                self.context.await_termination().await?;
                return Err(Error::config("the stream has ended: there is no next batch"));
            }
        }
        while self.rested().await?.is_some_and(|resting| resting.again) {
            self.next_interval().await?;
        }
        Ok(self.context.reporter().totals().batches.saturating_sub(before))
    }

    /// So many intervals, one after the other. Gives how many batches were committed.
    ///
    /// # Errors
    /// As [`run_batch`](Self::run_batch).
    pub async fn run_batches(&self, intervals: u32) -> Result<u64> {
        let mut committed = 0;
        for _ in 0..intervals {
            committed += self.run_batch().await?;
        }
        Ok(committed)
    }

    /// Moves the clock to where the driver goes on.
    async fn next_interval(&self) -> Result<()> {
        if let Some(Resting { until, .. }) = self.rested().await? {
            self.clock.advance(until.saturating_sub(self.clock.monotonic()));
        }
        Ok(())
    }

    /// Waits until the driver is through with everything up to now, and sleeps; `None` if the stream has ended.
    ///
    /// While it sleeps to a time that is still to come it has seen the clock as it is now, whatever was told before: it could
    /// not sleep to a later time without having begun the interval that was due.
    async fn rested(&self) -> Result<Option<Resting>> {
        let mut resting = self.context.resting();
        let asleep = |resting: &Option<Resting>| resting.is_some_and(|resting| resting.until > self.clock.monotonic());
        tokio::select! {
            biased;
            ended = self.context.await_termination() => ended.map(|_| None),
            found = resting.wait_for(asleep) => Ok(found.map_or(None, |found| *found)),
            () = tokio::time::sleep(BATCH_MAX) => {
                Err(Error::unavailable(format!("a batch does not end waited={BATCH_MAX:?}")))
            }
        }
    }

    /// Stops the stream, and waits for its end.
    ///
    /// # Errors
    /// What it had ended with before, if that was an error.
    pub async fn stop(&self) -> Result<()> {
        let started = self.context.state() != StreamingContextState::Initialized;
        self.context.stop();
        if started {
            self.context.await_termination().await?;
        }
        Ok(())
    }

    /// Stops the stream, whatever it ended with, and gives a new context for the same application: on the same store, clock and
    /// settings, and without streams and outputs, as a process has that begins. It goes on at the time of the last batch; for a
    /// later one [advance](ManualClock::advance) the clock first. Spark: recovery from a checkpoint, `manualClock.jump`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn restart(self) -> Result<Self> {
        // A failed stream is what many restarts begin with.
        let _ = self.stop().await;
        let Self { context, clock, store, application, interval, configure } = self;
        drop(context);
        Self::on(application, interval, (clock, store), configure)
    }
}

impl Deref for TestContext {
    type Target = StreamingContext;

    fn deref(&self) -> &StreamingContext {
        &self.context
    }
}

impl fmt::Debug for TestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestContext")
            .field("context", &self.context)
            .field("clock", &self.clock)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
