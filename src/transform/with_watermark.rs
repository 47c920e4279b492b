//! `with_watermark`: elements have a time of their own, and the stream knows how far that has come.

use std::{fmt, sync::Arc, time::Duration};

use super::{DStream, event_window::whole_ms};
use crate::error::Result;

type EventTime<T> = dyn Fn(&T) -> Option<i64> + Send + Sync;

/// A stream whose elements have an event time: what [`with_watermark`](DStream::with_watermark) gives.
pub struct EventTimeDStream<T> {
    pub(super) stream: DStream<T>,
    pub(super) event_time: Arc<EventTime<T>>,
    pub(super) lateness_ms: i64,
    /// How far after the batch time an event time may be.
    pub(super) ahead_max_ms: Option<i64>,
}

impl<T> fmt::Debug for EventTimeDStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventTimeDStream")
            .field("stream", &self.stream)
            .field("lateness_ms", &self.lateness_ms)
            .field("ahead_max_ms", &self.ahead_max_ms)
            .finish_non_exhaustive()
    }
}

impl<T> Clone for EventTimeDStream<T> {
    fn clone(&self) -> Self {
        let Self { ref stream, ref event_time, lateness_ms, ahead_max_ms } = *self;
        Self { stream: stream.clone(), event_time: Arc::clone(event_time), lateness_ms, ahead_max_ms }
    }
}

impl<T> EventTimeDStream<T> {
    /// Elements whose event time is after the batch time by more than `ahead` come into no window and do not move the
    /// watermark; they are [late](super::EventWindowDStream::late) ones. Default: no limit, and then one record with the date of
    /// the year 9999 closes all windows before that, and makes every later record late.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if it is not whole milliseconds.
    pub fn ahead_max(mut self, ahead: Duration) -> Result<Self> {
        self.ahead_max_ms = Some(whole_ms("ahead_max", ahead)?);
        Ok(self)
    }
}

impl<T: Send + 'static> DStream<T> {
    /// Says how to tell the event time of an element, in milliseconds since 1970-01-01 UTC, and by how much it may be behind
    /// the latest one that was seen. Windows over it do not depend on when a record was read, nor on how batches were cut, as
    /// long as nothing is late. Spark: `withWatermark` of Structured Streaming; Spark's DStreams have no event time.
    ///
    /// The **watermark** of a batch is the highest event time in all batches before it, minus `allowed_lateness`. It moves
    /// between batches and never back, and is committed with each batch: a batch that is run again has the same one, and so has
    /// the next one after a restart. A window is told when the watermark has reached its end. An element is **late** if
    /// all windows of its time have been told. What it is in, it is in exactly once.
    ///
    /// While no records come the watermark stands still, and open windows stay open: only a later record shows that their
    /// time is over. The watermark is one for all partitions, the highest of them: `allowed_lateness` has to cover how far
    /// apart they are, in a backlog above all.
    ///
    /// An element without a time (`None`) comes into no window; it is counted and told with the
    /// [late](super::EventWindowDStream::late) ones. Kafka's own timestamp is `record.timestamp().as_ms()`; set
    /// [`ahead_max`](EventTimeDStream::ahead_max) where a wrong clock may have made the times.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use directstream::{Record, transform::{DStream, EventWindows}};
    /// # fn example(orders: DStream<Record>) -> directstream::Result<()> {
    /// let per_minute = orders
    ///     .with_watermark(|order| order.timestamp().as_ms(), Duration::from_secs(10))?
    ///     .ahead_max(Duration::from_secs(60))?
    ///     .reduce_by_key_and_event_window(
    ///         EventWindows::tumbling(Duration::from_secs(60)),
    ///         |order| (order.topic().to_owned(), 1_i64),
    ///         |a, b| a + b,
    ///     )?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if `allowed_lateness` is not whole milliseconds.
    pub fn with_watermark(
        &self,
        event_time: impl Fn(&T) -> Option<i64> + Send + Sync + 'static,
        allowed_lateness: Duration,
    ) -> Result<EventTimeDStream<T>> {
        let lateness_ms = whole_ms("allowed_lateness", allowed_lateness)?;
        Ok(EventTimeDStream { stream: self.clone(), event_time: Arc::new(event_time), lateness_ms, ahead_max_ms: None })
    }
}
