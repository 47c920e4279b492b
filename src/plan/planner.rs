//! The ranges of one batch.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use super::{
    Problem, ProblemKind, RecordSize,
    rate::{Rates, rate_limits, to_f64, whole},
};
use crate::types::{Offset, OffsetRange, TopicId, TopicPartition};

/// The part of the memory budget that is shared out evenly before lag decides about the rest. With lag alone a
/// partition with a few records would wait as long as the backlog of the largest one lasts.
const EVEN_SHARE: f64 = 0.2;

/// Where reading a partition goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The id of the topic as the broker tells it now.
    pub topic_id: Option<TopicId>,
    /// The stored offset, which the commit expects to find; `None` if the partition is new.
    pub expected: Option<Offset>,
    /// The id that is stored with it. It differs from `topic_id` where the topic was created again, and where the broker
    /// tells ids only now.
    pub expected_topic_id: Option<TopicId>,
    /// The first offset to read. It differs from `expected` only after a lost range.
    pub from: Offset,
    /// The epoch of the leader that told the latest offset.
    pub latest_epoch: Option<i32>,
}

/// What limits a batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// The time from batch to batch, which makes a rate a number of offsets.
    pub batch_interval: Duration,
    /// The rates.
    pub rates: &'a Rates,
    /// How many bytes the records of the batch may have together; `None` is no limit.
    pub memory_bytes: Option<u64>,
    /// How large the records are taken to be.
    pub record_size: &'a RecordSize,
    /// Where each partition ends for good, as `--until-latest` fixes it at start; a partition that is not in it is left
    /// to the next run.
    pub stop_at: Option<&'a BTreeMap<TopicPartition, Offset>>,
}

/// Why a range ends before the latest offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// A rate.
    Rate,
    /// The memory budget.
    Memory,
    /// The run ends here.
    Stop,
}

/// The range of one partition in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRange {
    /// The range; it may be empty.
    pub range: OffsetRange,
    /// The stored offset, which the commit expects to find; `None` if the partition is new.
    pub expected: Option<Offset>,
    /// The id that is stored with it.
    pub expected_topic_id: Option<TopicId>,
    /// The id of the topic as the broker tells it now.
    pub topic_id: Option<TopicId>,
    /// The latest offset when this was planned.
    pub latest: Offset,
    /// The epoch of the leader that told it.
    pub latest_epoch: Option<i32>,
    /// Why the range ends before the latest offset.
    pub cut: Option<Cut>,
}

impl PlannedRange {
    /// Whether there is nothing to read. A partition without anything to read stays a partition of its batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Whether what is stored changes: by records, by gaps, by a lost range, because the partition is new, or because its
    /// topic was created again.
    #[must_use]
    pub fn moves(&self) -> bool {
        let created_again = self.expected_topic_id.is_some() && self.expected_topic_id != self.topic_id;
        self.expected != Some(self.range.until_offset) || created_again
    }
}

/// What one batch reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// One range for each partition, in the order of topic and partition.
    pub ranges: Vec<PlannedRange>,
    /// Partitions that are left out, and why.
    pub problems: Vec<Problem>,
}

impl Plan {
    /// Whether no range has anything to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.iter().all(PlannedRange::is_empty)
    }

    /// Whether any stored offset would change.
    #[must_use]
    pub fn moves(&self) -> bool {
        self.ranges.iter().any(PlannedRange::moves)
    }

    /// Whether the memory budget left records for the next batch, which may then start at once.
    #[must_use]
    pub fn is_cut_by_memory(&self) -> bool {
        self.ranges.iter().any(|range| range.cut == Some(Cut::Memory))
    }

    /// How many offsets the ranges span.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|range| range.range.count()).fold(0, u64::saturating_add)
    }

    /// The bare ranges.
    #[must_use]
    pub fn offset_ranges(&self) -> Vec<OffsetRange> {
        self.ranges.iter().map(|range| range.range.clone()).collect()
    }
}

/// What one partition would give the batch, on its way through the limits.
struct Want<'a> {
    position: &'a Position,
    latest: Offset,
    count: u64,
    cut: Option<Cut>,
}

impl Want<'_> {
    fn limit(&mut self, count: u64, cut: Cut) {
        if count < self.count {
            self.count = count;
            self.cut = Some(cut);
        }
    }
}

