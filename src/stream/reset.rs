//! Where the offsets of a job would go, by what its store and Kafka say: asked for once, outside of any stream.

use std::{collections::BTreeMap, sync::Arc};

use super::{inquiry::Inquiry, latest::whole_answers};
use crate::{
    clock::Clock,
    commit::{ApplicationInfo, OffsetMove, StoredPosition},
    config::Job,
    error::{Error, Result, Stage},
    plan::{PartitionOffsets, ResetOffset, ResetTo, StartLookups, reset_offset},
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
    /// Whether the stored offset is of an earlier topic of that name.
    pub of_another_topic: bool,
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

/// Where the partitions of `scope` would go (all of the job, if it is empty), in the order of topic and partition. Kafka is
/// asked no longer than `stream.start_timeout`.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) if the job has no such topic or partition, or one cannot be shifted;
/// [`Unavailable`](crate::ErrorKind::Unavailable) if Kafka does not answer for all of them;
/// [`Corrupt`](crate::ErrorKind::Corrupt) if it is another cluster than the one the offsets belong to.
pub async fn plan_reset(
    job: &Job,
    (application, stored): (&ApplicationInfo, &[StoredPosition]),
    to: &ResetTo,
    scope: &[TopicScope],
    clock: Arc<dyn Clock>,
) -> Result<Vec<PlannedReset>> {
    let (inquiry, answers) = whole_answers(job, clock).await?;
    same_cluster(application, inquiry.cluster_id().await?)?;
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
        let of_another_topic = told_id.is_some() && stored_id.is_some() && told_id != stored_id;
        if of_another_topic && matches!(to, ResetTo::ShiftBy(_)) {
            let text = "the stored offset is of an earlier topic of that name, so that nothing can be counted from it";
            return Err(Error::config(text).on(topic_partition));
        }
        let current = position.map(|stored| stored.until_offset);
        let found = by_timestamp.get(&topic_partition).copied().flatten();
        let known = PartitionOffsets { current, earliest, latest, by_timestamp: found };
        let new = reset_offset(to, &topic_partition, &known).map_err(Error::config)?;
        let topic_id = told_id.or(stored_id);
        let with = |new| PlannedReset { topic_partition, current, new, earliest, latest, topic_id, of_another_topic };
        planned.extend(new.map(with));
    }
    Ok(planned)
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

/// Offsets of one cluster say nothing about another.
fn same_cluster(application: &ApplicationInfo, told: Option<String>) -> Result<()> {
    match (&application.cluster_id, told) {
        (Some(stored), Some(found)) if *stored != found => Err(Error::corrupt(format!(
            "the stored offsets belong to another Kafka cluster stored={stored:?} found={found:?}"
        ))),
        _ => Ok(()),
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
}
