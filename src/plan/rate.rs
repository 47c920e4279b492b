//! Rates: how many offsets a partition may give one batch.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::types::TopicPartition;

/// The rates that limit a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// The most offsets a second of one partition.
    pub max_rate_per_partition: Option<f64>,
    /// The same for single partitions, instead of the common one.
    pub max_rate_of: HashMap<TopicPartition, f64>,
    /// What a limit leaves of one partition, in records per batch. It may go above the maximum.
    pub min_rate_per_partition: u64,
    /// The most records a second of all partitions together, shared out by lag: what backpressure finds.
    pub total_rate: Option<f64>,
}

impl Default for Rates {
    fn default() -> Self {
        Self { max_rate_per_partition: None, max_rate_of: HashMap::new(), min_rate_per_partition: 1, total_rate: None }
    }
}

impl Rates {
    fn max_rate(&self, topic_partition: &TopicPartition) -> Option<f64> {
        let rate = self.max_rate_of.get(topic_partition).copied().or(self.max_rate_per_partition);
        rate.filter(|rate| *rate > 0.0)
    }
}

/// How many offsets each partition may give a batch of this length; a partition that is not in it has no limit.
///
/// Spark's formula: a total rate is shared out by lag and capped by the partition's own maximum; without one the maximum
/// stands alone. Both are cut to whole offsets, and raised to the minimum.
#[must_use]
pub fn rate_limits(
    lags: &BTreeMap<TopicPartition, u64>,
    rates: &Rates,
    batch_interval: Duration,
) -> BTreeMap<TopicPartition, u64> {
    let total_lag: u64 = lags.values().copied().fold(0, u64::saturating_add);
    let total_rate = rates.total_rate.filter(|rate| *rate > 0.0);
    if total_rate.is_some() && total_lag == 0 {
        return BTreeMap::new();
    }
    let rate_of = |topic_partition: &TopicPartition, lag: u64| {
        let max_rate = rates.max_rate(topic_partition);
        let Some(total_rate) = total_rate else { return max_rate };
        let share = to_f64(lag) / to_f64(total_lag) * total_rate;
        Some(max_rate.map_or(share, |max_rate| share.min(max_rate)))
    };
    let limit = |rate: f64| whole(batch_interval.as_secs_f64() * rate).max(rates.min_rate_per_partition);
    lags.iter().filter_map(|(tp, lag)| rate_of(tp, *lag).map(|rate| (tp.clone(), limit(rate)))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "offsets above 2^53 only weigh")]
pub(super) fn to_f64(count: u64) -> f64 {
    count as f64
}

/// Cuts to a whole number; what does not fit becomes the nearest that does.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, which is what is meant"
)]
pub(super) fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(lags: &[u64], rates: &Rates, ms: u64) -> Option<Vec<u64>> {
        let lags: BTreeMap<_, _> = lags
            .iter()
            .enumerate()
            .map(|(p, lag)| (TopicPartition::new("t", i32::try_from(p).unwrap()), *lag))
            .collect();
        let limits = rate_limits(&lags, rates, Duration::from_millis(ms));
        (!limits.is_empty()).then(|| limits.into_values().collect())
    }

    fn max(rate: f64) -> Rates {
        Rates { max_rate_per_partition: Some(rate), ..Rates::default() }
    }

    fn max_and_total(max_rate: f64, total_rate: f64) -> Rates {
        Rates { total_rate: Some(total_rate), ..max(max_rate) }
    }

    fn total(rate: f64) -> Rates {
        Rates { total_rate: Some(rate), ..Rates::default() }
    }

    #[test]
    fn dk_50_without_rates_nothing_is_limited() {
        assert_eq!(Rates::default().min_rate_per_partition, 1);
        assert_eq!(limits(&[50, 50], &Rates::default(), 100), None);
    }

    #[test]
    fn dk_49_a_rate_of_zero_is_no_rate() {
        assert_eq!(limits(&[50, 50], &max_and_total(0.0, 0.0), 100), None);
        assert_eq!(limits(&[50, 50], &max_and_total(100.0, 0.0), 100), Some(vec![10, 10]));
    }

    #[test]
    fn dk_51_the_maximum_stands_alone_without_backpressure() {
        assert_eq!(limits(&[50, 50], &max(100.0), 100), Some(vec![10, 10]));
    }

    #[test]
    fn dk_52_no_lag_gives_no_limits() {
        assert_eq!(limits(&[0, 0], &max_and_total(1000.0, 100.0), 100), None);
        assert_eq!(limits(&[0, 0], &total(100.0), 100), None);
    }

    #[test]
    fn dk_53_a_maximum_of_its_own_caps_the_share() {
        let own = [(TopicPartition::new("t", 0), 50.0), (TopicPartition::new("t", 1), 100.0)];
        let rates = Rates { max_rate_of: own.into(), total_rate: Some(1000.0), ..Rates::default() };
        assert_eq!(limits(&[1000, 1000], &rates, 100), Some(vec![5, 10]));
    }

    #[test]
    fn dk_55_the_initial_rate_is_a_total_rate_under_the_same_maximum() {
        assert_eq!(limits(&[1000], &max_and_total(1000.0, 500.0), 500), Some(vec![250]));
        assert_eq!(limits(&[1000], &max_and_total(300.0, 1000.0), 500), Some(vec![150]));
    }

    #[test]
    fn dk_56_live_rates_are_followed() {
        for (rate, expected) in [(100.0, 50), (50.0, 25), (20.0, 10)] {
            assert_eq!(limits(&[5000], &max_and_total(100.0, rate), 500), Some(vec![expected]));
        }
    }

    #[test]
    fn dk_59_shares_are_cut_to_whole_offsets_and_the_minimum_saves_the_tiny() {
        assert_eq!(limits(&[7, 3], &total(5.0), 1000), Some(vec![3, 1]));
        assert_eq!(limits(&[1000, 1], &total(100.0), 100), Some(vec![9, 1]));
    }

    #[test]
    fn dk_61_a_tiny_maximum_is_raised_to_the_minimum() {
        assert_eq!(limits(&[100], &max(3.0), 100), Some(vec![1]));
        let rates = Rates { min_rate_per_partition: 20, ..max(3.0) };
        assert_eq!(limits(&[100], &rates, 100), Some(vec![20]));
    }

    #[test]
    fn a_partition_without_a_maximum_stays_unlimited_beside_one_that_has_one() {
        // Spark would give it the minimum: a sum above zero limits all of them there.
        let own = [(TopicPartition::new("t", 0), 50.0)];
        let rates = Rates { max_rate_of: own.into(), ..Rates::default() };
        assert_eq!(limits(&[1000, 1000], &rates, 1000), Some(vec![50]));
    }

    #[test]
    fn absurd_rates_do_not_overflow() {
        assert_eq!(limits(&[u64::MAX, u64::MAX], &max(f64::MAX), 60_000), Some(vec![u64::MAX, u64::MAX]));
        assert_eq!(limits(&[10], &max(f64::NAN), 1000), None);
    }
}
