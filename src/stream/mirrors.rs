//! The mirrors of a context: which streams' offsets go where, and who says whose the application is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    context::Parts,
    place::Place,
    source::{SourceSpec, kafka_properties},
    sources::Sources,
};
use crate::{
    clock::Clock,
    commit::{Committer, StoreHealth},
    config::{Job, KafkaConfig},
    error::{Error, Result, Stage},
    report::{
        ConsumerGroupTarget, Mirror, MirrorEnd, MirrorKind, MirrorTarget, Offsets, Ownership, Reporter, ZookeeperTarget,
    },
    types::{BatchCommit, Offset, TopicPartition},
};

/// How long the mirrors may take for what is committed and not written when the stream ends. The sources end meanwhile.
const STOP_MIRRORS: Duration = Duration::from_secs(2);
/// How long a command waits for each mirror.
const WRITE_ONCE: Duration = Duration::from_secs(10);

/// The mirrors of a context, none as a rule. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Mirrors {
    all: Arc<[One]>,
    sources: Sources,
}

#[derive(Debug)]
struct One {
    /// The numbers of the streams whose offsets it has.
    streams: Vec<usize>,
    mirror: Mirror,
}

/// Mirrors that are made and not begun: nothing is written before the application is owned.
pub(super) struct Prepared(Vec<(Vec<usize>, MirrorKind, Box<dyn MirrorTarget>)>);

/// Asks the store.
struct Owner(Committer);

#[async_trait]
impl Ownership for Owner {
    async fn check(&self) -> Result<()> {
        self.0.check_owner().await
    }
}

/// The mirrors that the context is to have. Nothing is connected yet.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) if one cannot be.
pub(super) fn prepare(parts: &Parts) -> Result<Prepared> {
    let clusters = clusters(&parts.specs);
    let mut prepared: Vec<(Vec<usize>, MirrorKind, Box<dyn MirrorTarget>)> = Vec::new();
    if let Some(mirror) = &parts.report.consumer_group {
        mirror.check(&parts.application, &parts.store.url).map_err(|told| refused(MirrorKind::ConsumerGroup, &told))?;
        let own = |spec: &SourceSpec| matches!(spec, SourceSpec::Kafka { group_id: Some(group), .. } if *group == mirror.group);
        if parts.specs.iter().any(own) {
            let told = "a stream commits offsets to this group itself, by commit_async: a copy needs another";
            return Err(refused(MirrorKind::ConsumerGroup, told));
        }
        for (kafka, streams) in &clusters {
            let target = ConsumerGroupTarget::new(&kafka_properties(kafka, &parts.application), &mirror.group)?;
            prepared.push((streams.clone(), MirrorKind::ConsumerGroup, Box::new(target)));
        }
    }
    if let Some(mirror) = &parts.report.zookeeper {
        let target = ZookeeperTarget::new(mirror, Arc::clone(&parts.clock));
        let target = target.map_err(|error| refused(MirrorKind::Zookeeper, &error.to_string()))?;
        let streams = clusters.into_iter().flat_map(|(_, streams)| streams).collect();
        prepared.push((streams, MirrorKind::Zookeeper, Box::new(target)));
    }
    Ok(Prepared(prepared))
}

fn refused(kind: MirrorKind, told: &str) -> Error {
    Error::config(format!("report.{kind}: {told}")).at(Stage::Start)
}

/// The clusters that are read, and the numbers of the streams that read each.
fn clusters(specs: &[SourceSpec]) -> Vec<(&KafkaConfig, Vec<usize>)> {
    let mut clusters: Vec<(&KafkaConfig, Vec<usize>)> = Vec::new();
    for (number, spec) in specs.iter().enumerate() {
        let SourceSpec::Kafka { kafka, .. } = spec else { continue };
        let same = |known: &KafkaConfig| {
            known.bootstrap_servers == kafka.bootstrap_servers && known.properties == kafka.properties
        };
        match clusters.iter_mut().find(|(known, _)| same(known)) {
            Some((_, streams)) => streams.push(number),
            None => clusters.push((kafka, vec![number])),
        }
    }
    clusters
}

impl Prepared {
    /// Begins all, with what is stored: a copy that a dead process left behind is brought up to date.
    pub(super) fn begin(
        self,
        sources: &Sources,
        committer: &Committer,
        (reporter, clock): (&Reporter, &Arc<dyn Clock>),
        places: &BTreeMap<TopicPartition, Place>,
    ) -> Mirrors {
        let stored: Vec<_> = places.iter().map(|(known, place)| (known.clone(), place.offset)).collect();
        let owner: Arc<dyn Ownership> = Arc::new(Owner(committer.clone()));
        let begin = |(streams, kind, target): (Vec<usize>, MirrorKind, Box<dyn MirrorTarget>)| {
            let offsets = stored.iter().filter(|(known, _)| is_of(&streams, sources, known)).cloned().collect();
            let mirror = Mirror::start(kind, target, Arc::clone(&owner), Arc::clone(clock), offsets);
            One { streams, mirror }
        };
        let all: Arc<[One]> = self.0.into_iter().map(begin).collect();
        reporter.mirrors(all.iter().map(|one| one.mirror.state()).collect());
        Mirrors { all, sources: sources.clone() }
    }
}

impl Mirrors {
    /// A batch's ends, to be told once it is committed; nothing where there is no mirror.
    pub(super) fn ends_of(&self, commit: &BatchCommit) -> Vec<(TopicPartition, Offset)> {
        if self.all.is_empty() {
            return Vec::new();
        }
        let end = |(known, until, _): (&TopicPartition, _, _)| (known.clone(), until);
        super::batch::ends_of(commit).map(end).collect()
    }

