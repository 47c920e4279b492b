//! A range of offsets of one partition: inclusive start, exclusive end.

use std::fmt;

use super::{Offset, TopicPartition};

/// Offsets `[from_offset, until_offset)` of one topic-partition: start included, end excluded.
///
/// Equality covers all four parts. The text form is Spark's:
///
/// ```
/// use directstream::{Offset, OffsetRange, TopicPartition};
///
/// let at = |value| Offset::new(value).unwrap_or_default();
/// let range = OffsetRange::new(TopicPartition::new("t", 0), at(5), at(9));
/// assert_eq!(range.count(), 4);
/// assert_eq!(range.to_string(), "OffsetRange(topic: 't', partition: 0, range: [5 -> 9])");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OffsetRange {
    /// Whose offsets.
    pub topic_partition: TopicPartition,
    /// The first offset of the range.
    pub from_offset: Offset,
    /// The first offset after the range.
    pub until_offset: Offset,
}

impl OffsetRange {
    /// The range `[from_offset, until_offset)`.
    #[must_use]
    pub fn new(topic_partition: TopicPartition, from_offset: Offset, until_offset: Offset) -> Self {
        Self { topic_partition, from_offset, until_offset }
    }

    /// How many offsets the range spans. Fewer records may come: offsets without a record are gaps.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.from_offset.offsets_until(self.until_offset)
    }

    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic_partition.topic
    }

    /// The partition's number.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.topic_partition.partition
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "OffsetRange(topic: '{}', partition: {}, range: [{} -> {}])",
            self.topic_partition.topic, self.topic_partition.partition, self.from_offset, self.until_offset
        )
    }
}
