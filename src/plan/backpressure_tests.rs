//! Spark's own cases of its rate estimator, by their numbers, and what holds beyond them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    ErrorKind,
    plan::{Rates, rate_limits},
    types::TopicPartition,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// For batches of 20 ms, as in Spark's own tests.
fn estimator(proportional: f64, integral: f64, derived: f64, min_rate: f64) -> PidRateEstimator {
    PidRateEstimator::new(ms(20), [proportional, integral, derived], min_rate).unwrap()
}

fn speed(ended_ms: u64, records: u64, processing_ms: u64, scheduling_ms: u64) -> BatchSpeed {
    BatchSpeed {
        ended: ms(ended_ms),
        records,
        processing_delay: ms(processing_ms),
        scheduling_delay: ms(scheduling_ms),
    }
}

/// Whether two rates are the same but for rounding.
fn same(rate: Option<f64>, expected: f64) -> bool {
    rate.is_some_and(|rate| (rate - expected).abs() <= expected * 1e-9)
}

fn on(change: impl FnOnce(&mut BackpressureConfig)) -> BackpressureConfig {
    let mut backpressure = BackpressureConfig { enabled: true, ..BackpressureConfig::default() };
    change(&mut backpressure);
    backpressure
}

fn controller(backpressure: &BackpressureConfig) -> RateController {
    RateController::new(backpressure, ms(1_000)).unwrap().unwrap()
}

#[test]
fn sc_17_the_estimator_refuses_what_it_cannot_work_with() {
    let refused = |interval, gains, min_rate| {
        let error = PidRateEstimator::new(ms(interval), gains, min_rate).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    };
    // Spark's -10 ms is no duration at all.
    assert!(refused(0, [0.0; 3], 10.0).contains("interval of zero"));
    assert!(refused(100, [-1.0, 0.0, 0.0], 10.0).contains("proportional=-1"));
    assert!(refused(100, [0.0, -1.0, 0.0], 10.0).contains("integral=-1"));
    assert!(refused(100, [0.0, 0.0, -1.0], 10.0).contains("derived=-1"));
    assert!(refused(100, [f64::NAN, 0.0, 0.0], 10.0).contains("proportional=NaN"));
    assert!(refused(100, [0.0, f64::INFINITY, 0.0], 10.0).contains("integral=inf"));
    assert!(refused(100, [0.0; 3], 0.0).contains("min_rate=0"));
    assert!(refused(100, [0.0; 3], -10.0).contains("min_rate=-10"));
    assert!(refused(100, [0.0; 3], f64::NAN).contains("min_rate=NaN"));
    PidRateEstimator::new(ms(100), [0.0; 3], 10.0).unwrap();
}

#[test]
fn sc_17_the_defaults_are_sparks() {
    let backpressure = BackpressureConfig::default();
    let BackpressureConfig { enabled, initial_rate, proportional, integral, derived, min_rate } = backpressure;
    assert_eq!((enabled, initial_rate), (false, None));
    assert_eq!((proportional, integral, derived, min_rate), (1.0, 0.2, 0.0, 100));
    assert_eq!(RateController::new(&BackpressureConfig::default(), ms(1_000)).unwrap(), None);
    let wrong = RateController::new(&on(|backpressure| backpressure.integral = -0.2), ms(1_000)).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Config);
    RateController::new(&BackpressureConfig { integral: -0.2, ..BackpressureConfig::default() }, ms(1_000)).unwrap();
}

#[test]
fn sc_18_the_first_batch_gives_no_rate_and_the_second_one_does() {
    let mut estimator = estimator(1.0, 0.0, 0.0, 10.0);
    assert_eq!(estimator.compute(&speed(0, 10, 10, 0)), None);
    assert!(same(estimator.compute(&speed(10, 10, 10, 0)), 1_000.0));
}

#[test]
fn sc_19_no_rate_without_time_between_two_batches() {
    let mut estimator = estimator(1.0, 0.0, 0.0, 10.0);
    assert_eq!(estimator.compute(&speed(5, 10, 10, 0)), None);
    assert_eq!(estimator.compute(&speed(5, 10, 10, 0)), None);
    assert_eq!(estimator.compute(&speed(4, 10, 10, 0)), None);
    assert!(same(estimator.compute(&speed(6, 10, 10, 0)), 1_000.0));
}

