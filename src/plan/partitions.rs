//! Which partitions there are, and whether Kafka still has what is to be read from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use regex::Regex;

pub use super::problem::{Problem, ProblemKind};
use super::{Position, problem::first_of};
use crate::{
    config::{OnDataLoss, Subscription},
    error::{Error, Result, Stage},
    kafka::{OffsetOutcome, PartitionOffset, TopicAnswer},
    types::{LostRange, LostRangeReason, Offset, TopicId, TopicPartition},
};

/// Kafka's own topics, which no pattern means.
const INTERNAL_TOPICS: [&str; 2] = ["__consumer_offsets", "__transaction_state"];

/// Tells which topics a job reads.
#[derive(Debug, Clone)]
pub enum TopicFilter {
    /// These.
    Topics(Vec<Arc<str>>),
    /// Those whose whole name matches.
    Pattern(Regex),
    /// Single partitions, and the names of their topics.
    Partitions(BTreeSet<TopicPartition>, Vec<Arc<str>>),
}

impl TopicFilter {
    /// The filter of a subscription.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the pattern is not a regular expression.
    pub fn new(subscription: &Subscription) -> Result<Self> {
        Ok(match subscription {
            Subscription::Topics(topics) => {
                Self::Topics(topics.iter().map(|topic| Arc::from(topic.as_str())).collect())
            }
            Subscription::Pattern(pattern) => {
                let whole = Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
                    Error::config("the topic pattern is not a regular expression").at(Stage::Start).caused_by(error)
                })?;
                Self::Pattern(whole)
            }
            Subscription::Partitions(partitions) => {
                let names: BTreeSet<_> = partitions.iter().map(|partition| Arc::clone(&partition.topic)).collect();
                Self::Partitions(partitions.clone(), names.into_iter().collect())
            }
        })
    }

    /// Whether the job reads this partition.
    #[must_use]
    pub fn reads(&self, topic_partition: &TopicPartition) -> bool {
        match self {
            Self::Partitions(partitions, _) => partitions.contains(topic_partition),
            Self::Topics(_) | Self::Pattern(_) => self.matches(&topic_partition.topic),
        }
    }

    /// Whether the job reads this topic, or partitions of it.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Self::Topics(topics) | Self::Partitions(_, topics) => topics.iter().any(|known| **known == *topic),
            Self::Pattern(pattern) => pattern.is_match(topic) && !INTERNAL_TOPICS.contains(&topic),
        }
    }

    /// The topics that the broker has to be asked about; `None` is all of them.
    #[must_use]
    pub fn names(&self) -> Option<&[Arc<str>]> {
        match self {
            Self::Topics(topics) | Self::Partitions(_, topics) => Some(topics),
            Self::Pattern(_) => None,
        }
    }
}

/// What the broker answered in one interval. What is not in it was not answered, which says nothing about the thing
/// itself.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// The topics. Where a topic's id is stored, only an answer that tells ids will do: one that cannot would look like a
    /// topic that lost its id.
    pub topics: BTreeMap<Arc<str>, TopicAnswer>,
    /// The first offset of each partition that Kafka still has.
    pub earliest: BTreeMap<TopicPartition, Offset>,
    /// The offset after the last one that may be read, by the job's isolation level.
    pub latest: BTreeMap<TopicPartition, Offset>,
    /// The epoch of the leader that told the latest offset.
    pub leader_epochs: BTreeMap<TopicPartition, i32>,
    /// Why a partition has no offset, where the broker said so.
    pub refused: BTreeMap<TopicPartition, OffsetOutcome>,
    /// Topics that will never hold more than they do, as files: read to their ends they are no part of a batch any more.
    pub closed: BTreeSet<Arc<str>>,
}

impl Answers {
    /// Takes in the earliest offsets.
    pub fn take_earliest(&mut self, answers: impl IntoIterator<Item = PartitionOffset>) {
        for PartitionOffset { topic_partition, outcome } in answers {
            match outcome.offset() {
                Some(offset) => drop(self.earliest.insert(topic_partition, offset)),
                None => drop(self.refused.insert(topic_partition, outcome)),
            }
        }
    }

