//! Windows that go on from the one before: what comes in is added, what leaves is taken off.

use std::{
    collections::VecDeque,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{
    BatchScope, DStream, Rdd,
    history::{History, Remembered},
    window::Spans,
};
use crate::error::{Error, Result};

/// Windows that are kept to go on from: the last one, and the one before while that one may still be run again.
const KEPT: usize = 2;

/// A key's values in the window, combined, and how many batches have some: at none the key is out of the window. A value is taken
/// out and put back while it is combined; it is missing only after a panic in between, and then the whole map is thrown away.
type Totals<K, V> = HashMap<K, (Option<V>, u32), FixedState>;

struct Sliding<K, V, F, I> {
    history: Arc<History<(K, V)>>,
    spans: Spans,
    combine: F,
    inverse: I,
    windows: Mutex<VecDeque<Window<K, V>>>,
}

struct Window<K, V> {
    batch_seq: u64,
    time_ms: i64,
    totals: Arc<Totals<K, V>>,
}

impl<K, V, F, I> Sliding<K, V, F, I>
where
    K: Clone + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    F: Fn(V, V) -> V,
    I: Fn(V, V) -> V,
{
    fn at(&self, scope: &BatchScope) -> Result<Arc<Totals<K, V>>> {
        let (batch_seq, now) = (scope.batch().batch_seq, scope.batch().batch_time.as_ms());
        let Spans { length_ms, slide_ms } = self.spans;
        let (before, from) = (now.saturating_sub(slide_ms), now.saturating_sub(length_ms));
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        // This batch is run again, or what was run ahead of it was not committed.
        windows.retain(|window| window.batch_seq < batch_seq);
        let last = windows.iter().find(|window| window.time_ms == before).map(|window| Arc::clone(&window.totals));
        // Without one, as after a restart and after a pause, from all that the window holds. That gives the same.
        let (mut totals, after) = match last {
            Some(last) => {
                let mut totals = Totals::clone(&last);
                self.leave(&mut totals, &self.history.between(before.saturating_sub(length_ms), from.min(before)))?;
                (totals, before.max(from))
            }
            None => (Totals::with_hasher(FixedState::with_seed(0)), from),
        };
        self.enter(&mut totals, &self.history.between(after, now));
        let totals = Arc::new(totals);
        windows.push_back(Window { batch_seq, time_ms: now, totals: Arc::clone(&totals) });
        while windows.len() > KEPT {
            windows.pop_front();
        }
        Ok(totals)
    }

    fn enter(&self, totals: &mut Totals<K, V>, batches: &[Remembered<(K, V)>]) {
        for (key, value) in batches.iter().flat_map(|batch| batch.partitions.iter().flatten()) {
            let value = value.clone();
            if let Some((total, times)) = totals.get_mut(key) {
                *total = total.take().map(|total| (self.combine)(total, value));
                *times += 1;
            } else {
                totals.insert(key.clone(), (Some(value), 1));
            }
        }
    }

    fn leave(&self, totals: &mut Totals<K, V>, batches: &[Remembered<(K, V)>]) -> Result<()> {
        for (key, value) in batches.iter().flat_map(|batch| batch.partitions.iter().flatten()) {
            match totals.get_mut(key) {
                Some((_, 1)) => _ = totals.remove(key),
                Some((total, times)) => {
                    *total = total.take().map(|total| (self.inverse)(total, value.clone()));
                    *times -= 1;
                }
                None => return Err(Error::internal("a key leaves a window that it is not in")),
            }
        }
        Ok(())
    }
}

impl<K, V> DStream<(K, V)>
where
    K: Clone + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// [`reduce_by_key_and_window`](Self::reduce_by_key_and_window) for functions that can be undone: each window is made from
    /// the one before by what comes in and what leaves, and not added up from all its batches.
    /// `inverse(combine(a, b), b)` must be `a`; with floating point numbers it is not quite.
    ///
    /// A key leaves with its last batch, so the result is that of the form without `inverse`, and no filter is needed to get
    /// rid of zeros as in Spark, where such keys stay. Spark: `reduceByKeyAndWindow` with `invReduceFunc`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn example(words: directstream::transform::DStream<(String, i64)>) -> directstream::Result<()> {
    /// let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
    /// let counts = words.reduce_by_key_and_window_with_inverse(|a, b| a + b, |a, b| a - b, hour, minute)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`window`](DStream::window).
    pub fn reduce_by_key_and_window_with_inverse(
        &self,
        combine: impl Fn(V, V) -> V + Send + Sync + 'static,
        inverse: impl Fn(V, V) -> V + Send + Sync + 'static,
        length: Duration,
        slide: Duration,
    ) -> Result<Self> {
        let combine = Arc::new(combine);
        let reduced = self.reduced_batches(&combine);
        let spans = Spans::of(&reduced, length, slide)?;
        let both = spans.length_ms.saturating_add(spans.slide_ms);
        let sliding = Sliding {
            history: History::of(&reduced, both, both),
            spans,
            combine: move |a, b| combine(a, b),
            inverse,
            windows: Mutex::default(),
        };
        Ok(Self::sliding(self.graph(), "reduce_by_key_and_window", spans.slide_ms, move |scope| {
            let totals = sliding.at(scope)?;
            let pairs = totals.iter().filter_map(|(key, (value, _))| Some((key.clone(), value.clone()?))).collect();
            Ok(Rdd::of_partitions(scope, vec![pairs]))
        }))
    }
}
