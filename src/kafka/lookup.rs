//! Questions to the brokers: offsets, topics, partitions, ids. On a client of its own, so that no fetch delays them.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    CallError, Client, ClientError, ClientErrors, Code, IsolationLevel, KafkaProperties, Place,
    ffi::{ListedOffset, OFFSET_EARLIEST, OFFSET_LATEST, TopicPartitions},
};
use crate::{
    clock::Clock,
    error::Result,
    types::{Offset, TopicId, TopicPartition},
};

/// How long a broker may take to answer. Kafka's own clients wait longer, but a lookup is repeated every interval anyway.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// More topics than this are refreshed all at once, with all others of the cluster.
const REFRESHED_ALONE_MAX: usize = 20;
/// More events than this are left for the next call.
const EVENTS_MAX: usize = 10_000;

/// What a broker said of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetOutcome {
    /// An offset.
    Offset {
        /// The offset asked for.
        offset: Offset,
        /// The partition's leader epoch, if the broker told one.
        leader_epoch: Option<i32>,
    },
    /// There is no record at or after the timestamp.
    NoneAfter,
    /// No broker answered for it. No evidence of anything.
    NotAnswered,
    /// The topic or partition does not exist, or the principal may not know that it does.
    Unknown,
    /// The principal may not ask.
    Unauthorized,
    /// Another error, as right after a leader change: ask again.
    Transient(Code),
}

impl OffsetOutcome {
    /// The offset, if there is one.
    #[must_use]
    pub fn offset(self) -> Option<Offset> {
        match self {
            Self::Offset { offset, .. } => Some(offset),
            _ => None,
        }
    }

    /// Accepts an offset only if there is no error and it is not negative: for a broker that does not answer, the client
    /// reports success, no error, and offset -1001.
    fn of(listed: Option<ListedOffset>, by_timestamp: bool) -> Self {
        let Some(ListedOffset { code, offset, leader_epoch }) = listed else { return Self::NotAnswered };
        if code != Code::NONE {
            return Self::of_code(code);
        }
        match Offset::new(offset) {
            Some(offset) => Self::Offset { offset, leader_epoch },
            None if by_timestamp && offset == -1 => Self::NoneAfter,
            None => Self::NotAnswered,
        }
    }

    fn of_code(code: Code) -> Self {
        match code {
            Code::UNKNOWN_TOPIC_OR_PARTITION
            | Code::UNKNOWN_PARTITION_LOCAL
            | Code::UNKNOWN_TOPIC_LOCAL
            | Code::NOENT => Self::Unknown,
            Code::TOPIC_AUTHORIZATION_FAILED | Code::CLUSTER_AUTHORIZATION_FAILED => Self::Unauthorized,
            Code::TIMED_OUT | Code::TRANSPORT | Code::ALL_BROKERS_DOWN => Self::NotAnswered,
            other => Self::Transient(other),
        }
    }
}

impl fmt::Display for OffsetOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offset { offset, .. } => write!(f, "offset={offset}"),
            Self::NoneAfter => f.write_str("no record at or after the timestamp"),
            Self::NotAnswered => f.write_str("no broker answered"),
            Self::Unknown => f.write_str("the topic or partition does not exist, or the principal may not describe it"),
            Self::Unauthorized => f.write_str("the principal may not describe the topic"),
            Self::Transient(code) => write!(f, "{} code={code}", code.text()),
        }
    }
}

/// One partition's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOffset {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// What the broker said.
    pub outcome: OffsetOutcome,
}

/// What a broker said of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicAnswer {
    /// It exists.
    Topic {
        /// How many partitions it has.
        partitions: i32,
        /// Its id, if the broker told one; metadata never does.
        id: Option<TopicId>,
    },
    /// No broker answered. No evidence of anything.
    NotAnswered,
    /// It does not exist, or the principal may not know that it does.
    Unknown,
    /// The principal may not ask.
    Unauthorized,
    /// Another error: ask again.
    Transient(Code),
}

impl TopicAnswer {
    /// Whether a broker said anything at all.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        *self != Self::NotAnswered
    }

    fn of_code(code: Code) -> Self {
        match OffsetOutcome::of_code(code) {
            OffsetOutcome::Unknown => Self::Unknown,
            OffsetOutcome::Unauthorized => Self::Unauthorized,
            OffsetOutcome::Transient(code) => Self::Transient(code),
            _ => Self::NotAnswered,
        }
    }

    fn of(topic: &TopicPartitions) -> Self {
        if topic.code != Code::NONE {
            return Self::of_code(topic.code);
        }
        Self::Topic {
            partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            id: topic.id.as_deref().map(TopicId::new),
        }
    }
}

