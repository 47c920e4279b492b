//! Where each partition stands, and its series: rendered from this state at each scrape, so that those of a vanished
//! partition vanish too.

use std::time::Duration;

use super::{
    metrics::{
        Family, LAG, LAG_SECONDS, PARTITION_COMMITTED, PARTITION_EARLIEST, PARTITION_LAG, PARTITION_LAG_SECONDS,
        PARTITION_LATEST, PARTITION_TIME_TO_LOSS, PARTITIONS, TOPIC_LAG, TOPIC_LAG_SECONDS, TOPIC_PARTITIONS,
        TOPIC_TIME_TO_LOSS,
    },
    trail::Trail,
};
use crate::types::{Offset, OffsetRange, TopicPartition};

/// Up to so many partitions have series of their own, and ages; above, there are sums per topic only. The same bound holds
/// for topics. Six series each of 2,000 partitions are about 900 kB a scrape.
pub const PARTITION_SERIES_MAX: usize = 2_000;

/// Where a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionPosition {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The committed offset; `None` before the first commit.
    pub committed: Option<Offset>,
    /// The latest offset as Kafka last said.
    pub latest: Option<Offset>,
    /// The earliest offset as Kafka last said.
    pub earliest: Option<Offset>,
}

impl PartitionPosition {
    /// Latest minus committed offset; `None` unless both are known.
    #[must_use]
    pub fn lag(&self) -> Option<u64> {
        Some(self.committed?.offsets_until(self.latest?))
    }
}

/// A partition, and what is remembered of it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) position: PartitionPosition,
    trail: Trail,
}

impl Place {
    /// How old the oldest record is that is not committed; 0 if there is none. `None` unless both offsets are known.
    pub(super) fn age(&self, now_ms: i64) -> Option<Duration> {
        match (self.position.lag()?, self.position.committed) {
            (1.., Some(committed)) => Some(self.trail.age(now_ms, committed)),
            _ => Some(Duration::ZERO),
        }
    }

    /// When retention reaches the committed offset; `None` if nothing lies between it and the latest one, or nobody knows.
    fn time_to_loss(&self, now_ms: i64) -> Option<Duration> {
        let waits = self.position.lag().is_some_and(|lag| lag > 0);
        self.trail.time_to_loss(now_ms, self.position.committed.filter(|_| waits)?)
    }

    pub(super) fn topic(&self) -> &str {
        &self.position.topic_partition.topic
    }
}

/// All partitions of the job, in the order of topic and partition.
#[derive(Debug, Default)]
pub(super) struct Positions {
    sorted: Vec<Place>,
    /// When the last batch of the process before this one was committed, in milliseconds of monotonic time; until positions
    /// are told for the first time.
    resumed_ms: Option<i64>,
}

impl Positions {
    /// The process before this one committed its last batch then.
    pub(super) fn resumed(&mut self, at_ms: i64) {
        self.resumed_ms = Some(at_ms);
    }

    pub(super) fn replace(&mut self, mut positions: Vec<PartitionPosition>, now_ms: i64) {
        positions.sort_by(|a, b| a.topic_partition.cmp(&b.topic_partition));
        let mut before = std::mem::take(&mut self.sorted);
        let resumed_ms = self.resumed_ms.take();
        let has_ages = positions.len() <= PARTITION_SERIES_MAX;
        let mut place = |position: PartitionPosition| {
            let known = before.binary_search_by(|place| place.position.topic_partition.cmp(&position.topic_partition));
            let known = known.ok().and_then(|index| before.get_mut(index));
            let mut trail = match (known, resumed_ms) {
                (Some(place), _) => std::mem::take(&mut place.trail),
                (None, Some(at_ms)) => Trail::resumed(at_ms, position.committed),
                (None, None) => Trail::default(),
            };
            if has_ages {
                trail.note(now_ms, &position);
            } else {
                trail = Trail::default();
            }
            Place { position, trail }
        };
        self.sorted = positions.into_iter().map(&mut place).collect();
    }

