//! How many bytes a record will probably have.

use std::{collections::HashMap, sync::Arc};

use crate::types::TopicPartition;

/// What a record is taken for before one was seen: 16 KiB, Kafka's default batch size. Too large costs a small first
/// batch; too small could cost the memory budget.
pub const RECORD_BYTES_ASSUMED: u64 = 16 << 10;

/// What a record costs beside its key and value: its headers, and the client's own structure for it.
const RECORD_OVERHEAD_BYTES: u64 = 256;

/// Moving averages of the size of records, by topic-partition and by topic.
///
/// Growth is believed at once and shrinking slowly: the estimate guards a budget.
#[derive(Debug, Clone, Default)]
pub struct RecordSize {
    partitions: HashMap<TopicPartition, u64>,
    topics: HashMap<Arc<str>, u64>,
}

impl RecordSize {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns from a range that was read: so many records with so many bytes of keys and values.
    pub fn observe(&mut self, topic_partition: &TopicPartition, records: u64, bytes: u64) {
        if records == 0 {
            return;
        }
        let size = bytes.div_ceil(records).saturating_add(RECORD_OVERHEAD_BYTES);
        let follow =
            |known: &mut u64| *known = if size >= *known { size } else { *known - (*known - size).div_ceil(4) };
        self.partitions.entry(topic_partition.clone()).and_modify(follow).or_insert(size);
        self.topics.entry(Arc::clone(&topic_partition.topic)).and_modify(follow).or_insert(size);
    }

    /// Takes the size of a partition's records for known.
    pub fn set(&mut self, topic_partition: &TopicPartition, bytes: u64) {
        self.partitions.insert(topic_partition.clone(), bytes);
    }

    /// The bytes that one record of this partition will probably have: by itself, by its topic, or as assumed.
    #[must_use]
    pub fn estimate(&self, topic_partition: &TopicPartition) -> u64 {
        let known = self.partitions.get(topic_partition).or_else(|| self.topics.get(&topic_partition.topic));
        known.copied().unwrap_or(RECORD_BYTES_ASSUMED)
    }

    /// Forgets partitions that are not read any more.
    pub fn retain(&mut self, keep: impl Fn(&TopicPartition) -> bool) {
        self.partitions.retain(|topic_partition, _| keep(topic_partition));
        let partitions = &self.partitions;
        self.topics.retain(|topic, _| partitions.keys().any(|kept| kept.topic == *topic));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_believed_at_once_and_shrinking_slowly() {
        let (seen, sibling, other) =
            (TopicPartition::new("t", 0), TopicPartition::new("t", 1), TopicPartition::new("u", 0));
        let mut sizes = RecordSize::new();
        assert_eq!(sizes.estimate(&seen), RECORD_BYTES_ASSUMED);
        sizes.observe(&seen, 0, 0);
        assert_eq!(sizes.estimate(&seen), RECORD_BYTES_ASSUMED);
        sizes.observe(&seen, 10, 1_000);
        assert_eq!(sizes.estimate(&seen), 356);
        assert_eq!(sizes.estimate(&sibling), 356);
        assert_eq!(sizes.estimate(&other), RECORD_BYTES_ASSUMED);
        sizes.observe(&seen, 1, 10_000);
        assert_eq!(sizes.estimate(&seen), 10_256);
        sizes.observe(&seen, 1, 256);
        assert_eq!(sizes.estimate(&seen), 10_256 - 2_436);
        for _ in 0..100 {
            sizes.observe(&seen, 10, 1_000);
        }
        assert_eq!(sizes.estimate(&seen), 356);
        sizes.retain(|_| false);
        assert_eq!(sizes.estimate(&seen), RECORD_BYTES_ASSUMED);
    }
}
