//! Where each partition stands between two batches.

use crate::{
    commit::StoredPosition,
    error::Error,
    plan::Tracked,
    types::{LogTruncated, Offset, TopicId, TopicPartition},
};

/// Where a partition stands: the end of the last batch that is committed or being committed.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) offset: Offset,
    pub(super) topic_id: Option<TopicId>,
    pub(super) leader_epoch: Option<i32>,
    pub(super) latest: Option<Offset>,
    pub(super) committed: Option<Offset>,
    /// Reading found that the log was cut off below `offset`. Its leader epoch is of a history that is gone.
    pub(super) truncated: bool,
}

impl Place {
    /// As it is stored.
    pub(super) fn of(stored: &StoredPosition) -> (TopicPartition, Self) {
        let place = Self {
            topic_id: stored.topic_id.clone(),
            leader_epoch: stored.leader_epoch,
            committed: Some(stored.until_offset),
            ..Self::joined(stored.until_offset)
        };
        (stored.topic_partition.clone(), place)
    }

    /// Of a partition that joins with a batch that ends here.
    pub(super) fn joined(offset: Offset) -> Self {
        Self { offset, topic_id: None, leader_epoch: None, latest: None, committed: None, truncated: false }
    }

    /// As the planner sees it.
    pub(super) fn tracked(&self, topic_partition: &TopicPartition) -> Tracked {
        Tracked {
            topic_partition: topic_partition.clone(),
            topic_id: self.topic_id.clone(),
            committed: self.offset,
            latest: self.latest,
            truncated: self.truncated,
        }
    }

    /// Takes note of what reading failed with: offsets alone do not show that a log was cut off and has grown again.
    pub(super) fn note(&mut self, error: &Error) {
        let from = error.offset_range().map(|range| range.from_offset);
        let cut_off = std::error::Error::source(error).is_some_and(|cause| cause.is::<LogTruncated>());
        self.truncated |= cut_off && from == Some(self.offset);
    }
}