/// Gives every partition its range: from its position to the latest offset, within the limits.
///
/// Only partitions that the broker just answered for are planned: `latest` holds its answers. A latest offset below the
/// position is a problem, never a range.
#[must_use]
pub fn plan_batch(positions: &[Position], latest: &BTreeMap<TopicPartition, Offset>, limits: &Limits<'_>) -> Plan {
    let (mut wants, problems) = wants(positions, latest);
    if let Some(stop_at) = limits.stop_at {
        wants.retain(|topic_partition, want| {
            let stop = stop_at.get(topic_partition);
            if let Some(stop) = stop {
                want.limit(want.position.from.offsets_until(*stop), Cut::Stop);
            }
            stop.is_some()
        });
    }
    // Shares follow the whole lag up to the stop, as they do in Spark: what a limit takes from one partition is not
    // given to another.
    let lags = wants.iter().map(|(topic_partition, want)| (topic_partition.clone(), want.count)).collect();
    for (topic_partition, limit) in rate_limits(&lags, limits.rates, limits.batch_interval) {
        if let Some(want) = wants.get_mut(&topic_partition) {
            want.limit(limit, Cut::Rate);
        }
    }
    if let Some(budget) = limits.memory_bytes {
        limit_memory(&mut wants, budget, limits.record_size);
    }
    let ranges = wants.into_iter().map(|(topic_partition, want)| {
        let from = want.position.from;
        PlannedRange {
            range: OffsetRange::new(topic_partition, from, from.advanced_by(want.count)),
            expected: want.position.expected,
            expected_topic_id: want.position.expected_topic_id.clone(),
            topic_id: want.position.topic_id.clone(),
            latest: want.latest,
            latest_epoch: want.position.latest_epoch,
            cut: want.cut,
        }
    });
    Plan { ranges: ranges.collect(), problems }
}

fn wants<'a>(
    positions: &'a [Position],
    latest: &BTreeMap<TopicPartition, Offset>,
) -> (BTreeMap<TopicPartition, Want<'a>>, Vec<Problem>) {
    let mut wants = BTreeMap::new();
    let mut problems = Vec::new();
    for position in positions {
        let topic_partition = &position.topic_partition;
        let kind = match latest.get(topic_partition) {
            None => ProblemKind::NoAnswer,
            Some(latest) if *latest < position.from => {
                ProblemKind::Truncated { committed: position.from, latest: *latest }
            }
            Some(latest) => {
                // The first one stays: two ranges of one partition would be two truths.
                if let Entry::Vacant(entry) = wants.entry(topic_partition.clone()) {
                    let count = position.from.offsets_until(*latest);
                    entry.insert(Want { position, latest: *latest, count, cut: None });
                }
                continue;
            }
        };
        problems.push(Problem::of_partition(topic_partition, kind));
    }
    (wants, problems)
}

/// Keeps the batch within the budget: a part of it goes evenly to all partitions that have records, the rest by the
/// bytes that they have. Each of them gives at least one record, which may then be all that goes over the budget.
fn limit_memory(wants: &mut BTreeMap<TopicPartition, Want<'_>>, budget: u64, record_size: &RecordSize) {
    let size = |topic_partition: &TopicPartition| to_f64(record_size.estimate(topic_partition).max(1));
    let bytes: f64 = wants.iter().map(|(tp, want)| to_f64(want.count) * size(tp)).sum();
    let budget = to_f64(budget);
    if bytes <= budget {
        return;
    }
    let busy = wants.values().filter(|want| want.count > 0).count();
    let even = budget * EVEN_SHARE / to_f64(u64::try_from(busy).unwrap_or(u64::MAX).max(1));
    for (topic_partition, want) in wants.iter_mut().filter(|(_, want)| want.count > 0) {
        let size = size(topic_partition);
        let by_lag = budget * (1.0 - EVEN_SHARE) * (to_f64(want.count) * size / bytes);
        want.limit(whole((even + by_lag) / size).max(1), Cut::Memory);
    }
}

/// Whether every partition of `stop_at` is read up to its stop: then a run with `--until-latest` is done. A partition
/// that is tracked no longer counts as not done.
#[must_use]
pub fn reached<'a>(
    positions: impl IntoIterator<Item = (&'a TopicPartition, Offset)>,
    stop_at: &BTreeMap<TopicPartition, Offset>,
) -> bool {
    let positions: BTreeMap<_, _> = positions.into_iter().collect();
    stop_at.iter().all(|(topic_partition, stop)| positions.get(topic_partition).is_some_and(|at| at >= stop))
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
