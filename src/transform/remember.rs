//! `remember` and `slice`: the last batches of a stream, to be looked at from outside of it.

use std::{fmt, sync::Arc, time::Duration};

use super::{BatchScope, DStream, Rdd, history::History};
use crate::{
    error::{Error, Result},
    types::BatchTime,
};

/// A stream whose last batches can be looked at: see [`DStream::remember`].
pub struct RememberedDStream<T> {
    stream: DStream<T>,
    history: Arc<History<T>>,
}

impl<T> Clone for RememberedDStream<T> {
    fn clone(&self) -> Self {
        Self { stream: self.stream.clone(), history: Arc::clone(&self.history) }
    }
}

impl<T> fmt::Debug for RememberedDStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RememberedDStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl<T: Clone + Send + Sync + 'static> DStream<T> {
    /// Keeps the elements of the batches of the last `duration` in memory, so that a program can look at them while the stream
    /// runs: for a page that shows the last minute, say. After a restart they are there again, as windows are: read from Kafka,
    /// by the ranges in the ledger. Spark: `StreamingContext.remember`, which is for all streams, and `DStream.slice`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use directstream::{BatchTime, transform::DStream};
    ///
    /// # fn example(lines: DStream<String>) -> directstream::Result<()> {
    /// let recent = lines.remember(Duration::from_secs(60))?;
    /// // ... once the context was started, in any thread:
    /// # let (from, until) = (BatchTime::from_ms(0), BatchTime::from_ms(60_000));
    /// for (batch_time, lines) in recent.slice(from, until)? {
    ///     println!("{batch_time}: {} lines", lines.count()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if the duration is not whole milliseconds above 0.
    pub fn remember(&self, duration: Duration) -> Result<RememberedDStream<T>> {
        let remembered_ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        if remembered_ms == 0 || Duration::from_millis(remembered_ms.unsigned_abs()) != duration {
            let text = format!("batches are remembered for whole milliseconds above 0 duration={duration:?}");
            return Err(Error::config(text));
        }
        // They force no batch: what is remembered does not change by time alone.
        let history = History::of(self, remembered_ms, 0);
        self.graph().untake();
        Ok(RememberedDStream { stream: self.clone(), history })
    }
}

impl<T: Clone + Send + Sync + 'static> RememberedDStream<T> {
    /// The batches with a time from `from` to `until`, both included, the oldest first, each with its elements. The last one may
    /// not be committed yet. Batches that are older than what is remembered are not there. Spark: `DStream.slice`.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) before the context was started.
    pub fn slice(&self, from: BatchTime, until: BatchTime) -> Result<Vec<(BatchTime, Rdd<T>)>> {
        if self.stream.graph().check_open().is_ok() {
            return Err(Error::config("the stream has not been initialized: slice is for a context that was started"));
        }
        let scope = BatchScope::outside();
        let batches = self.history.between(from.as_ms().saturating_sub(1), until.as_ms());
        let rdd = |partitions| Rdd::of_shared(&scope, [partitions].into_iter());
        Ok(batches.into_iter().map(|batch| (batch.time(), rdd(batch.partitions))).collect())
    }
}