    /// These are committed.
    pub(super) fn committed(&self, ends: &[(TopicPartition, Offset)]) {
        for one in self.all.iter() {
            let own = ends.iter().filter(|(known, _)| is_of(&one.streams, &self.sources, known));
            one.mirror.state().committed(own.cloned());
        }
    }

    /// Somebody moved the stored offsets: the mirrors follow.
    pub(super) fn moved(&self, places: &BTreeMap<TopicPartition, Place>) {
        for one in self.all.iter() {
            let own = places.iter().filter(|(known, _)| is_of(&one.streams, &self.sources, known));
            one.mirror.state().begin(own.map(|(known, place)| (known.clone(), place.offset)).collect::<Offsets>());
        }
    }

    /// Ends all at the same time. What is committed is written before, unless the application may be another process's.
    pub(super) async fn close(&self, health: &StoreHealth) {
        let end = match health {
            StoreHealth::Ended(..) => MirrorEnd::Abandon,
            _ => MirrorEnd::Flush,
        };
        futures_util::future::join_all(self.all.iter().map(|one| one.mirror.close(end, STOP_MIRRORS))).await;
    }
}

/// Whether a partition is of one of these streams. What is no topic of Kafka has a colon in its name.
fn is_of(streams: &[usize], sources: &Sources, known: &TopicPartition) -> bool {
    !known.topic.contains(':') && streams.contains(&sources.number_of(known))
}

/// Writes offsets that a command has moved into the job's mirrors, once: the job itself does not run. What goes wrong is told and
/// no more, for the job's next start writes them as well.
pub(crate) async fn mirror_once(job: &Job, offsets: &Offsets, clock: &Arc<dyn Clock>) {
    let mut targets: Vec<(MirrorKind, Result<Box<dyn MirrorTarget>>)> = Vec::new();
    if let Some(mirror) = &job.report.consumer_group {
        let target = ConsumerGroupTarget::new(&kafka_properties(&job.kafka, &job.name), &mirror.group);
        targets.push((MirrorKind::ConsumerGroup, target.map(|target| Box::new(target) as Box<dyn MirrorTarget>)));
    }
    if let Some(mirror) = &job.report.zookeeper {
        let target = ZookeeperTarget::new(mirror, Arc::clone(clock)).map(ZookeeperTarget::without_presence);
        targets.push((MirrorKind::Zookeeper, target.map(|target| Box::new(target) as Box<dyn MirrorTarget>)));
    }
    for (kind, target) in targets {
        let written = async {
            let mut target = target?;
            let written = target.write(offsets).await;
            target.close().await;
            written
        };
        let written = tokio::time::timeout(WRITE_ONCE, written).await;
        if let Err(error) = written.unwrap_or_else(|_| Err(Error::unavailable("no answer"))) {
            let mirror = kind.as_str();
            tracing::warn!(mirror, error = error.chain(), "the moved offsets are not mirrored before the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind,
        config::{ConsumerGroupMirror, ReportConfig, ZookeeperMirror},
        stream::{DirectStream, StreamingContext},
    };

    fn spec(stream: DirectStream) -> SourceSpec {
        let DirectStream { kafka, max_rate_per_partition, group_id } = stream;
        SourceSpec::Kafka { kafka: Box::new(kafka), max_rate_per_partition, group_id }
    }

    #[test]
    fn streams_of_one_cluster_share_a_group_and_each_cluster_has_its_own() {
        let stream = |servers: &str| spec(DirectStream::topics(["t"]).bootstrap_servers(servers));
        let secured = spec(DirectStream::topics(["t"]).bootstrap_servers("a:1").property("security.protocol", "SSL"));
        let specs = [stream("a:1"), stream("b:1"), stream("a:1"), secured];
        let streams: Vec<Vec<usize>> = clusters(&specs).into_iter().map(|(_, streams)| streams).collect();
        assert_eq!(streams, [vec![0, 2], vec![1], vec![3]]);
    }

    async fn refused(store: &str, report: ReportConfig, text: &str) {
        let builder = StreamingContext::builder("orders", Duration::from_secs(1)).store(store).unwrap();
        let context = builder.report_config(ReportConfig { listen: None, ..report }).build().unwrap();
        let stream = DirectStream::topics(["t"]).bootstrap_servers("a:9092").group_id("mine");
        context.direct_stream(stream).unwrap().foreach_rdd(|_| Ok(()));
        let error = context.start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }

    #[tokio::test]
    async fn a_mirror_that_somebody_else_writes_is_refused_before_anything_is_connected() {
        let group = |group: &str| {
            let consumer_group = Some(ConsumerGroupMirror { group: group.to_owned() });
            ReportConfig { consumer_group, ..ReportConfig::default() }
        };
        refused("checkpoint:never", group("mine"), "by commit_async: a copy needs another").await;
        refused("checkpoint:never", group(" "), "report.consumer_group: not the name of a consumer group").await;
        refused("kafka:", group("orders"), "the store keeps its offsets in this group").await;
        let zookeeper = ZookeeperMirror { connect: "a:x".to_owned(), group: "g".to_owned(), digest: None };
        let report = ReportConfig { zookeeper: Some(zookeeper), ..ReportConfig::default() };
        refused("checkpoint:never", report, "report.zookeeper: not a list of host:port").await;
    }
}
