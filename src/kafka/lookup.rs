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
/// How long metadata may take that are only asked for because something else was not answered.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);
/// So many partitions are asked for in one call, the others in calls beside it: librdkafka joins the answers to one call
/// in a time that grows with the square of their number, 3 ms for 1,000.
const LISTED_TOGETHER_MAX: usize = 128;
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
    bootstrap_servers: String,
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
            bootstrap_servers: properties.bootstrap_servers().to_owned(),
        })
    }

    /// The latest offset of each partition, in the order of `partitions`: the last stable offset under read_committed,
    /// else the high watermark.
    #[must_use]
    pub fn latest(&self, partitions: &[TopicPartition], isolation: IsolationLevel) -> Vec<PartitionOffset> {
        let [latest] = self.list(&[at(partitions, OFFSET_LATEST)], isolation, false);
        latest
    }

    /// The first offset that each partition still has, in the order of `partitions`.
    #[must_use]
    pub fn earliest(&self, partitions: &[TopicPartition], isolation: IsolationLevel) -> Vec<PartitionOffset> {
        let [earliest] = self.list(&[at(partitions, OFFSET_EARLIEST)], isolation, false);
        earliest
    }

    /// [`latest`](Self::latest) and [`earliest`](Self::earliest), asked at the same time. Which of the two is answered first
    /// is not known.
    #[must_use]
    pub fn latest_and_earliest(
        &self,
        partitions: &[TopicPartition],
        isolation: IsolationLevel,
    ) -> [Vec<PartitionOffset>; 2] {
        self.list(&[at(partitions, OFFSET_LATEST), at(partitions, OFFSET_EARLIEST)], isolation, false)
    }

    /// The first offset of each partition whose timestamp is at or after the given milliseconds since 1970-01-01 UTC, in
    /// the order given.
    #[must_use]
    pub fn at_timestamp(&self, times: &[(TopicPartition, i64)], isolation: IsolationLevel) -> Vec<PartitionOffset> {
        // A negative time would be taken for a specification such as "latest".
        let wanted = times.iter().map(|(topic_partition, ms)| place_at(topic_partition, (*ms).max(0))).collect();
        let [found] = self.list(&[wanted], isolation, true);
        found
    }

    /// Answers to questions that are asked at the same time, each over places of its own.
    fn list<const N: usize>(
        &self,
        questions: &[Vec<Place<'_>>; N],
        isolation: IsolationLevel,
        by_timestamp: bool,
    ) -> [Vec<PartitionOffset>; N] {
        // A partition that comes twice would fail the whole call.
        let distinct = questions.each_ref().map(|places| distinct(places));
        let mut outcomes = self.ask(&distinct, isolation, by_timestamp);
        self.ask_stale_again(&distinct, &mut outcomes, isolation, by_timestamp);
        if outcomes.iter().flatten().any(|outcome| *outcome != OffsetOutcome::NotAnswered) {
            self.answered();
        }
        std::array::from_fn(|number| {
            let (asked, outcomes) = (&distinct[number], &outcomes[number]);
            let outcome_of = |index: usize, place: &Place<'_>| match asked.get(index) {
                Some(same) if same.topic_partition == place.topic_partition => Some(outcomes[index]),
                _ => asked.iter().position(|one| one.topic_partition == place.topic_partition).map(|at| outcomes[at]),
            };
            let answer = |(index, place): (usize, &Place<'_>)| PartitionOffset {
                topic_partition: place.topic_partition.clone(),
                outcome: outcome_of(index, place).unwrap_or(OffsetOutcome::NotAnswered),
            };
            questions[number].iter().enumerate().map(answer).collect()
        })
    }

    fn ask_stale_again(
        &self,
        questions: &[Vec<Place<'_>>],
        outcomes: &mut [Vec<OffsetOutcome>],
        isolation: IsolationLevel,
        by_timestamp: bool,
    ) {
        let stale_of = |outcomes: &Vec<OffsetOutcome>| -> Vec<usize> {
            (0..outcomes.len()).filter(|&index| may_be_stale(outcomes[index])).collect()
        };
        let stale: Vec<Vec<usize>> = outcomes.iter().map(stale_of).collect();
        if stale.iter().all(Vec::is_empty) {
            return;
        }
        let again: Vec<Vec<Place<'_>>> =
            questions.iter().zip(&stale).map(|(places, stale)| stale.iter().map(|&at| places[at]).collect()).collect();
        self.refresh(again.iter().flatten().map(|place| &*place.topic_partition.topic).collect());
        let told = self.ask(&again, isolation, by_timestamp);
        for ((outcomes, stale), told) in outcomes.iter_mut().zip(stale).zip(told) {
            for (at, outcome) in stale.into_iter().zip(told) {
                outcomes[at] = outcome;
            }
        }
    }

    fn ask(
        &self,
        questions: &[Vec<Place<'_>>],
        isolation: IsolationLevel,
        by_timestamp: bool,
    ) -> Vec<Vec<OffsetOutcome>> {
        let calls: Vec<&[Place<'_>]> = questions.iter().flat_map(|places| places.chunks(LISTED_TOGETHER_MAX)).collect();
        let committed = isolation == IsolationLevel::ReadCommitted;
        let listed = self.client.list_offsets(&calls, committed, REQUEST_TIMEOUT);
        self.drain_events();
        let mut told = calls.iter().zip(listed).flat_map(|(places, listed)| match listed {
            Ok(listed) => listed.into_iter().map(|one| OffsetOutcome::of(one, by_timestamp)).collect(),
            Err(error) => vec![self.failed(&error); places.len()],
        });
        questions.iter().map(|places| told.by_ref().take(places.len()).collect()).collect()
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
        if !topics.is_empty() && described.as_ref().map_or(true, Vec::is_empty) {
            // It is the controller that is asked. One that is gone for good stays the controller to the client until metadata
            // name another, and those come by themselves only after minutes.
            let _ = self.client.has_controller(METADATA_TIMEOUT);
        }
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

    /// The brokers that the client first asks.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
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

fn place_at(topic_partition: &TopicPartition, offset: i64) -> Place<'_> {
    Place { topic_partition, offset, leader_epoch: None }
}

fn at(partitions: &[TopicPartition], offset: i64) -> Vec<Place<'_>> {
    partitions.iter().map(|topic_partition| place_at(topic_partition, offset)).collect()
}

/// Each partition once.
fn distinct<'a>(places: &[Place<'a>]) -> Vec<Place<'a>> {
    // In order, as they mostly come, none comes twice.
    if places.is_sorted_by(|one, next| one.topic_partition < next.topic_partition) {
        return places.to_vec();
    }
    let mut seen = HashSet::with_capacity(places.len());
    places.iter().copied().filter(|place| seen.insert(place.topic_partition)).collect()
}
