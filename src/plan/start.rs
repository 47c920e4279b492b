//! Where reading begins at the first start.
//!
//! The positions of all partitions are fixed together, once the broker has answered for all of them. From then on the
//! stored offsets alone decide.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::StartPolicy,
    error::{Error, Result, Stage},
    kafka::{OffsetOutcome, PartitionOffset},
    types::{Offset, TopicPartition},
};

/// What the brokers have to be asked, one question for each list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StartLookups {
    /// The first offset that they still have.
    pub earliest: Vec<TopicPartition>,
    /// The offset after the last one that may be read, by the job's isolation level.
    pub latest: Vec<TopicPartition>,
    /// The first offset whose timestamp is this or later; milliseconds since 1970-01-01 UTC.
    pub by_timestamp: Vec<(TopicPartition, i64)>,
}

/// What it answered so far.
#[derive(Debug, Clone, Default)]
pub struct StartAnswers {
    /// Earliest offsets.
    pub earliest: BTreeMap<TopicPartition, Offset>,
    /// Latest offsets.
    pub latest: BTreeMap<TopicPartition, Offset>,
    /// Offsets by timestamp; `None` where no record is as late.
    pub by_timestamp: BTreeMap<TopicPartition, Option<Offset>>,
}

impl StartAnswers {
    /// Takes in the earliest offsets.
    pub fn take_earliest(&mut self, answers: impl IntoIterator<Item = PartitionOffset>) {
        self.earliest.extend(offsets(answers));
    }

    /// Takes in the latest offsets.
    pub fn take_latest(&mut self, answers: impl IntoIterator<Item = PartitionOffset>) {
        self.latest.extend(offsets(answers));
    }

    /// Takes in the offsets by timestamp.
    pub fn take_by_timestamp(&mut self, answers: impl IntoIterator<Item = PartitionOffset>) {
        for PartitionOffset { topic_partition, outcome } in answers {
            match outcome {
                OffsetOutcome::NoneAfter => drop(self.by_timestamp.insert(topic_partition, None)),
                outcome => {
                    let offset = outcome.offset();
                    self.by_timestamp.extend(offset.map(|offset| (topic_partition, Some(offset))));
                }
            }
        }
    }
}

fn offsets(answers: impl IntoIterator<Item = PartitionOffset>) -> impl Iterator<Item = (TopicPartition, Offset)> {
    answers.into_iter().filter_map(|answer| Some((answer.topic_partition, answer.outcome.offset()?)))
}

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartPositions {
    /// All partitions have their position.
    Ready(BTreeMap<TopicPartition, Offset>),
    /// These have no answer yet: nothing is fixed before all have.
    Waiting(Vec<TopicPartition>),
}

/// What has to be asked to fix the positions of these partitions.
#[must_use]
pub fn start_lookups(policy: &StartPolicy, partitions: &[TopicPartition]) -> StartLookups {
    let all = || partitions.to_vec();
    match policy {
        StartPolicy::None => StartLookups::default(),
        StartPolicy::Earliest => StartLookups { earliest: all(), ..StartLookups::default() },
        StartPolicy::Latest => StartLookups { latest: all(), ..StartLookups::default() },
        StartPolicy::Timestamp(ms) => {
            let by_timestamp = partitions.iter().map(|topic_partition| (topic_partition.clone(), *ms)).collect();
            StartLookups { latest: all(), by_timestamp, ..StartLookups::default() }
        }
        StartPolicy::Offsets(_) => {
            let named = partitions.iter().filter(|topic_partition| explicit(policy, topic_partition).is_some());
            StartLookups { earliest: all(), latest: named.cloned().collect(), ..StartLookups::default() }
        }
    }
}

