//! Where each partition stands, and its series: rendered from this state at each scrape, so that those of a vanished
//! partition vanish too.

use super::metrics::{
    Family, LAG, PARTITION_COMMITTED, PARTITION_EARLIEST, PARTITION_LAG, PARTITION_LATEST, PARTITIONS, TOPIC_LAG,
    TOPIC_PARTITIONS,
};
use crate::types::{Offset, OffsetRange, TopicPartition};

/// Up to so many partitions have series of their own; above, there are sums per topic only. The same bound holds for
/// topics. Four series each of 2,000 partitions are about 600 kB a scrape.
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

/// All partitions of the job, in the order of topic and partition.
#[derive(Debug, Default)]
pub(super) struct Positions {
    sorted: Vec<PartitionPosition>,
}

impl Positions {
    pub(super) fn replace(&mut self, mut positions: Vec<PartitionPosition>) {
        positions.sort_by(|a, b| a.topic_partition.cmp(&b.topic_partition));
        self.sorted = positions;
    }

    /// Moves the committed offsets to the ranges' ends.
    pub(super) fn commit<'a>(&mut self, ranges: impl Iterator<Item = &'a OffsetRange>) {
        for range in ranges {
            let found = self.sorted.binary_search_by(|position| position.topic_partition.cmp(&range.topic_partition));
            if let Some(position) = found.ok().and_then(|index| self.sorted.get_mut(index)) {
                position.committed = Some(range.until_offset);
            }
        }
    }

    pub(super) fn lag(&self) -> u64 {
        sum_of_lags(&self.sorted)
    }

    pub(super) fn render(&self) -> Vec<String> {
        let mut blocks = vec![single(LAG, self.lag()), single(PARTITIONS, self.sorted.len())];
        blocks.extend(self.render_topics());
        if self.sorted.len() <= PARTITION_SERIES_MAX {
            blocks.extend(self.render_partitions());
        }
        blocks
    }

    fn render_topics(&self) -> Vec<String> {
        let topics: Vec<&[PartitionPosition]> =
            self.sorted.chunk_by(|a, b| a.topic_partition.topic == b.topic_partition.topic).collect();
        if topics.len() > PARTITION_SERIES_MAX {
            return Vec::new();
        }
        let mut partitions = Family::new(&TOPIC_PARTITIONS);
        let mut lag = Family::new(&TOPIC_LAG);
        for positions in topics {
            let Some(first) = positions.first() else { continue };
            let topic = &*first.topic_partition.topic;
            partitions.add(&[topic], positions.len());
            if positions.iter().any(|position| position.lag().is_some()) {
                lag.add(&[topic], sum_of_lags(positions));
            }
        }
        vec![partitions.into_text(), lag.into_text()]
    }

    fn render_partitions(&self) -> Vec<String> {
        let mut committed = Family::new(&PARTITION_COMMITTED);
        let mut latest = Family::new(&PARTITION_LATEST);
        let mut earliest = Family::new(&PARTITION_EARLIEST);
        let mut lag = Family::new(&PARTITION_LAG);
        for position in &self.sorted {
            let partition = position.topic_partition.partition.to_string();
            let labels = [&*position.topic_partition.topic, &*partition];
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
        }
        [committed, latest, earliest, lag].map(Family::into_text).into()
    }
}

fn single(metric: super::Metric, value: impl std::fmt::Display) -> String {
    let mut family = Family::new(&metric);
    family.add(&[], value);
    family.into_text()
}

fn sum_of_lags(positions: &[PartitionPosition]) -> u64 {
    positions.iter().filter_map(PartitionPosition::lag).fold(0, u64::saturating_add)
}
