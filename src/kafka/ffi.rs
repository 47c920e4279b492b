//! The C client library behind a safe face: the only `unsafe` code of the crate.

use crate::types::{Headers, Offset, Timestamp, TopicPartition};

/// Messages of one partition, taken in one call and kept alive.
#[derive(Debug)]
pub struct MessageBatch {
    topic_partition: TopicPartition,
}

impl MessageBatch {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Whose messages.
    #[must_use]
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    /// The key of message `index`.
    #[must_use]
    pub fn key(&self, _index: usize) -> Option<&[u8]> {
        None
    }

    /// The value of message `index`.
    #[must_use]
    pub fn value(&self, _index: usize) -> Option<&[u8]> {
        None
    }

    /// The headers of message `index`.
    #[must_use]
    pub fn headers(&self, _index: usize) -> Headers {
        Headers::new()
    }

    /// The offset of message `index`.
    #[must_use]
    pub fn offset(&self, _index: usize) -> Offset {
        Offset::ZERO
    }

    /// The timestamp of message `index`.
    #[must_use]
    pub fn timestamp(&self, _index: usize) -> Timestamp {
        Timestamp::NotAvailable
    }
}