#[test]
fn sc_19_no_rate_without_records_or_without_a_processing_delay() {
    let mut estimator = estimator(1.0, 0.0, 0.0, 10.0);
    assert_eq!(estimator.compute(&speed(0, 10, 10, 0)), None);
    // Spark's counts and delays below zero cannot be said here.
    assert_eq!(estimator.compute(&speed(10, 0, 10, 0)), None);
    assert_eq!(estimator.compute(&speed(10, 10, 0, 0)), None);
    // Such a batch left nothing behind: the same time counts as later than the last one that was measured.
    assert!(same(estimator.compute(&speed(10, 10, 10, 0)), 1_000.0));
}

#[test]
fn sc_20_the_rate_is_never_below_the_minimum() {
    let mut estimator = estimator(1.0, 1.0, 0.0, 5.0);
    let rates: Vec<_> = (0..50).map(|i| estimator.compute(&speed(i * 20, 1, 20, 100))).collect();
    assert_eq!(rates[0], None);
    assert_eq!(rates[1..], [Some(5.0); 49]);
}

#[test]
fn sc_21_without_error_or_wait_the_rate_is_the_speed_rising_or_falling() {
    let mut rising = estimator(1.0, 1.0, 0.0, 10.0);
    let mut falling = estimator(1.0, 1.0, 0.0, 10.0);
    for i in 0..50 {
        let rate = rising.compute(&speed(i * 20, (i + 1) * 20, 20, 0));
        assert!(if i == 0 { rate.is_none() } else { same(rate, to_f64((i + 1) * 1_000)) }, "{i}: {rate:?}");
        let rate = falling.compute(&speed(i * 20, (50 - i) * 20, 20, 0));
        assert!(if i == 0 { rate.is_none() } else { same(rate, to_f64((50 - i) * 1_000)) }, "{i}: {rate:?}");
    }
}

proptest! {
    #[test]
    fn sc_22_whoever_waits_is_given_less_than_its_speed(
        batches in proptest::collection::vec((1_u64..5_000, 1_u64..5_000), 1..60),
    ) {
        let mut estimator = estimator(1.0, 0.01, 0.0, 10.0);
        for (i, (records, scheduling_ms)) in (0..).zip(batches) {
            // At least ten records a second, so that the minimum does not lift the rate.
            if let Some(rate) = estimator.compute(&speed(i * 20, records, 20, scheduling_ms)) {
                prop_assert!(rate < to_f64(records) / 0.02, "{rate}");
            }
        }
    }

    #[test]
    fn whatever_is_measured_the_rate_is_a_number_from_the_minimum_on(
        gains: [f64; 3],
        min_rate in 1_u64..10_000,
        batches in proptest::collection::vec((0..u64::MAX / 2, 0..u64::MAX, 0..u64::MAX, 0..u64::MAX), 0..20),
    ) {
        let gains = gains.map(|gain| if gain.is_finite() { gain.abs() } else { 0.0 });
        let mut estimator = PidRateEstimator::new(ms(20), gains, to_f64(min_rate)).unwrap();
        for (ended, records, processing, scheduling) in batches {
            let (processing_delay, scheduling_delay) = (Duration::from_nanos(processing), ms(scheduling));
            let batch = BatchSpeed { ended: Duration::from_nanos(ended), records, processing_delay, scheduling_delay };
            if let Some(rate) = estimator.compute(&batch) {
                prop_assert!(rate >= to_f64(min_rate), "{rate}");
            }
        }
    }
}

#[test]
fn sc_26_before_the_first_estimate_the_initial_rate_holds_and_rates_are_cut_to_whole_numbers() {
    let mut controller = controller(&on(|backpressure| backpressure.initial_rate = Some(500)));
    assert_eq!(controller.rate(), Some(500));
    assert_eq!(controller.on_batch_completed(&speed(1_000, 500, 300, 0)), None);
    assert_eq!(controller.rate(), Some(500));
    // 500 records in 300 ms are 1,666.67 a second.
    assert_eq!(controller.on_batch_completed(&speed(2_000, 500, 300, 0)), Some(1_666));
    assert_eq!(controller.rate(), Some(1_666));
    // A batch that says nothing changes nothing.
    assert_eq!(controller.on_batch_completed(&speed(3_000, 0, 300, 0)), None);
    assert_eq!(controller.rate(), Some(1_666));
}

