//! Windows: the elements of the last batches as one RDD, every slide.
//!
//! A window at batch time `T` holds the batches with a time in `(T - length, T]`. A job with a window runs a batch at every
//! tick, also without records, as long as any window still has some. Windows are exact across restarts: what they hold is
//! read from Kafka again, by the ranges in the ledger.

use std::{hash::Hash, sync::Arc, time::Duration};

use super::{DStream, Rdd, history::History};
use crate::error::{Error, Result};

/// A window's durations in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spans {
    pub(super) length_ms: i64,
    pub(super) slide_ms: i64,
}

impl Spans {
    /// Checks them against the parent's slide, when the window is defined.
    pub(super) fn of<T: Send + 'static>(parent: &DStream<T>, length: Duration, slide: Duration) -> Result<Self> {
        let ms = |what: &str, duration: Duration| match i64::try_from(duration.as_millis()) {
            Ok(ms) if ms > 0 && Duration::from_millis(ms.unsigned_abs()) == duration => Ok(ms),
            _ => {
                Err(Error::config(format!("a window's {what} must be whole milliseconds above 0 {what}={duration:?}")))
            }
        };
        let (length_ms, slide_ms) = (ms("length", length)?, ms("slide", slide)?);
        let every_ms = parent.every_ms();
        for (what, given) in [("window", length_ms), ("slide", slide_ms)] {
            if given % every_ms != 0 {
                return Err(Error::config(format!(
                    "the {what} duration of a windowed DStream ({given} ms) must be a multiple of the slide duration of its \
                     parent DStream ({every_ms} ms)"
                )));
            }
        }
        Ok(Self { length_ms, slide_ms })
    }
}

impl<T: Clone + Send + Sync + 'static> DStream<T> {
    /// Every `slide`, the elements of all batches of the last `length`. Both must be multiples of the batch interval, or of
    /// this stream's own slide. The first windows, which have fewer batches behind them, come too. Spark: `window`.
    ///
    /// The elements of the batches are kept in memory for as long as a window needs them: reduce before where you can, as
    /// [`reduce_by_key_and_window`](DStream::reduce_by_key_and_window) does.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn example(lines: directstream::transform::DStream<String>) -> directstream::Result<()> {
    /// let last_minute = lines.window(Duration::from_secs(60), Duration::from_secs(10))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if a duration is no such multiple.
    pub fn window(&self, length: Duration, slide: Duration) -> Result<Self> {
        let spans = Spans::of(self, length, slide)?;
        let history = History::of(self, spans.length_ms, spans.length_ms.saturating_add(spans.slide_ms));
        Ok(Self::sliding(self.graph(), "window", spans.slide_ms, move |scope| {
            let now = scope.batch().batch_time.as_ms();
            let batches = history.between(now.saturating_sub(spans.length_ms), now);
            Ok(Rdd::of_shared(scope, batches.into_iter().map(|batch| batch.partitions)))
        }))
    }

    /// Every `slide`, all elements of the last `length` combined; no element if there are none. Spark: `reduceByWindow`.
    ///
    /// # Errors
    /// As [`window`](Self::window).
    pub fn reduce_by_window(
        &self,
        combine: impl Fn(T, T) -> T + Send + Sync + 'static,
        length: Duration,
        slide: Duration,
    ) -> Result<Self> {
        let combine = Arc::new(combine);
        let of_batch = Arc::clone(&combine);
        Ok(self.reduce(move |a, b| of_batch(a, b)).window(length, slide)?.reduce(move |a, b| combine(a, b)))
    }

    /// Every `slide`, how many elements the last `length` has. Spark: `countByWindow`.
    ///
    /// # Errors
    /// As [`window`](Self::window).
    pub fn count_by_window(&self, length: Duration, slide: Duration) -> Result<DStream<u64>> {
        let windowed = self.filled_count().window(length, slide)?;
        Ok(windowed.transform(|rdd| {
            let total = rdd.reduce(|a, b| a + b)?.unwrap_or(0);
            Ok(Rdd::of_partitions(rdd.scope(), vec![vec![total]]))
        }))
    }

    /// How many elements a batch has; none for an empty batch, which a window then need not remember.
    fn filled_count(&self) -> DStream<u64> {
        self.derive("count", |rdd| {
            let count = rdd.count()?;
            let counted = if count == 0 { Vec::new() } else { vec![vec![count]] };
            Ok(Rdd::of_partitions(rdd.scope(), counted))
        })
    }

    /// Every `slide`, each different element of the last `length` with the number of times that it comes. Spark:
    /// `countByValueAndWindow`.
    ///
    /// # Errors
    /// As [`window`](Self::window).
    pub fn count_by_value_and_window(&self, length: Duration, slide: Duration) -> Result<DStream<(T, u64)>>
    where
        T: Hash + Eq,
    {
        let counts = self.map(|value| (value, 1_u64));
        counts.reduce_by_key_and_window_with_inverse(|a, b| a + b, |a, b| a.saturating_sub(b), length, slide)
    }
}

impl<K, V> DStream<(K, V)>
where
    K: Clone + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Every `slide`, one pair per key of the last `length`, its values combined: first within each batch, and only that is
    /// kept. Spark: `reduceByKeyAndWindow`.
    ///
    /// # Errors
    /// As [`window`](DStream::window).
    pub fn reduce_by_key_and_window(
        &self,
        combine: impl Fn(V, V) -> V + Send + Sync + 'static,
        length: Duration,
        slide: Duration,
    ) -> Result<Self> {
        let combine = Arc::new(combine);
        Ok(self.reduced_batches(&combine).window(length, slide)?.reduce_by_key(move |a, b| combine(a, b)))
    }

    /// Every `slide`, one pair per key of the last `length` with all its values: batch by batch, and within a batch as
    /// [`group_by_key`](DStream::group_by_key) has them. Spark: `groupByKeyAndWindow`.
    ///
    /// All values of the window are in memory. If only a sum, a maximum or the like is made of them,
    /// [`reduce_by_key_and_window`](DStream::reduce_by_key_and_window) needs far less of it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn example(clicks: directstream::transform::DStream<(String, String)>) -> directstream::Result<()> {
    /// let pages_of_each_user = clicks.group_by_key_and_window(Duration::from_secs(60), Duration::from_secs(10))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`window`](DStream::window).
    pub fn group_by_key_and_window(&self, length: Duration, slide: Duration) -> Result<DStream<(K, Vec<V>)>> {
        Ok(self.group_by_key().window(length, slide)?.reduce_by_key(|mut values, later| {
            values.extend(later);
            values
        }))
    }

    /// What a window keeps of each batch: one pair per key.
    pub(super) fn reduced_batches(&self, combine: &Arc<impl Fn(V, V) -> V + Send + Sync + 'static>) -> Self {
        let combine = Arc::clone(combine);
        self.reduce_by_key(move |a, b| combine(a, b))
    }
}
