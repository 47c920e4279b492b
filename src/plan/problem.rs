//! What can be wrong with a partition, and what an operator can do about it.

use std::{sync::Arc, time::Duration};

use crate::{
    error::{Error, Result, Stage},
    types::{Offset, TopicId, TopicPartition},
};

/// Why a topic or a partition is left out of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition; `None` means the whole topic.
    pub partition: Option<i32>,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What is wrong with a topic or a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProblemKind {
    /// The broker did not answer, which proves nothing.
    NoAnswer,
    /// The broker answered with an error, which may pass.
    Refused {
        /// What it said.
        reason: String,
    },
    /// There is no such topic, now.
    UnknownTopic,
    /// The topic has fewer partitions than are tracked, now.
    UnknownPartition {
        /// How many it has.
        partitions: i32,
    },
    /// The topic had an id and is told without one.
    IdMissing {
        /// The id it had.
        known: TopicId,
    },
    /// The log begins after the committed offset: retention or DeleteRecords went past it.
    Retention {
        /// The next offset to read.
        committed: Offset,
        /// The first that there is.
        earliest: Offset,
    },
    /// The log was cut off below the committed offset, as by an unclean leader election: it ends before that offset, or it
    /// has grown past it since, which only reading finds.
    Truncated {
        /// The next offset to read.
        committed: Offset,
        /// The end of the log.
        latest: Offset,
    },
    /// The topic was deleted and created again.
    TopicRecreated {
        /// The next offset to read, of the topic that is gone.
        committed: Offset,
        /// The id of the topic that is gone.
        known: TopicId,
        /// The id of the topic that is there.
        found: TopicId,
    },
}

impl ProblemKind {
    /// Whether it proves that offsets are lost. Anything else may pass.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::NoAnswer | Self::Refused { .. } | Self::UnknownTopic | Self::UnknownPartition { .. } => false,
            Self::IdMissing { .. } | Self::Retention { .. } | Self::Truncated { .. } | Self::TopicRecreated { .. } => {
                true
            }
        }
    }

    /// Whether `on_data_loss = "skip"` goes over it.
    #[must_use]
    pub fn can_be_skipped(&self) -> bool {
        matches!(self, Self::Retention { .. } | Self::Truncated { .. } | Self::TopicRecreated { .. })
    }
}

/// The ways out of a loss, for a person.
const WAYS_OUT: &str = "set kafka.on_data_loss to skip to record the loss and go on, or move the stored \
                        offset, as docs/operating.md shows";

impl Problem {
    pub(super) fn of_partition(topic_partition: &TopicPartition, kind: ProblemKind) -> Self {
        Self { topic: Arc::clone(&topic_partition.topic), partition: Some(topic_partition.partition), kind }
    }

    pub(super) fn of_topic(topic: &Arc<str>, kind: ProblemKind) -> Self {
        Self { topic: Arc::clone(topic), partition: None, kind }
    }

