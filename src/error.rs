//! The one error type: what failed, where, and what an operator should do about it.

use std::{error::Error as StdError, fmt, sync::Arc};

use crate::types::{OffsetRange, TopicPartition};

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Arc<dyn StdError + Send + Sync>;

/// What kind of failure it is. Each kind tells the operator what to do; [`exit_code`](Self::exit_code) is what the
/// program ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration or the environment it names is wrong: mend it and start again.
    Config,
    /// A server does not answer, refuses the credentials, or does not know the topic: retried up to the budget.
    Unavailable,
    /// Records between the committed and the first available offset are gone: an operator has to choose.
    OffsetsLost,
    /// Stored state contradicts itself, Kafka, or what this process committed: an operator has to choose.
    Corrupt,
    /// The stored offsets are not what the batch was planned from: planned again once.
    Conflict,
    /// Another process owns the application: this one has to stop.
    Fenced,
    /// The answer to a commit was lost: settled by a locking write, never by guessing.
    OutcomeUnknown,
    /// The user's code or a record failed.
    Transform,
    /// A defect of this program.
    Internal,
}

impl ErrorKind {
    /// The exit code of a program that ends with this kind of error.
    ///
    /// | code | meaning |
    /// |---|---|
    /// | 1 | a defect of this program |
    /// | 2 | configuration |
    /// | 3 | a server was unavailable for longer than the retry budget |
    /// | 4 | data lost or state corrupt |
    /// | 5 | fenced: another process owns the application |
    /// | 6 | the user's code or data failed |
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Config => 2,
            Self::Unavailable | Self::OutcomeUnknown => 3,
            Self::OffsetsLost | Self::Corrupt => 4,
            Self::Conflict | Self::Fenced => 5,
            Self::Transform => 6,
        }
    }

    /// Whether the same work may be tried again as it is.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::OutcomeUnknown)
    }
}

/// Which of the five stages failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Before the first batch.
    Start,
    /// Asking for offsets and planning the ranges.
    Plan,
    /// Reading the ranges from Kafka.
    Read,
    /// The user's operations.
    Transform,
    /// Results and offsets into the store.
    Commit,
    /// Metrics, logs and mirrors.
    Report,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Plan => "plan",
            Self::Read => "read",
            Self::Transform => "transform",
            Self::Commit => "commit",
            Self::Report => "report",
        })
    }
}

/// An error: its kind, the stage, the topic, partition and offsets where known, one line of text, and its cause.
///
/// `Display` prints the one line; the chain of causes is printed by whoever reports it (see [`Error::chain`]).
/// Messages hold no payload and no secret.
#[derive(Clone)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    stage: Option<Stage>,
    topic_partition: Option<TopicPartition>,
    offset_range: Option<OffsetRange>,
    message: String,
    /// A row was refused for what it holds: see [`Error::about_rows`].
    about_rows: bool,
    source: Option<Source>,
}

impl Error {
    /// An error of `kind` with one line of text: lower case, no full stop, values last as `key=value`.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let inner = Inner {
            kind,
            stage: None,
            topic_partition: None,
            offset_range: None,
            message: message.into(),
            about_rows: false,
            source: None,
        };
        Self { inner: Box::new(inner) }
    }

    /// [`ErrorKind::Config`].
    #[must_use]
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// [`ErrorKind::Unavailable`].
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::OffsetsLost`].
    #[must_use]
    pub fn offsets_lost(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::OffsetsLost, message)
    }

    /// [`ErrorKind::Corrupt`].
    #[must_use]
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// [`ErrorKind::Fenced`].
    #[must_use]
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fenced, message)
    }

    /// [`ErrorKind::Transform`].
    #[must_use]
    pub fn transform(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Transform, message)
    }

    /// [`ErrorKind::Internal`].
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Says which stage failed; the first one told stays.
    #[must_use]
    pub fn at(mut self, stage: Stage) -> Self {
        self.inner.stage.get_or_insert(stage);
        self
    }

    /// Says which topic-partition is meant.
    #[must_use]
    pub fn on(mut self, topic_partition: TopicPartition) -> Self {
        self.inner.topic_partition = Some(topic_partition);
        self
    }

    /// Says which range of which topic-partition is meant.
    #[must_use]
    pub fn in_range(mut self, range: OffsetRange) -> Self {
        self.inner.topic_partition = Some(range.topic_partition.clone());
        self.inner.offset_range = Some(range);
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner.source = Some(Arc::from(source.into()));
        self
    }

    /// Says that rows were refused for what they hold, and for nothing else: without the records they come from the same batch
    /// would go through.
    #[must_use]
    pub(crate) fn about_rows(mut self) -> Self {
        self.inner.about_rows = true;
        self
    }

    /// Whether rows were refused for what they hold, so that it helps to find the records they come from.
    #[must_use]
    pub fn is_about_rows(&self) -> bool {
        self.inner.about_rows
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Where it happened.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.inner.stage
    }

    /// The topic-partition it is about.
    #[must_use]
    pub fn topic_partition(&self) -> Option<&TopicPartition> {
        self.inner.topic_partition.as_ref()
    }

    /// The range it is about.
    #[must_use]
    pub fn offset_range(&self) -> Option<&OffsetRange> {
        self.inner.offset_range.as_ref()
    }

    /// This error and its causes in one line, joined by `: `.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Libraries often repeat their cause in their own text.
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        line.replace(['\n', '\r'], " ")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner;
        f.write_str(&inner.message)?;
        match (&inner.offset_range, &inner.topic_partition) {
            (Some(range), _) => write!(f, " {range}"),
            (None, Some(tp)) => write!(f, " topic={} partition={}", tp.topic, tp.partition),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.inner.kind)?;
        if let Some(stage) = self.inner.stage {
            write!(f, " in {stage}")?;
        }
        write!(f, ": {}", self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