/// Fixes the positions of all partitions that exist.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) if the policy is `none`, or names a partition that is not there or an
/// offset that Kafka does not have. All of them are named.
pub fn resolve_start(
    policy: &StartPolicy,
    partitions: &[TopicPartition],
    answers: &StartAnswers,
) -> Result<StartPositions> {
    let mut faults = Vec::new();
    match policy {
        StartPolicy::None => {
            return Err(Error::config("kafka.start is none, and no offsets are stored").at(Stage::Start));
        }
        StartPolicy::Offsets(topics) => {
            let there: BTreeSet<_> = partitions.iter().map(|tp| (&*tp.topic, tp.partition)).collect();
            let named = topics.iter().flat_map(|(topic, partitions)| partitions.keys().map(move |p| (topic, *p)));
            let absent = named.filter(|(topic, partition)| !there.contains(&(topic.as_str(), *partition)));
            faults.extend(absent.map(|(topic, partition)| format!("{topic}-{partition} does not exist")));
        }
        StartPolicy::Earliest | StartPolicy::Latest | StartPolicy::Timestamp(_) => {}
    }
    let mut positions = BTreeMap::new();
    let mut waiting = Vec::new();
    for topic_partition in partitions {
        match position(policy, topic_partition, answers) {
            Some(Ok(offset)) => {
                positions.insert(topic_partition.clone(), offset);
            }
            Some(Err(fault)) => faults.push(fault),
            None => waiting.push(topic_partition.clone()),
        }
    }
    if !faults.is_empty() {
        let message = format!("kafka.start.offsets cannot be used: {}", faults.join("; "));
        return Err(Error::config(message).at(Stage::Start));
    }
    Ok(if waiting.is_empty() { StartPositions::Ready(positions) } else { StartPositions::Waiting(waiting) })
}

fn explicit(policy: &StartPolicy, topic_partition: &TopicPartition) -> Option<Offset> {
    let StartPolicy::Offsets(topics) = policy else { return None };
    topics.get(&*topic_partition.topic)?.get(&topic_partition.partition).copied()
}