    /// Takes in the latest offsets.
    pub fn take_latest(&mut self, answers: impl IntoIterator<Item = PartitionOffset>) {
        for PartitionOffset { topic_partition, outcome } in answers {
            let OffsetOutcome::Offset { offset, leader_epoch } = outcome else {
                self.refused.insert(topic_partition, outcome);
                continue;
            };
            if let Some(epoch) = leader_epoch {
                self.leader_epochs.insert(topic_partition.clone(), epoch);
            }
            self.latest.insert(topic_partition, offset);
        }
    }

    /// Whether nothing will ever come at this position.
    fn is_over(&self, position: &Position) -> bool {
        let topic_partition = &position.topic_partition;
        self.closed.contains(&topic_partition.topic) && self.latest.get(topic_partition) == Some(&position.from)
    }

    /// Why there is no offset of this partition.
    fn silence_of(&self, topic_partition: &TopicPartition) -> ProblemKind {
        match self.refused.get(topic_partition) {
            None | Some(OffsetOutcome::NotAnswered | OffsetOutcome::Offset { .. }) => ProblemKind::NoAnswer,
            Some(outcome) => ProblemKind::Refused { reason: outcome.to_string() },
        }
    }

    /// Every partition of the job's topics, in the order of topic and partition, with its topic's id.
    #[must_use]
    pub fn partitions(&self, filter: &TopicFilter) -> Vec<(TopicPartition, Option<TopicId>)> {
        let mut found = Vec::new();
        for (topic, answer) in &self.topics {
            if let TopicAnswer::Topic { id, partitions } = answer
                && filter.matches(topic)
            {
                let topic_partition = |partition| TopicPartition::new(Arc::clone(topic), partition);
                let read = (0..*partitions).map(topic_partition).filter(|partition| filter.reads(partition));
                found.extend(read.map(|partition| (partition, id.clone())));
            }
        }
        found
    }

    /// The topics that the job names and that are not there, or were not answered for; and single partitions that it names.
    #[must_use]
    pub fn missing_topics(&self, filter: &TopicFilter) -> Vec<Problem> {
        let named = match filter {
            TopicFilter::Partitions(named, _) => Some(named),
            TopicFilter::Topics(_) | TopicFilter::Pattern(_) => None,
        };
        let missing_partitions = named.into_iter().flatten().filter_map(|named| match self.topics.get(&named.topic) {
            Some(TopicAnswer::Topic { partitions, .. }) if named.partition >= *partitions => {
                Some(Problem::of_partition(named, ProblemKind::UnknownPartition { partitions: *partitions }))
            }
            _ => None,
        });
        let missing = filter.names().unwrap_or_default().iter().filter_map(|topic| {
            let kind = silence_of_topic(self.topics.get(topic))?;
            Some(Problem::of_topic(topic, kind))
        });
        missing.chain(missing_partitions).collect()
    }
}

/// Why nothing is known of a topic; `None` if something is.
fn silence_of_topic(answer: Option<&TopicAnswer>) -> Option<ProblemKind> {
    Some(match answer {
        Some(TopicAnswer::Topic { .. }) => return None,
        Some(TopicAnswer::Unknown) => ProblemKind::UnknownTopic,
        None | Some(TopicAnswer::NotAnswered) => ProblemKind::NoAnswer,
        Some(TopicAnswer::Unauthorized) => ProblemKind::Refused { reason: OffsetOutcome::Unauthorized.to_string() },
        Some(TopicAnswer::Transient(code)) => {
            ProblemKind::Refused { reason: OffsetOutcome::Transient(*code).to_string() }
        }
    })
}

/// A partition as it stands: with the stored offset, or the end of the batch that is being committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The id of the topic that the offset belongs to; `None` if the broker told none.
    pub topic_id: Option<TopicId>,
    /// The next offset to read.
    pub committed: Offset,
    /// The latest offset that the broker told last, if any: how far a topic reached that is gone now.
    pub latest: Option<Offset>,
    /// Reading found that the log was cut off below the offset.
    pub truncated: bool,
}

/// What became of the partitions in this interval.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Review {
    /// Where reading goes on, in the order of topic and partition.
    pub positions: Vec<Position>,
    /// Partitions that join now; they are among the positions.
    pub joined: Vec<TopicPartition>,
    /// What is skipped. It belongs into the transaction of the batch that starts from these positions.
    pub lost_ranges: Vec<LostRange>,
    /// Partitions and topics that are left out, and why.
    pub problems: Vec<Problem>,
}

