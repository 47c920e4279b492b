//! Where the offsets of a job would go, by what its store and Kafka say: asked for once, outside of any stream.

use std::{collections::BTreeMap, sync::Arc};

use super::{inquiry::Inquiry, latest::whole_answers};
use crate::{
    clock::Clock,
    commit::{ApplicationInfo, OffsetMove, StoredPosition},
    config::Job,
    error::{Error, Result, Stage},
    plan::{Adjusted, PartitionOffsets, ResetOffset, ResetTo, StartLookups, reset_offset},
    types::{Offset, TopicId, TopicPartition},
};

/// Which partitions are meant: of a topic these, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicScope {
    /// The topic.
    pub topic: String,
    /// Its partitions; none named are all.
    pub partitions: Vec<i32>,
}

impl TopicScope {
    fn has(&self, topic_partition: &TopicPartition) -> bool {
        *topic_partition.topic == *self.topic
            && (self.partitions.is_empty() || self.partitions.contains(&topic_partition.partition))
    }
}

/// Where one partition would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedReset {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The stored offset; `None` if there is none yet.
    pub current: Option<Offset>,
    /// Where it goes.
    pub new: ResetOffset,
    /// The first offset that Kafka still has.
    pub earliest: Offset,
    /// The offset after the last record that may be read.
    pub latest: Offset,
    /// The topic's id as the broker tells it, or else as it is stored.
    pub topic_id: Option<TopicId>,
    /// Whether the stored offset is of another topic of that name: an earlier one, or one of another cluster.
    pub of_another_topic: bool,
}

/// Where all offsets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedResets {
    /// The partitions, in their order.
    pub partitions: Vec<PlannedReset>,
    /// The Kafka cluster that they go to, where that is another one than the stored offsets belong to.
    pub cluster_id: Option<String>,
}

/// Which of a job's offsets are meant, and which cluster's.
#[derive(Debug, Clone, Copy)]
pub struct ResetScope<'a> {
    /// Of a topic these partitions, or all; none named is all of the job.
    pub topics: &'a [TopicScope],
    /// Whether the cluster is meant to be another one than the stored offsets belong to.
    pub new_cluster: bool,
}

impl PlannedReset {
    /// The change of what is stored; `None` if nothing changes.
    #[must_use]
    pub fn to_move(&self) -> Option<OffsetMove> {
        let changes = self.current != Some(self.new.offset) || self.of_another_topic;
        changes.then(|| OffsetMove {
            topic_partition: self.topic_partition.clone(),
            expected: self.current,
            until_offset: self.new.offset,
            topic_id: self.topic_id.clone(),
        })
    }
}

