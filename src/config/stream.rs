//! `[stream]` and `[input]`: how batches are cut, and how records are understood.

use std::time::Duration;

use super::{
    job::{BackpressureConfig, InputConfig, InputFormat, OnError, StreamConfig},
    read::{Found, Section},
    values::{format_duration, format_size, parse_duration, parse_size},
};

/// Shorter intervals would do little but commit.
const BATCH_INTERVAL_MIN: Duration = Duration::from_millis(10);
const BATCH_INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Below this the client's own buffers alone go over the budget.
const MEMORY_MIN: u64 = 1 << 20;

pub(super) fn read(section: &Section<'_>) -> Option<StreamConfig> {
    let defaults = StreamConfig::default();
    let batch_interval =
        duration(section, "batch_interval", defaults.batch_interval, BATCH_INTERVAL_MIN..=BATCH_INTERVAL_MAX);
    let max_rate = optional(section.find("max_rate_per_partition"), Found::count);
    let min_rate =
        section.find("min_rate_per_partition").map_or(Some(defaults.min_rate_per_partition), |found| found.count());
    let memory_max = section.find("memory_max").map_or(Some(defaults.memory_max), |found| {
        found.parse(|text| {
            let bytes = parse_size(text)?;
            if bytes < MEMORY_MIN { Err(format!("must be at least {}", format_size(MEMORY_MIN))) } else { Ok(bytes) }
        })
    });
    let backpressure = backpressure(&section.section("backpressure"));
    let any = Duration::from_millis(1)..=Duration::MAX;
    let start_timeout = duration(section, "start_timeout", defaults.start_timeout, any.clone());
    let unavailable_max = duration(section, "unavailable_max", defaults.unavailable_max, any.clone());
    let batch_deadline = duration(section, "batch_deadline", defaults.batch_deadline, any.clone());
    let max_failures = section.find("max_failures").map_or(Some(defaults.max_failures), |found| found.count());
    let failures_validity_interval =
        duration(section, "failures_validity_interval", defaults.failures_validity_interval, any);
    Some(StreamConfig {
        batch_interval: batch_interval?,
        max_rate_per_partition: max_rate?,
        min_rate_per_partition: min_rate?,
        memory_max: memory_max?,
        backpressure: backpressure?,
        start_timeout: start_timeout?,
        unavailable_max: unavailable_max?,
        batch_deadline: batch_deadline?,
        max_failures: max_failures?,
        failures_validity_interval: failures_validity_interval?,
    })
}

/// A value that may be absent: the outer `None` is a fault, the inner one is absence.
#[expect(clippy::option_option, reason = "a fault is not an absence")]
fn optional<'a, T>(found: Option<Found<'a>>, read: impl FnOnce(&Found<'a>) -> Option<T>) -> Option<Option<T>> {
    found.map_or(Some(None), |found| read(&found).map(Some))
}

pub(super) fn duration(
    section: &Section<'_>,
    key: &str,
    default: Duration,
    range: std::ops::RangeInclusive<Duration>,
) -> Option<Duration> {
    section.find(key).map_or(Some(default), |found| {
        found.parse(|text| {
            let duration = parse_duration(text)?;
            if range.contains(&duration) {
                return Ok(duration);
            }
            let (min, max) = (format_duration(*range.start()), format_duration(*range.end()));
            if *range.end() == Duration::MAX {
                Err(format!("must be at least {min}"))
            } else {
                Err(format!("must be between {min} and {max}"))
            }
        })
    })
}

fn backpressure(section: &Section<'_>) -> Option<BackpressureConfig> {
    let defaults = BackpressureConfig::default();
    let enabled = section.find("enabled").map_or(Some(defaults.enabled), |found| found.boolean());
    let initial_rate = optional(section.find("initial_rate"), Found::count);
    let gain = |key, default| section.find(key).map_or(Some(default), |found| found.number_from_zero());
    let proportional = gain("proportional", defaults.proportional);
    let integral = gain("integral", defaults.integral);
    let derived = gain("derived", defaults.derived);
    let min_rate = section.find("min_rate").map_or(Some(defaults.min_rate), |found| found.count());
    Some(BackpressureConfig {
        enabled: enabled?,
        initial_rate: initial_rate?,
        proportional: proportional?,
        integral: integral?,
        derived: derived?,
        min_rate: min_rate?,
    })
}

pub(super) fn read_input(section: &Section<'_>) -> Option<InputConfig> {
    let format = section.find("format").map_or(Some(InputFormat::default()), |found| {
        found
            .one_of(&[InputFormat::Json, InputFormat::Text, InputFormat::Bytes].map(|format| (format.as_str(), format)))
    });
    let on_error = section.find("on_error").map_or(Some(OnError::default()), |found| {
        found.one_of(&[OnError::Fail, OnError::DeadLetter].map(|choice| (choice.as_str(), choice)))
    });
    Some(InputConfig { format: format?, on_error: on_error? })
}