    /// Whether this says the same about the whole topic.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.topic == other.topic && self.partition.is_none() && self.kind == other.kind
    }

    /// The problem as an error: [`ErrorKind::OffsetsLost`](crate::ErrorKind::OffsetsLost) or
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) for what proves a loss,
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) for what may pass.
    #[must_use]
    pub fn to_error(&self) -> Error {
        let error = match &self.kind {
            kind if self.topic.starts_with("file:") => file_error(kind),
            kind if self.topic.starts_with("receiver:") && kind.can_be_skipped() => receiver_error(kind),
            ProblemKind::NoAnswer => Error::unavailable("the broker gives no answer for it"),
            ProblemKind::Refused { reason } => Error::unavailable(format!("the broker tells no offsets: {reason}")),
            ProblemKind::UnknownTopic => {
                Error::unavailable("the topic does not exist, or the principal may not describe it")
            }
            ProblemKind::UnknownPartition { partitions } => {
                Error::unavailable(format!("the topic has fewer partitions than are stored partitions={partitions}"))
            }
            ProblemKind::IdMissing { known } => {
                Error::corrupt(format!("the topic had an id and the broker now tells none topic_id={known}"))
            }
            ProblemKind::Retention { committed, earliest } => Error::offsets_lost(format!(
                "offsets are lost: retention or a deletion went past the committed offset; {WAYS_OUT} reason=RETENTION \
                 committed={committed} earliest={earliest}"
            )),
            ProblemKind::Truncated { committed, latest } => Error::offsets_lost(format!(
                "offsets are lost: the log was truncated below the committed offset; {WAYS_OUT} reason=TRUNCATED \
                 committed={committed} latest={latest}"
            )),
            ProblemKind::TopicRecreated { committed, known, found } => Error::offsets_lost(format!(
                "offsets are lost: the topic was deleted and created again; {WAYS_OUT} reason=TOPIC_RECREATED \
                 committed={committed} stored_topic_id={known} topic_id={found}"
            )),
        };
        self.place(error)
    }

    /// The same after it has lasted too long.
    #[must_use]
    pub fn to_error_after(&self, lasted: Duration) -> Error {
        let error = self.to_error();
        let message = format!("gave up waiting seconds={}", lasted.as_secs());
        self.place(Error::new(error.kind(), message)).caused_by(error)
    }

    fn place(&self, error: Error) -> Error {
        let error = error.at(Stage::Plan);
        match self.partition {
            Some(partition) => error.on(TopicPartition::new(Arc::clone(&self.topic), partition)),
            // An error has room for a partition, not for a topic alone.
            None => Error::new(error.kind(), format!("{error} topic={}", self.topic)).at(Stage::Plan),
        }
    }
}

/// The same for a file of a stream of text files, which is a topic whose offsets are its bytes.
fn file_error(kind: &ProblemKind) -> Error {
    const WAYS_OUT: &str = "let the stream read it as a new file with on_data_loss skip, or put back what was there: files are \
                            moved into the folder whole, under names that were never used, and not changed";
    match kind {
        ProblemKind::UnknownTopic | ProblemKind::UnknownPartition { .. } => {
            Error::unavailable("the file is gone, and was not read to its end")
        }
        ProblemKind::NoAnswer | ProblemKind::Refused { .. } => Error::unavailable("the file's folder cannot be read"),
        ProblemKind::IdMissing { known } => {
            Error::corrupt(format!("the size and time of the file are not known stored_topic_id={known}"))
        }
        ProblemKind::Retention { committed, earliest } => Error::offsets_lost(format!(
            "bytes are lost: the file begins after the committed offset; {WAYS_OUT} committed={committed} \
             earliest={earliest}"
        )),
        ProblemKind::Truncated { committed, latest } => Error::offsets_lost(format!(
            "bytes are lost: the file ends before the committed offset; {WAYS_OUT} committed={committed} latest={latest}"
        )),
        ProblemKind::TopicRecreated { committed, known, found } => Error::offsets_lost(format!(
            "bytes are lost: the file was changed or replaced after it was begun; {WAYS_OUT} committed={committed} \
             stored_topic_id={known} topic_id={found}"
        )),
    }
}

/// The same for a loss of a receiver's log, which is a topic whose offsets are its records.
fn receiver_error(kind: &ProblemKind) -> Error {
    const WAYS_OUT: &str =
        "put its folder back, or let the stream go on with the log that is there with on_data_loss skip";
    let (what, committed) = match kind {
        ProblemKind::TopicRecreated { committed, .. } => ("was deleted and begun again", committed),
        ProblemKind::Retention { committed, .. } => ("begins after the committed offset", committed),
        ProblemKind::Truncated { committed, .. } => ("ends before the committed offset", committed),
        _ => ("cannot be read", &Offset::ZERO),
    };
    Error::offsets_lost(format!("records are lost: the receiver's log {what}; {WAYS_OUT} committed={committed}"))
}

/// The first of the problems as an error, telling how many more there are.
pub(super) fn first_of<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Result<()> {
    let mut problems = problems.into_iter();
    let Some(first) = problems.next() else { return Ok(()) };
    let error = first.to_error();
    match problems.count() {
        0 => Err(error),
        more => {
            let message = format!("{error} and_more_partitions={more}");
            Err(Error::new(error.kind(), message).at(Stage::Plan))
        }
    }
}