/// Where the partitions of `scope` would go, in the order of topic and partition. Kafka is asked no longer than
/// `stream.start_timeout`.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) if the job has no such topic or partition, one cannot be shifted, or a new cluster is meant and
/// is none, has not all of the offsets, or would get a part of them only;
/// [`Unavailable`](crate::ErrorKind::Unavailable) if Kafka does not answer for all of them;
/// [`Corrupt`](crate::ErrorKind::Corrupt) if it is another cluster than the one the offsets belong to.
pub async fn plan_reset(
    job: &Job,
    (application, stored): (&ApplicationInfo, &[StoredPosition]),
    to: &ResetTo,
    scope: ResetScope<'_>,
    clock: Arc<dyn Clock>,
) -> Result<PlannedResets> {
    let (inquiry, answers) = whole_answers(job, clock).await?;
    let cluster_id = cluster(application.cluster_id.as_deref(), inquiry.cluster_id().await?, scope.new_cluster)?;
    let (scope, new_cluster) = (scope.topics, scope.new_cluster);
    let mut partitions = answers.partitions(inquiry.filter());
    let known: Vec<TopicPartition> = partitions.iter().map(|(topic_partition, _)| topic_partition.clone()).collect();
    check_scope(scope, &known)?;
    if let ResetTo::Offsets(offsets) = to {
        let named: Vec<_> = offsets.keys().map(scope_of).collect();
        check_scope(&named, &known)?;
    }
    partitions.retain(|(topic_partition, _)| scope.is_empty() || scope.iter().any(|one| one.has(topic_partition)));
    let by_timestamp = by_timestamp(&inquiry, to, &partitions).await?;
    let mut planned = Vec::new();
    for (topic_partition, told_id) in partitions {
        let (Some(&earliest), Some(&latest)) =
            (answers.earliest.get(&topic_partition), answers.latest.get(&topic_partition))
        else {
            continue;
        };
        let position = stored.iter().find(|stored| stored.topic_partition == topic_partition);
        let stored_id = position.and_then(|stored| stored.topic_id.clone());
        let made_again = told_id.is_some() && stored_id.is_some() && told_id != stored_id;
        let of_another_topic = position.is_some() && (made_again || new_cluster);
        // Where a topic was made again, `to-current` is a choice; a number of another cluster is none here.
        let counted = matches!(to, ResetTo::ShiftBy(_)) || new_cluster && *to == ResetTo::Current;
        if of_another_topic && counted {
            let whose = if new_cluster { "another cluster" } else { "an earlier topic of that name" };
            let text = format!("the stored offset is of {whose}, so that nothing can be counted from it");
            return Err(Error::config(text).on(topic_partition));
        }
        let current = position.map(|stored| stored.until_offset);
        let found = by_timestamp.get(&topic_partition).copied().flatten();
        let known = PartitionOffsets { current, earliest, latest, by_timestamp: found };
        let new = reset_offset(to, &topic_partition, &known).map_err(Error::config)?;
        let topic_id = told_id.or(stored_id.filter(|_| !new_cluster));
        let with = |new| PlannedReset { topic_partition, current, new, earliest, latest, topic_id, of_another_topic };
        planned.extend(new.map(with));
    }
    if new_cluster {
        refuse_a_part(&planned, &known)?;
    }
    Ok(PlannedResets { partitions: planned, cluster_id })
}

/// All or none: an offset that stays would be one of the cluster before, and a partition that has none would begin at the earliest
/// one. And a number that the new cluster does not have is one of the cluster before as well.
fn refuse_a_part(planned: &[PlannedReset], partitions: &[TopicPartition]) -> Result<()> {
    let goes = |known: &&TopicPartition| planned.iter().any(|one| one.topic_partition == **known);
    if let Some(stays) = partitions.iter().find(|known| !goes(known)) {
        let text = "all partitions of the job go to the new cluster or none: say where this one goes as well";
        return Err(Error::config(text).on(stays.clone()));
    }
    let asked = |one: &PlannedReset| match one.new.adjusted {
        Some(Adjusted::BelowEarliest { wanted } | Adjusted::AboveLatest { wanted }) => Some(wanted),
        Some(Adjusted::NoneAfter) | None => None,
    };
    match planned.iter().find_map(|one| Some((one, asked(one)?))) {
        None => Ok(()),
        Some((one, offset)) => {
            let PlannedReset { earliest, latest, .. } = one;
            let text = format!(
                "the new cluster does not have this offset offset={offset} earliest={earliest} latest={latest}"
            );
            Err(Error::config(text).on(one.topic_partition.clone()))
        }
    }
}

fn scope_of(topic_partition: &TopicPartition) -> TopicScope {
    TopicScope { topic: topic_partition.topic.to_string(), partitions: vec![topic_partition.partition] }
}

/// Refuses a topic or partition that the job does not read.
fn check_scope(scope: &[TopicScope], partitions: &[TopicPartition]) -> Result<()> {
    for one in scope {
        let of_topic = || partitions.iter().filter(|known| *known.topic == *one.topic);
        if of_topic().next().is_none() {
            return Err(Error::config(format!("the job has no partition of this topic topic={:?}", one.topic)));
        }
        let unknown = one.partitions.iter().find(|partition| !of_topic().any(|known| known.partition == **partition));
        if let Some(partition) = unknown {
            let topic = &one.topic;
            return Err(Error::config(format!(
                "the topic has no such partition topic={topic:?} partition={partition}"
            )));
        }
    }
    Ok(())
}