/// Compares what is tracked with what the broker answered.
///
/// - Partitions of the job's topics that are not tracked join at their earliest offset.
/// - Tracked partitions of topics that the job does not read any more are left alone.
/// - A log that reading found cut off counts as one that ends before the committed offset.
/// - A tracked partition of a closed topic, read to its end, is left out: it is done.
/// - A partition without an answer is left out, and so is one that is not there: neither proves a loss.
/// - A topic with another id, a committed offset below the earliest or above the latest one: offsets are lost.
///
/// # Errors
/// [`ErrorKind::OffsetsLost`](crate::ErrorKind::OffsetsLost) under [`OnDataLoss::Fail`], naming what is lost and the ways
/// out; [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if a topic that had an id has none.
pub fn review(
    tracked: &[Tracked],
    filter: &TopicFilter,
    answers: &Answers,
    on_data_loss: OnDataLoss,
) -> Result<Review> {
    let mut review = Review { problems: answers.missing_topics(filter), ..Review::default() };
    let mut losses = Vec::new();
    let mut known = BTreeSet::new();
    for partition in tracked.iter().filter(|partition| filter.reads(&partition.topic_partition)) {
        if !known.insert(&partition.topic_partition) {
            continue;
        }
        match judge(partition, answers) {
            // Thousands of files that were read long ago would each be an empty range of every batch.
            Ok(position) if answers.is_over(&position) => {}
            Ok(position) => review.positions.push(position),
            Err(kind) => {
                let problem = Problem::of_partition(&partition.topic_partition, kind);
                if problem.kind.is_loss() {
                    losses.push((partition, problem));
                } else if !review.problems.iter().any(|other| other.covers(&problem)) {
                    review.problems.push(problem);
                }
            }
        }
    }
    if on_data_loss == OnDataLoss::Fail || losses.iter().any(|(_, problem)| !problem.kind.can_be_skipped()) {
        first_of(losses.iter().map(|(_, problem)| problem))?;
    }
    for (partition, problem) in losses {
        skip(partition, problem, answers, &mut review);
    }
    join(&known, filter, answers, &mut review);
    review.positions.sort_by(|one, other| one.topic_partition.cmp(&other.topic_partition));
    review.lost_ranges.sort_by(|one, other| one.topic_partition.cmp(&other.topic_partition));
    Ok(review)
}

/// Where a tracked partition goes on, or why it does not.
fn judge(tracked: &Tracked, answers: &Answers) -> Result<Position, ProblemKind> {
    let topic_partition = &tracked.topic_partition;
    let committed = tracked.committed;
    let answer = answers.topics.get(&topic_partition.topic);
    let Some(TopicAnswer::Topic { id: topic_id, partitions }) = answer else {
        return Err(silence_of_topic(answer).unwrap_or(ProblemKind::NoAnswer));
    };
    // The id comes first: offsets of another topic say nothing about this one, even where they fit.
    match (&tracked.topic_id, topic_id) {
        (Some(known), None) => return Err(ProblemKind::IdMissing { known: known.clone() }),
        (Some(known), Some(found)) if known != found => {
            let (known, found) = (known.clone(), found.clone());
            return Err(ProblemKind::TopicRecreated { committed, known, found });
        }
        _ => {}
    }
    if topic_partition.partition >= *partitions {
        return Err(ProblemKind::UnknownPartition { partitions: *partitions });
    }
    let (Some(earliest), Some(latest)) = (answers.earliest.get(topic_partition), answers.latest.get(topic_partition))
    else {
        return Err(answers.silence_of(topic_partition));
    };
    if committed < *earliest {
        return Err(ProblemKind::Retention { committed, earliest: *earliest });
    }
    if committed > *latest || tracked.truncated {
        return Err(ProblemKind::Truncated { committed, latest: *latest });
    }
    Ok(position(tracked, topic_id.clone(), committed, answers))
}

