//! Offsets committed to a consumer group, for tools that look there. The group is not joined, and nothing is read back.

use std::collections::BTreeMap;

use rdkafka::{
    Offset as KafkaOffset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
};

use super::KafkaProperties;
use crate::{
    error::{Error, Result},
    types::{Offset, TopicPartition},
};

/// A client that only commits offsets.
pub(crate) struct GroupCommitter {
    consumer: BaseConsumer,
    group: String,
}

impl GroupCommitter {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for a property that cannot be used.
    pub(crate) fn new(properties: &KafkaProperties, group: &str) -> Result<Self> {
        let made = properties.committer(group)?.create();
        let cannot = |error| Error::config("cannot make a kafka client that commits offsets").caused_by(error);
        Ok(Self { consumer: made.map_err(cannot)?, group: group.to_owned() })
    }

    /// Commits offsets, and waits for the answer.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the broker did not take them: it is away, the client may not, or somebody
    /// has joined the group.
    pub(crate) fn commit(&self, offsets: &BTreeMap<TopicPartition, Offset>) -> Result<()> {
        let refused = |error| {
            Error::unavailable(format!("offsets are not committed to the consumer group group={}", self.group))
                .caused_by(error)
        };
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (TopicPartition { topic, partition }, offset) in offsets {
            list.add_partition_offset(topic, *partition, KafkaOffset::Offset(offset.get())).map_err(refused)?;
        }
        self.consumer.commit(&list, CommitMode::Sync).map_err(refused)
    }
}