/// The first offsets at or after the time, if one is asked for; `None` where no record is as late.
async fn by_timestamp(
    inquiry: &Inquiry,
    to: &ResetTo,
    partitions: &[(TopicPartition, Option<TopicId>)],
) -> Result<BTreeMap<TopicPartition, Option<Offset>>> {
    let ResetTo::Timestamp(ms) = to else { return Ok(BTreeMap::new()) };
    let by_timestamp = partitions.iter().map(|(topic_partition, _)| (topic_partition.clone(), *ms)).collect();
    let told = inquiry.ask_start(StartLookups { by_timestamp, ..StartLookups::default() }).await?.by_timestamp;
    match partitions.iter().find(|(topic_partition, _)| !told.contains_key(topic_partition)) {
        None => Ok(told),
        Some((silent, _)) => {
            let error = inquiry.why_silent(Error::unavailable("Kafka did not tell the offset of a time"));
            Err(error.at(Stage::Plan).on(silent.clone()))
        }
    }
}

/// Offsets of one cluster say nothing about another. The new cluster, if one is meant.
fn cluster(stored: Option<&str>, told: Option<String>, new_cluster: bool) -> Result<Option<String>> {
    match (stored, told, new_cluster) {
        (Some(stored), Some(found), false) if *stored != found => Err(Error::corrupt(format!(
            "the stored offsets belong to another Kafka cluster stored={stored:?} found={found:?}"
        ))),
        (_, _, false) => Ok(None),
        (Some(stored), Some(found), true) if *stored == found => {
            Err(Error::config(format!("the stored offsets belong to this Kafka cluster already cluster={found:?}")))
        }
        (_, Some(found), true) => Ok(Some(found)),
        (_, None, true) => {
            Err(Error::config("the Kafka cluster does not tell its id, so that it cannot be told from another"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(current: Option<i64>, new: i64, of_another_topic: bool) -> Option<OffsetMove> {
        let at = Offset::clamped;
        let new = ResetOffset { offset: at(new), adjusted: None };
        let (topic_partition, topic_id) = (TopicPartition::new("t", 0), Some(TopicId::new("id")));
        let (current, earliest, latest) = (current.map(at), at(0), at(9));
        PlannedReset { topic_partition, current, new, earliest, latest, topic_id, of_another_topic }.to_move()
    }

    #[test]
    fn only_what_changes_is_moved() {
        assert_eq!(planned(Some(5), 5, false), None);
        assert_eq!(planned(None, 5, false).unwrap().expected, None);
        assert_eq!(planned(Some(5), 4, false).unwrap().read_again().unwrap().count(), 1);
        assert_eq!(planned(Some(5), 6, false).unwrap().read_again(), None);
        // The same number in a topic that was made again is another place.
        assert!(planned(Some(5), 5, true).is_some());
    }

    #[test]
    fn a_topic_or_partition_that_the_job_has_not_is_refused() {
        let partitions = [TopicPartition::new("t", 0), TopicPartition::new("t", 1)];
        let check = |topic: &str, of: &[i32]| {
            check_scope(&[TopicScope { topic: topic.to_owned(), partitions: of.to_vec() }], &partitions)
        };
        check("t", &[]).unwrap();
        check("t", &[1, 0]).unwrap();
        assert!(check("u", &[]).unwrap_err().to_string().ends_with("topic=\"u\""));
        assert!(check("t", &[0, 2]).unwrap_err().to_string().ends_with("partition=2"));
    }

    #[test]
    fn another_cluster_must_be_meant_and_must_be_one() {
        let told = |stored, told: Option<&str>, new| cluster(stored, told.map(str::to_owned), new);
        assert_eq!(told(Some("a"), Some("a"), false).unwrap(), None);
        assert_eq!(told(None, Some("a"), false).unwrap(), None);
        assert_eq!(told(Some("a"), None, false).unwrap(), None);
        assert_eq!(told(Some("a"), Some("b"), true).unwrap(), Some("b".to_owned()));
        assert_eq!(told(None, Some("b"), true).unwrap(), Some("b".to_owned()));
        let kind = |result: Result<Option<String>>| result.unwrap_err().kind();
        assert_eq!(kind(told(Some("a"), Some("b"), false)), crate::ErrorKind::Corrupt);
        assert_eq!(kind(told(Some("a"), Some("a"), true)), crate::ErrorKind::Config);
        assert_eq!(kind(told(Some("a"), None, true)), crate::ErrorKind::Config);
    }
}