/// Goes over a loss: one lost range, and the position after it.
fn skip(tracked: &Tracked, problem: Problem, answers: &Answers, review: &mut Review) {
    let topic_partition = &tracked.topic_partition;
    let committed = tracked.committed;
    let (reason, until_offset, from) = match &problem.kind {
        ProblemKind::Retention { earliest, .. } => (LostRangeReason::Retention, Some(*earliest), Some(*earliest)),
        // How much was cut off above the committed offset is not known, nor where below it. What is written from now on
        // comes at the latest offset; where that is past the committed one, the log goes on in another history there.
        ProblemKind::Truncated { latest, .. } => (LostRangeReason::Truncated, None, Some(committed.min(*latest))),
        ProblemKind::TopicRecreated { .. } => {
            let until = tracked.latest.filter(|latest| *latest >= committed);
            (LostRangeReason::TopicRecreated, until, answers.earliest.get(topic_partition).copied())
        }
        _ => return review.problems.push(problem),
    };
    let (topic_id, partitions) = match answers.topics.get(&topic_partition.topic) {
        Some(TopicAnswer::Topic { id, partitions }) => (id.clone(), *partitions),
        _ => (None, 0),
    };
    let Some(from) = from else {
        // The new topic may have fewer partitions than the old one.
        let kind = if topic_partition.partition < partitions {
            answers.silence_of(topic_partition)
        } else {
            ProblemKind::UnknownPartition { partitions }
        };
        return review.problems.push(Problem::of_partition(topic_partition, kind));
    };
    review.lost_ranges.push(LostRange {
        topic_partition: topic_partition.clone(),
        from_offset: committed,
        until_offset,
        reason,
        topic_id: tracked.topic_id.clone(),
    });
    review.positions.push(position(tracked, topic_id, from, answers));
}

fn position(tracked: &Tracked, topic_id: Option<TopicId>, from: Offset, answers: &Answers) -> Position {
    Position {
        topic_partition: tracked.topic_partition.clone(),
        topic_id,
        expected: Some(tracked.committed),
        expected_topic_id: tracked.topic_id.clone(),
        from,
        latest_epoch: answers.leader_epochs.get(&tracked.topic_partition).copied(),
    }
}

/// New partitions join where they begin, so that nothing written before they were seen is missed.
fn join(known: &BTreeSet<&TopicPartition>, filter: &TopicFilter, answers: &Answers, review: &mut Review) {
    for (topic_partition, topic_id) in answers.partitions(filter) {
        if known.contains(&topic_partition) {
            continue;
        }
        match answers.earliest.get(&topic_partition) {
            Some(from) => {
                review.joined.push(topic_partition.clone());
                review.positions.push(Position {
                    latest_epoch: answers.leader_epochs.get(&topic_partition).copied(),
                    topic_partition,
                    topic_id,
                    expected: None,
                    expected_topic_id: None,
                    from: *from,
                });
            }
            None => {
                let kind = answers.silence_of(&topic_partition);
                review.problems.push(Problem::of_partition(&topic_partition, kind));
            }
        }
    }
}

/// Remembers since when partitions and topics are left out. Time comes in as that of a clock that only goes forward.
#[derive(Debug, Clone, Default)]
pub struct Silence {
    since: BTreeMap<(Arc<str>, Option<i32>), (Duration, Problem)>,
}

impl Silence {
    /// Takes note of the problems of this interval; whatever is not among them is well again.
    pub fn note<'a>(&mut self, problems: impl IntoIterator<Item = &'a Problem>, now: Duration) {
        let mut before = std::mem::take(&mut self.since);
        for problem in problems {
            let key = (Arc::clone(&problem.topic), problem.partition);
            let since = before.remove(&key).map_or(now, |(since, _)| since);
            self.since.insert(key, (since, problem.clone()));
        }
    }

    /// The problem that has lasted longest, and how long.
    #[must_use]
    pub fn longest(&self, now: Duration) -> Option<(&Problem, Duration)> {
        let oldest = self.since.values().min_by_key(|(since, _)| *since)?;
        Some((&oldest.1, now.saturating_sub(oldest.0)))
    }

    /// Gives up on what has lasted longer than `limit`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) naming the topic and partition.
    pub fn check(&self, now: Duration, limit: Duration) -> Result<()> {
        match self.longest(now) {
            Some((problem, lasted)) if lasted >= limit => Err(problem.to_error_after(lasted)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "partitions_tests.rs"]
mod tests;
