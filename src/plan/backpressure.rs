//! Backpressure: how many records a second the job can take, learnt from how long its batches took.
//!
//! Spark's PID rate estimator, and the controller that keeps its last word. The rate is one of all partitions together;
//! [`rate_limits`](super::rate_limits) shares it out by lag. Nothing of it is stored: a restart begins with the initial
//! rate and learns anew, for the machine, the database and the program may be others by then.

use std::time::Duration;

use super::rate::{to_f64, whole};
use crate::{
    config::BackpressureConfig,
    error::{Error, Result},
};

/// What a completed batch tells about the job's speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSpeed {
    /// When its commit was answered, in monotonic time.
    pub ended: Duration,
    /// The records that it read.
    pub records: u64,
    /// How long its own work took: reading, transforming, side effects and commit.
    pub processing_delay: Duration,
    /// How long it waited: for its start, and for the batch before it to commit.
    pub scheduling_delay: Duration,
}

/// Finds a rate at which batches take as long as their interval: Spark's `PIDRateEstimator`.
///
/// ```text
/// processing rate = records / processing delay
/// error           = last rate - processing rate                         what was asked too much
/// history         = scheduling delay * processing rate / interval       records that wait, per interval
/// change          = (error - last error) / time since the last batch
/// rate            = last rate - proportional * error - integral * history - derived * change, at least min rate
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PidRateEstimator {
    interval_seconds: f64,
    proportional: f64,
    integral: f64,
    derived: f64,
    min_rate: f64,
    last: Option<Estimate>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Estimate {
    at: Duration,
    rate: f64,
    error: f64,
}

impl PidRateEstimator {
    /// An estimator that has seen no batch. `gains` are the weights of the error, of its history and of its change; none is
    /// negative. `min_rate` is in records a second.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the interval is zero, a gain is negative or no number, or the
    /// minimum is not above zero.
    pub fn new(batch_interval: Duration, gains: [f64; 3], min_rate: f64) -> Result<Self> {
        let [proportional, integral, derived] = gains;
        let refuse = |text: String| Err(Error::config(format!("the rate estimator cannot work with {text}")));
        if batch_interval.is_zero() {
            return refuse("a batch interval of zero".to_owned());
        }
        let names = ["proportional", "integral", "derived"];
        if let Some((name, gain)) = names.iter().zip(gains).find(|(_, gain)| !(gain.is_finite() && *gain >= 0.0)) {
            return refuse(format!("a gain that is not a number from zero {name}={gain}"));
        }
        if !(min_rate.is_finite() && min_rate > 0.0) {
            return refuse(format!("a minimum rate that is not above zero min_rate={min_rate}"));
        }
        let interval_seconds = batch_interval.as_secs_f64();
        Ok(Self { interval_seconds, proportional, integral, derived, min_rate, last: None })
    }

    /// The rate after this batch, in records a second.
    ///
    /// The first batch gives none: it only says where to begin. Nor does a batch without records, one that took no time, or
    /// one that ended no later than the last: such a batch says nothing about speed, and is forgotten.
    pub fn compute(&mut self, batch: &BatchSpeed) -> Option<f64> {
        let later = self.last.is_none_or(|last| batch.ended > last.at);
        if !later || batch.records == 0 || batch.processing_delay.is_zero() {
            return None;
        }
        let processing_rate = to_f64(batch.records) / batch.processing_delay.as_secs_f64();
        let Some(last) = self.last else {
            self.last = Some(Estimate { at: batch.ended, rate: processing_rate, error: 0.0 });
            return None;
        };
        let error = last.rate - processing_rate;
        let history = batch.scheduling_delay.as_secs_f64() * processing_rate / self.interval_seconds;
        let change = (error - last.error) / batch.ended.saturating_sub(last.at).as_secs_f64();
        let rate = last.rate - self.proportional * error - self.integral * history - self.derived * change;
        // Also where absurd gains made it no number: the minimum is one.
        let rate = rate.max(self.min_rate);
        self.last = Some(Estimate { at: batch.ended, rate, error });
        Some(rate)
    }
}

/// The total rate of a job under backpressure: the initial one, and then what the estimator found last. Spark's
/// `RateController`.
#[derive(Debug, Clone, PartialEq)]
pub struct RateController {
    initial_rate: Option<u64>,
    estimator: PidRateEstimator,
    latest_rate: Option<u64>,
}

impl RateController {
    /// A controller that has seen no batch; `None` where backpressure is off.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) as of [`PidRateEstimator::new`].
    pub fn new(backpressure: &BackpressureConfig, batch_interval: Duration) -> Result<Option<Self>> {
        if !backpressure.enabled {
            return Ok(None);
        }
        let BackpressureConfig { proportional, integral, derived, min_rate, .. } = *backpressure;
        let estimator = PidRateEstimator::new(batch_interval, [proportional, integral, derived], to_f64(min_rate))?;
        Ok(Some(Self { initial_rate: backpressure.initial_rate, estimator, latest_rate: None }))
    }

    /// The limit for the next batch in records a second, over all partitions. `None` is no limit: no batch was measured yet,
    /// and no initial rate is set.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.latest_rate.or(self.initial_rate)
    }

    /// Learns from a batch that was committed. Gives the rate if there is a new one, cut to a whole number.
    pub fn on_batch_completed(&mut self, batch: &BatchSpeed) -> Option<u64> {
        let rate = whole(self.estimator.compute(batch)?);
        self.latest_rate = Some(rate);
        Some(rate)
    }
}

#[cfg(test)]
#[path = "backpressure_tests.rs"]
mod tests;