    /// Moves the committed offsets to the ranges' ends.
    pub(super) fn commit<'a>(&mut self, ranges: impl Iterator<Item = &'a OffsetRange>) {
        for range in ranges {
            let at = |place: &Place| place.position.topic_partition.cmp(&range.topic_partition);
            let found = self.sorted.binary_search_by(at);
            if let Some(place) = found.ok().and_then(|index| self.sorted.get_mut(index)) {
                place.position.committed = Some(range.until_offset);
            }
        }
    }

    pub(super) fn lag(&self) -> u64 {
        sum_of_lags(&self.sorted)
    }

    /// All, in the order of topic and partition.
    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = &PartitionPosition> {
        self.sorted.iter().map(|place| &place.position)
    }

    /// Topic by topic; none where there are too many for series of their own.
    pub(super) fn topics(&self) -> Vec<&[Place]> {
        let topics: Vec<&[Place]> = self.sorted.chunk_by(|a, b| a.topic() == b.topic()).collect();
        if topics.len() > PARTITION_SERIES_MAX { Vec::new() } else { topics }
    }

    /// Partition by partition; none where there are too many for series of their own.
    pub(super) fn partitions(&self) -> &[Place] {
        if self.has_ages() { &self.sorted } else { &[] }
    }

    fn has_ages(&self) -> bool {
        self.sorted.len() <= PARTITION_SERIES_MAX
    }

    pub(super) fn render(&self, now_ms: i64) -> Vec<String> {
        let mut blocks = vec![single(LAG, self.lag()), single(PARTITIONS, self.sorted.len())];
        if self.has_ages() {
            let oldest = oldest(&self.sorted, now_ms).unwrap_or_default();
            blocks.push(single(LAG_SECONDS, oldest.as_secs_f64()));
        }
        blocks.extend(self.render_topics(now_ms));
        if self.has_ages() {
            blocks.extend(self.render_partitions(now_ms));
        }
        blocks
    }

    fn render_topics(&self, now_ms: i64) -> Vec<String> {
        let mut partitions = Family::new(&TOPIC_PARTITIONS);
        let mut lag = Family::new(&TOPIC_LAG);
        let mut lag_seconds = Family::new(&TOPIC_LAG_SECONDS);
        let mut time_to_loss = Family::new(&TOPIC_TIME_TO_LOSS);
        for places in self.topics() {
            let Some(topic) = places.first().map(Place::topic) else { continue };
            partitions.add(&[topic], places.len());
            if places.iter().any(|place| place.position.lag().is_some()) {
                lag.add(&[topic], sum_of_lags(places));
            }
            if let Some(oldest) = oldest(places, now_ms).filter(|_| self.has_ages()) {
                lag_seconds.add(&[topic], oldest.as_secs_f64());
            }
            if let Some(soonest) = places.iter().filter_map(|place| place.time_to_loss(now_ms)).min() {
                time_to_loss.add(&[topic], soonest.as_secs_f64());
            }
        }
        [partitions, lag, lag_seconds, time_to_loss].map(Family::into_text).into()
    }

    fn render_partitions(&self, now_ms: i64) -> Vec<String> {
        let mut committed = Family::new(&PARTITION_COMMITTED);
        let mut latest = Family::new(&PARTITION_LATEST);
        let mut earliest = Family::new(&PARTITION_EARLIEST);
        let mut lag = Family::new(&PARTITION_LAG);
        let mut lag_seconds = Family::new(&PARTITION_LAG_SECONDS);
        let mut time_to_loss = Family::new(&PARTITION_TIME_TO_LOSS);
        for place in &self.sorted {
            let position = &place.position;
            let partition = position.topic_partition.partition.to_string();
            let labels = [place.topic(), &*partition];
            // What is not known has no series: 0 would be an offset.
            let offsets = [
                (&mut committed, position.committed),
                (&mut latest, position.latest),
                (&mut earliest, position.earliest),
            ];
            for (family, offset) in offsets {
                if let Some(offset) = offset {
                    family.add(&labels, offset);
                }
            }
            if let Some(records) = position.lag() {
                lag.add(&labels, records);
            }
            let times = [(&mut lag_seconds, place.age(now_ms)), (&mut time_to_loss, place.time_to_loss(now_ms))];
            for (family, time) in times {
                if let Some(time) = time {
                    family.add(&labels, time.as_secs_f64());
                }
            }
        }
        [committed, latest, earliest, lag, lag_seconds, time_to_loss].map(Family::into_text).into()
    }
}

fn single(metric: super::Metric, value: impl std::fmt::Display) -> String {
    let mut family = Family::new(&metric);
    family.add(&[], value);
    family.into_text()
}

fn sum_of_lags(places: &[Place]) -> u64 {
    places.iter().filter_map(|place| place.position.lag()).fold(0, u64::saturating_add)
}

/// The age of the oldest record of all that is not committed.
fn oldest(places: &[Place], now_ms: i64) -> Option<Duration> {
    places.iter().filter_map(|place| place.age(now_ms)).max()
}
