//! Offsets committed to a consumer group, for tools that look there. The group is not joined, and nothing is read back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext, Offset as KafkaOffset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    KafkaProperties,
    credentials::{self, LogsIn},
    ffi::{CallError, set_credentials_of},
};
use crate::{
    error::{Error, Result},
    types::{Offset, TopicPartition},
};

/// More of the client's own events than this are left for the next commit.
const EVENTS_MAX: usize = 1_000;

/// A client that only commits offsets.
pub(crate) struct GroupCommitter {
    consumer: Arc<BaseConsumer<LastTrouble>>,
    group: String,
}

/// What the client said last was wrong with it: a commit that is given up does not say why.
#[derive(Default)]
struct LastTrouble(Mutex<Option<String>>);

impl LastTrouble {
    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for LastTrouble {
    fn error(&self, _error: KafkaError, reason: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ConsumerContext for LastTrouble {}

impl LogsIn for BaseConsumer<LastTrouble> {
    fn log_in_as(&self, username: &str, password: &str) -> Result<(), CallError> {
        set_credentials_of(self.client(), username, password)
    }
}

impl GroupCommitter {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for a property that cannot be used; [`Unavailable`](crate::ErrorKind::Unavailable) while a
    /// file with credentials cannot be read.
    pub(crate) fn new(properties: &KafkaProperties, group: &str) -> Result<Self> {
        let (config, credentials) = properties.committer(group)?;
        let cannot = |error| Error::config("cannot make a kafka client that commits offsets").caused_by(error);
        let consumer = Arc::new(config.create_with_context(LastTrouble::default()).map_err(cannot)?);
        credentials::keep(credentials, &consumer)?;
        Ok(Self { consumer, group: group.to_owned() })
    }

    /// Commits offsets, and waits for the answer: seconds, if the brokers are away.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the broker did not take them: it is away, the client may not, or somebody
    /// has joined the group.
    pub(crate) fn commit(&self, offsets: &BTreeMap<TopicPartition, Offset>) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (TopicPartition { topic, partition }, offset) in offsets {
            let added = list.add_partition_offset(topic, *partition, KafkaOffset::Offset(offset.get()));
            added.map_err(|error| self.refused(error))?;
        }
        let committed = self.consumer.commit(&list, CommitMode::Sync);
        // Nobody else takes what the client has to say, and it is kept until somebody does.
        for _ in 0..EVENTS_MAX {
            if self.consumer.poll(Duration::ZERO).is_none() {
                break;
            }
        }
        committed.map_err(|error| self.refused(error))
    }

    fn refused(&self, error: KafkaError) -> Error {
        let group = &self.group;
        match error {
            KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId) => Error::unavailable(format!(
                "a consumer has joined the group, which then takes offsets of its members alone: give these offsets a group of \
                 their own group={group}"
            )),
            KafkaError::ConsumerCommit(RDKafkaErrorCode::WaitingForCoordinator) => {
                let error = Error::unavailable(format!("no broker answers for the consumer group group={group}"));
                match self.consumer.context().take() {
                    Some(trouble) => error.caused_by(Error::unavailable(trouble)),
                    None => error,
                }
            }
            error => Error::unavailable(format!("offsets are not committed to the consumer group group={group}"))
                .caused_by(error),
        }
    }
}