/// Asks the brokers. All calls wait for the answer, at most about 5 s: call them from a thread that may wait.
#[derive(Debug)]
pub struct OffsetLookup {
    client: Arc<Client>,
    clock: Arc<dyn Clock>,
    errors: ClientErrors,
    /// When the brokers last answered anything: errors from before are history.
    answered_at: Mutex<Option<Duration>>,
    security_protocol: String,
}

impl OffsetLookup {
    /// A lookup with a client of its own. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if a property is refused or does not exist.
    pub fn new(properties: &KafkaProperties, clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self {
            client: properties.planner()?,
            clock,
            errors: ClientErrors::default(),
            answered_at: Mutex::new(None),
            security_protocol: properties.security_protocol().to_owned(),
        })
    }

    /// The latest offset of each partition, in the order of `partitions`: the last stable offset under read_committed,
    /// else the high watermark.
    #[must_use]
    pub fn latest(&self, partitions: &[TopicPartition], isolation: IsolationLevel) -> Vec<PartitionOffset> {
        self.list(partitions.iter().map(|tp| (tp, OFFSET_LATEST)), isolation, false)
    }

    /// The first offset that each partition still has, in the order of `partitions`.
    #[must_use]
    pub fn earliest(&self, partitions: &[TopicPartition], isolation: IsolationLevel) -> Vec<PartitionOffset> {
        self.list(partitions.iter().map(|tp| (tp, OFFSET_EARLIEST)), isolation, false)
    }

    /// The first offset of each partition whose timestamp is at or after the given milliseconds since 1970-01-01 UTC, in
    /// the order given.
    #[must_use]
    pub fn at_timestamp(&self, times: &[(TopicPartition, i64)], isolation: IsolationLevel) -> Vec<PartitionOffset> {
        // A negative time would be taken for a specification such as "latest".
        self.list(times.iter().map(|(tp, ms)| (tp, (*ms).max(0))), isolation, true)
    }

    fn list<'a>(
        &self,
        wanted: impl Iterator<Item = (&'a TopicPartition, i64)>,
        isolation: IsolationLevel,
        by_timestamp: bool,
    ) -> Vec<PartitionOffset> {
        let wanted: Vec<Place<'a>> =
            wanted.map(|(topic_partition, offset)| Place { topic_partition, offset, leader_epoch: None }).collect();
        // A partition that comes twice would fail the whole call.
        let mut seen = HashSet::with_capacity(wanted.len());
        let places: Vec<_> = wanted.iter().copied().filter(|place| seen.insert(place.topic_partition)).collect();
        let outcomes = self.list_distinct(&places, isolation, by_timestamp);
        let outcome_of = |tp: &TopicPartition| {
            outcomes.iter().find(|(known, _)| *known == tp).map_or(OffsetOutcome::NotAnswered, |(_, outcome)| *outcome)
        };
        if places.len() == wanted.len() {
            return outcomes.iter().map(|&(tp, outcome)| answer(tp, outcome)).collect();
        }
        wanted.iter().map(|place| answer(place.topic_partition, outcome_of(place.topic_partition))).collect()
    }

    fn list_distinct<'a>(
        &self,
        places: &[Place<'a>],
        isolation: IsolationLevel,
        by_timestamp: bool,
    ) -> Vec<(&'a TopicPartition, OffsetOutcome)> {
        let mut outcomes = self.ask(places, isolation, by_timestamp);
        let stale: Vec<_> = (0..places.len()).filter(|&index| may_be_stale(outcomes[index])).collect();
        if !stale.is_empty() {
            self.refresh(stale.iter().map(|&index| &*places[index].topic_partition.topic).collect());
            let again: Vec<_> = stale.iter().map(|&index| places[index]).collect();
            for (&index, outcome) in stale.iter().zip(self.ask(&again, isolation, by_timestamp)) {
                outcomes[index] = outcome;
            }
        }
        if outcomes.iter().any(|outcome| *outcome != OffsetOutcome::NotAnswered) {
            self.answered();
        }
        places.iter().map(|place| place.topic_partition).zip(outcomes).collect()
    }

    fn ask(&self, places: &[Place<'_>], isolation: IsolationLevel, by_timestamp: bool) -> Vec<OffsetOutcome> {
        if places.is_empty() {
            return Vec::new();
        }
        let committed = isolation == IsolationLevel::ReadCommitted;
        let listed = self.client.list_offsets(places, committed, REQUEST_TIMEOUT);
        self.drain_events();
        match listed {
            Ok(listed) => listed.into_iter().map(|one| OffsetOutcome::of(one, by_timestamp)).collect(),
            Err(error) => vec![self.failed(&error); places.len()],
        }
    }

    /// Gets the metadata of topics anew. The client finds leaders in a cache, where "not authorised" stays for 15 minutes,
    /// and a partition that came later, or a leader elected since, is missing until the next refresh, after 5 minutes.
    fn refresh(&self, topics: BTreeSet<&str>) {
        let few = topics.len() <= REFRESHED_ALONE_MAX;
        let wanted = topics.into_iter().map(Some).take(if few { REFRESHED_ALONE_MAX } else { 0 });
        for topic in wanted.chain((!few).then_some(None)) {
            if let Err(error) = self.client.metadata(topic, REQUEST_TIMEOUT) {
                tracing::debug!(code = %error.code, "cannot refresh metadata: {}", error.text);
                return;
            }
        }
    }

    fn failed(&self, error: &CallError) -> OffsetOutcome {
        tracing::debug!(code = %error.code, security_protocol = self.security_protocol, "lookup failed: {}", error.text);
        OffsetOutcome::of_code(error.code)
    }

    /// All topics that the principal may see, with the number of their partitions.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if no broker answered.
    pub fn topics(&self) -> Result<Vec<(String, TopicAnswer)>> {
        let topics = self.client.metadata(None, REQUEST_TIMEOUT);
        self.drain_events();
        let topics = topics.map_err(|error| self.unavailable("cannot list the topics", &error))?;
        self.answered();
        Ok(topics.iter().map(|topic| (topic.topic.clone(), TopicAnswer::of(topic))).collect())
    }

    /// How many partitions each topic has, in the order of `topics`, from metadata.
    #[must_use]
    pub fn partitions(&self, topics: &[&str]) -> Vec<TopicAnswer> {
        let answers = topics.iter().map(|topic| match self.client.metadata(Some(topic), REQUEST_TIMEOUT) {
            Ok(found) => {
                self.answered();
                found.iter().find(|one| one.topic == **topic).map_or(TopicAnswer::Unknown, TopicAnswer::of)
            }
            Err(error) => TopicAnswer::of_code(error.code),
        });
        let answers = answers.collect();
        self.drain_events();
        answers
    }

    /// Partitions and id of each topic, in the order of `topics`, in one request. A broker without a controller never
    /// answers this: see [`partitions`](Self::partitions).
    #[must_use]
    pub fn topic_ids(&self, topics: &[&str]) -> Vec<TopicAnswer> {
        let described = self.client.describe_topics(topics, REQUEST_TIMEOUT);
        self.drain_events();
        match described {
            Ok(described) => {
                let answers: Vec<_> = topics
                    .iter()
                    .map(|topic| {
                        described
                            .iter()
                            .find(|one| one.topic == **topic)
                            .map_or(TopicAnswer::NotAnswered, TopicAnswer::of)
                    })
                    .collect();
                if answers.iter().any(|answer| *answer != TopicAnswer::NotAnswered) {
                    self.answered();
                }
                answers
            }
            Err(error) => {
                self.failed(&error);
                vec![TopicAnswer::of_code(error.code); topics.len()]
            }
        }
    }

    /// The cluster's id, if a broker told it in time.
    #[must_use]
    pub fn cluster_id(&self) -> Option<String> {
        let id = self.client.cluster_id(REQUEST_TIMEOUT);
        self.drain_events();
        if id.is_some() {
            self.answered();
        }
        id
    }

    /// Whether the cluster has a controller; `None` if no broker answered. Without one it never answers for topic ids, as
    /// the mock cluster.
    #[must_use]
    pub fn has_controller(&self) -> Option<bool> {
        self.client.has_controller(REQUEST_TIMEOUT)
    }

    /// The client's errors since the brokers last answered, the most telling class first: why nobody answers.
    #[must_use]
    pub fn last_client_errors(&self) -> Vec<ClientError> {
        self.drain_events();
        let since = *self.answered_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.errors.since(since.unwrap_or(Duration::ZERO))
    }

    /// The protocol that the client speaks: an endpoint that expects another one gives no cause.
    #[must_use]
    pub fn security_protocol(&self) -> &str {
        &self.security_protocol
    }

    fn drain_events(&self) {
        self.errors.take_in(self.client.poll_events(EVENTS_MAX), self.clock.monotonic());
    }

    fn answered(&self) {
        *self.answered_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.monotonic());
    }

    fn unavailable(&self, trying: &str, error: &CallError) -> crate::Error {
        let cause = self.last_client_errors().first().map_or_else(|| error.to_string(), ToString::to_string);
        crate::Error::unavailable(format!("{trying}: {cause} security_protocol={}", self.security_protocol))
    }
}

/// Whether the client may have said this from its cache, without asking a broker.
fn may_be_stale(outcome: OffsetOutcome) -> bool {
    matches!(outcome, OffsetOutcome::Unknown | OffsetOutcome::Unauthorized | OffsetOutcome::Transient(_))
}

fn answer(topic_partition: &TopicPartition, outcome: OffsetOutcome) -> PartitionOffset {
    PartitionOffset { topic_partition: topic_partition.clone(), outcome }
}