/// The position of one partition, or why it cannot be; `None` while an answer is missing.
fn position(
    policy: &StartPolicy,
    topic_partition: &TopicPartition,
    answers: &StartAnswers,
) -> Option<Result<Offset, String>> {
    let earliest = answers.earliest.get(topic_partition).copied();
    let latest = answers.latest.get(topic_partition).copied();
    match policy {
        StartPolicy::None => None,
        StartPolicy::Earliest => earliest.map(Ok),
        StartPolicy::Latest => latest.map(Ok),
        StartPolicy::Timestamp(_) => match answers.by_timestamp.get(topic_partition)? {
            // By timestamp Kafka may find a record that is not yet stable; reading ends before it either way.
            Some(offset) => Some(Ok(latest?.min(*offset))),
            None => latest.map(Ok),
        },
        StartPolicy::Offsets(_) => {
            let Some(offset) = explicit(policy, topic_partition) else { return earliest.map(Ok) };
            let (earliest, latest) = (earliest?, latest?);
            Some(if (earliest..=latest).contains(&offset) {
                Ok(offset)
            } else {
                Err(format!("{topic_partition} has offsets {earliest} to {latest}, not {offset}"))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn tp(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition::new(topic, partition)
    }

    fn at(offset: i64) -> Offset {
        Offset::new(offset).unwrap()
    }

    fn explicit_offsets(list: &[(&str, i32, i64)]) -> StartPolicy {
        let mut topics: BTreeMap<String, BTreeMap<i32, Offset>> = BTreeMap::new();
        for (topic, partition, offset) in list {
            topics.entry((*topic).to_owned()).or_default().insert(*partition, at(*offset));
        }
        StartPolicy::Offsets(topics)
    }

    /// Three topics of one partition with 16 records each.
    fn sixteen(topics: [&str; 3]) -> (Vec<TopicPartition>, StartAnswers) {
        let partitions: Vec<_> = topics.iter().map(|topic| tp(topic, 0)).collect();
        let of = |offset| partitions.iter().map(|tp| (tp.clone(), at(offset))).collect::<BTreeMap<_, _>>();
        let answers = StartAnswers { earliest: of(0), latest: of(16), ..StartAnswers::default() };
        (partitions, answers)
    }

    fn ready(policy: &StartPolicy, partitions: &[TopicPartition], answers: &StartAnswers) -> Vec<i64> {
        match resolve_start(policy, partitions, answers).unwrap() {
            StartPositions::Ready(positions) => positions.into_values().map(Offset::get).collect(),
            StartPositions::Waiting(waiting) => panic!("waiting for {waiting:?}"),
        }
    }

    #[test]
    fn dk_01_dk_07_explicit_offsets_win_and_the_rest_begins_at_the_earliest() {
        let (partitions, answers) = sixteen(["basic1", "basic2", "basic3"]);
        let policy = explicit_offsets(&[("basic3", 0, 2)]);
        let positions = ready(&policy, &partitions, &answers);
        assert_eq!(positions, [0, 0, 2]);
        assert_eq!(positions.iter().map(|from| 16 - from).sum::<i64>(), 46);
        let lookups = start_lookups(&policy, &partitions);
        let latest = vec![tp("basic3", 0)];
        assert_eq!(lookups, StartLookups { earliest: partitions, latest, by_timestamp: vec![] });
    }

    #[test]
    fn dk_03_explicit_offsets_with_a_pattern() {
        let (partitions, answers) = sixteen(["pat1", "pat2", "pat3"]);
        let positions = ready(&explicit_offsets(&[("pat2", 0, 3), ("pat3", 0, 4)]), &partitions, &answers);
        assert_eq!(positions.iter().map(|from| 16 - from).sum::<i64>(), 41);
    }

    #[test]
    fn dk_04_latest_begins_after_what_is_there() {
        let (partitions, answers) = sixteen(["a", "b", "c"]);
        assert_eq!(ready(&StartPolicy::Latest, &partitions, &answers), [16, 16, 16]);
        let lookups = start_lookups(&StartPolicy::Latest, &partitions);
        assert_eq!(lookups, StartLookups { latest: partitions, ..StartLookups::default() });
    }

    #[test]
    fn dk_05_an_explicit_offset_must_be_one_that_kafka_has() {
        // Spark takes an offset beyond the end and fails later; here the start is refused.
        let (partitions, answers) = sixteen(["a", "b", "c"]);
        assert_eq!(ready(&explicit_offsets(&[("a", 0, 16)]), &partitions, &answers), [16, 0, 0]);
        let policy = explicit_offsets(&[("a", 0, 17), ("b", 7, 0), ("x", 0, 0)]);
        let error = resolve_start(&policy, &partitions, &answers).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        for part in ["a-0 has offsets 0 to 16, not 17", "b-7 does not exist", "x-0 does not exist"] {
            assert!(text.contains(part), "{text}");
        }
        let below = StartAnswers { earliest: [(tp("a", 0), at(5))].into(), ..answers };
        assert!(resolve_start(&explicit_offsets(&[("a", 0, 4)]), &[tp("a", 0)], &below).is_err());
    }

    #[test]
    fn none_without_stored_offsets_is_refused() {
        let (partitions, answers) = sixteen(["a", "b", "c"]);
        assert_eq!(start_lookups(&StartPolicy::None, &partitions), StartLookups::default());
        assert_eq!(resolve_start(&StartPolicy::None, &partitions, &answers).unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn a_timestamp_finds_its_offset_or_the_end() {
        let (partitions, mut answers) = sixteen(["a", "b", "c"]);
        let offset = |offset| OffsetOutcome::Offset { offset: at(offset), leader_epoch: None };
        let told = [("a", offset(3)), ("b", OffsetOutcome::NoneAfter), ("c", offset(20))];
        let told = told.map(|(topic, outcome)| PartitionOffset { topic_partition: tp(topic, 0), outcome });
        answers.take_by_timestamp(told);
        let policy = StartPolicy::Timestamp(1_000);
        assert_eq!(ready(&policy, &partitions, &answers), [3, 16, 16]);
        assert_eq!(start_lookups(&policy, &partitions).by_timestamp[0], (tp("a", 0), 1_000));
    }

    #[test]
    fn nothing_is_fixed_before_all_have_answered() {
        let (partitions, mut answers) = sixteen(["a", "b", "c"]);
        answers.earliest.remove(&tp("b", 0));
        let waiting = resolve_start(&StartPolicy::Earliest, &partitions, &answers).unwrap();
        assert_eq!(waiting, StartPositions::Waiting(vec![tp("b", 0)]));
        let nobody = resolve_start(&StartPolicy::Timestamp(1), &partitions, &answers).unwrap();
        assert_eq!(nobody, StartPositions::Waiting(partitions));
    }
}