#[test]
fn dk_50_without_an_initial_rate_nothing_is_limited_until_two_batches_were_measured() {
    let mut controller = controller(&on(|_| {}));
    assert_eq!(controller.rate(), None);
    controller.on_batch_completed(&speed(1_000, 100, 1_000, 0));
    assert_eq!(controller.rate(), None);
    controller.on_batch_completed(&speed(2_000, 200, 1_000, 0));
    assert_eq!(controller.rate(), Some(200));
}

fn limits_of(lags: &[u64], max_rate: Option<f64>, total_rate: Option<u64>, interval_ms: u64) -> Vec<u64> {
    let partitions = (0..).map(|partition| TopicPartition::new("t", partition));
    let lags: BTreeMap<_, _> = partitions.zip(lags.iter().copied()).collect();
    let total_rate = total_rate.map(to_f64);
    let rates = Rates { max_rate_per_partition: max_rate, total_rate, ..Rates::default() };
    rate_limits(&lags, &rates, ms(interval_ms)).into_values().collect()
}

#[test]
fn dk_55_the_first_batch_keeps_to_the_initial_rate_under_the_partitions_own_maximum() {
    for (max_rate, initial_rate, expected) in [(1_000.0, 500, 250), (300.0, 1_000, 150)] {
        let controller = controller(&on(|backpressure| backpressure.initial_rate = Some(initial_rate)));
        assert_eq!(limits_of(&[1_000], Some(max_rate), controller.rate(), 500), [expected]);
    }
}

#[test]
fn dk_56_sc_27_each_rate_that_is_published_limits_the_next_batch() {
    let backpressure = on(|backpressure| (backpressure.initial_rate, backpressure.min_rate) = (Some(100), 1));
    let mut controller = RateController::new(&backpressure, ms(500)).unwrap().unwrap();
    let mut planned = Vec::new();
    // What each batch was able to do in a second: the rate follows it, one batch later.
    for (i, rate) in (1..).zip([100_u64, 100, 50, 20]) {
        planned.extend(limits_of(&[5_000], Some(100.0), controller.rate(), 500));
        controller.on_batch_completed(&speed(i * 500, rate, 1_000, 0));
    }
    planned.extend(limits_of(&[5_000], Some(100.0), controller.rate(), 500));
    assert_eq!(planned, [50, 50, 50, 25, 10]);
}

#[test]
fn sc_28_the_minimum_is_of_the_whole_stream_and_is_then_shared_out() {
    let mut controller = controller(&on(|_| {}));
    for i in 1..=2 {
        controller.on_batch_completed(&speed(i * 60_000, 1, 60_000, 0));
    }
    assert_eq!(controller.rate(), Some(100));
    // Half a record for each of 200 partitions is cut to none, and raised to one.
    assert_eq!(limits_of(&[1_000; 200], None, controller.rate(), 1_000), [1; 200]);
}

/// Spark's formula over a job that takes a fixed time for each batch and each record: batches come to fit their interval
/// whatever the rate was before, and no queue stays behind.
#[test]
fn a_job_that_takes_longer_than_its_interval_is_slowed_down_until_it_does_not() {
    for (initial_rate, per_record_us, per_batch_ms) in [(100_000, 500, 50), (200, 500, 50), (1_000_000, 100, 300)] {
        let mut controller = controller(&on(|backpressure| backpressure.initial_rate = Some(initial_rate)));
        let (mut now, mut waited, mut processing) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for _ in 0..60 {
            let records = controller.rate().unwrap();
            processing = ms(per_batch_ms) + Duration::from_micros(per_record_us) * u32::try_from(records).unwrap();
            now += processing.max(ms(1_000).saturating_sub(waited));
            let batch = BatchSpeed { ended: now, records, processing_delay: processing, scheduling_delay: waited };
            controller.on_batch_completed(&batch);
            // The next one begins late by what this one took too long, within its own tick.
            waited = Duration::from_nanos(u64::try_from(now.as_nanos() % 1_000_000_000).unwrap());
        }
        let rate = controller.rate().unwrap();
        let most = 1_000_000 / per_record_us;
        assert!(processing <= ms(1_100), "{processing:?} at {rate}");
        assert!(rate > most * 3 / 10 && rate <= most, "{rate} of {most}");
    }
}
