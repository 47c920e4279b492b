//! Every question to Kafka, asked on a thread that may wait.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    error::{Error, Result},
    kafka::{IsolationLevel, OffsetLookup, PartitionOffset, TopicAnswer},
    plan::{Answers, StartAnswers, StartLookups, TopicFilter},
    types::TopicPartition,
};

/// Asks Kafka about topics and offsets. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Inquiry {
    lookup: Arc<OffsetLookup>,
    filter: TopicFilter,
    isolation: IsolationLevel,
    known: Arc<Known>,
}

/// What is known of the cluster. Each becomes true once, and stays so.
#[derive(Debug, Default)]
struct Known {
    /// It has a controller, and with it tells topic ids.
    controller: AtomicBool,
    /// Topics have ids here: they were told, or are stored.
    ids: AtomicBool,
    /// It was said that there are none.
    warned: AtomicBool,
}

impl Inquiry {
    pub(super) fn new(lookup: OffsetLookup, filter: TopicFilter, isolation: IsolationLevel) -> Self {
        Self { lookup: Arc::new(lookup), filter, isolation, known: Arc::default() }
    }

    pub(super) fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    async fn asking<T: Send + 'static>(&self, ask: impl FnOnce(&Self) -> T + Send + 'static) -> Result<T> {
        let this = self.clone();
        let answer = tokio::task::spawn_blocking(move || ask(&this)).await;
        answer.map_err(|error| Error::internal("a question to Kafka could not be asked").caused_by(error))
    }

    /// Topics, earliest and latest offsets: what a plan needs. What was not answered is not in it.
    pub(super) async fn ask(&self) -> Result<Answers> {
        self.asking(|this| {
            let topics = this.topics();
            let mut answers = Answers { topics, ..Answers::default() };
            let partitions: Vec<TopicPartition> =
                answers.partitions(&this.filter).into_iter().map(|(topic_partition, _)| topic_partition).collect();
            // Whichever is answered first: what retention deletes in between is either seen as a loss here, or makes a range
            // that reading refuses. It never makes one that skips.
            let [latest, earliest] = this.lookup.latest_and_earliest(&partitions, this.isolation);
            answers.take_latest(latest);
            answers.take_earliest(earliest);
            answers
        })
        .await
    }

    /// Earliest and latest offsets of these partitions, whatever the job reads: the latest ones first.
    pub(super) async fn ask_ends(&self, partitions: Vec<TopicPartition>) -> Result<[Vec<PartitionOffset>; 2]> {
        self.asking(move |this| this.lookup.latest_and_earliest(&partitions, this.isolation)).await
    }

    /// What the first start's positions need.
    pub(super) async fn ask_start(&self, lookups: StartLookups) -> Result<StartAnswers> {
        self.asking(move |this| {
            let mut answers = StartAnswers::default();
            answers.take_earliest(this.lookup.earliest(&lookups.earliest, this.isolation));
            answers.take_latest(this.lookup.latest(&lookups.latest, this.isolation));
            answers.take_by_timestamp(this.lookup.at_timestamp(&lookups.by_timestamp, this.isolation));
            answers
        })
        .await
    }

    /// Topics, partitions and ids only: asked again right before a commit.
    pub(super) async fn ask_topics(&self) -> Result<BTreeMap<Arc<str>, TopicAnswer>> {
        self.asking(Self::topics).await
    }

    pub(super) async fn cluster_id(&self) -> Result<Option<String>> {
        self.asking(|this| this.lookup.cluster_id()).await
    }

    /// Whether topics have ids here; without them a topic that was created again cannot be told from the old one.
    pub(super) fn tells_ids(&self) -> bool {
        self.known.controller.load(Ordering::Relaxed)
    }

    /// From now on an answer that cannot tell ids counts as none: an id is stored, and a topic told without one would look
    /// like another topic.
    pub(super) fn expect_ids(&self) {
        self.known.ids.store(true, Ordering::Relaxed);
    }

    fn topics(&self) -> BTreeMap<Arc<str>, TopicAnswer> {
        let names: Vec<Arc<str>> = match self.filter.names() {
            Some(names) => names.to_vec(),
            // Without an answer there is no topic; those that are tracked are then left out of the plan.
            None => {
                let all = self.lookup.topics().unwrap_or_default();
                all.into_iter()
                    .map(|(name, _)| Arc::from(name))
                    .filter(|name: &Arc<str>| self.filter.matches(name))
                    .collect()
            }
        };
        let asked: Vec<&str> = names.iter().map(|name| &**name).collect();
        if asked.is_empty() {
            return BTreeMap::new();
        }
        let answers = match self.controller() {
            Some(true) => self.lookup.topic_ids(&asked),
            Some(false) if !self.known.ids.load(Ordering::Relaxed) => {
                if !self.known.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!("the cluster tells no topic ids: a topic that is created again is not noticed");
                }
                self.lookup.partitions(&asked)
            }
            Some(false) | None => return BTreeMap::new(),
        };
        if answers.iter().any(|answer| matches!(answer, TopicAnswer::Topic { id: Some(_), .. })) {
            self.expect_ids();
        }
        names.iter().cloned().zip(answers).collect()
    }

    /// Whether the cluster has a controller, and with it tells topic ids. That it has one is true for good. That it has none
    /// holds for this answer only: a controller that is just leaving, or that has no listener for this client, is not among
    /// the brokers of the answer either.
    fn controller(&self) -> Option<bool> {
        if self.tells_ids() {
            return Some(true);
        }
        let found = self.lookup.has_controller()?;
        if found {
            self.known.controller.store(true, Ordering::Relaxed);
        }
        Some(found)
    }

    /// Why nobody answers, as far as the client knows.
    pub(super) fn why_silent(&self, error: Error) -> Error {
        let (servers, protocol) = (self.lookup.bootstrap_servers(), self.lookup.security_protocol());
        let cause = self.lookup.last_client_errors().first().map_or_else(String::new, |cause| format!(": {cause}"));
        let message = format!("{error}{cause} bootstrap_servers={servers} security.protocol={protocol}");
        Error::new(error.kind(), message).caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::{
        clock::SystemClock,
        config::Subscription,
        error::ErrorKind,
        kafka::KafkaProperties,
        plan::{Tracked, review},
        types::{Offset, TopicId},
    };

    /// The mock cluster's controller is none of its brokers, as may happen for a moment in a real one.
    #[tokio::test]
    async fn without_a_controller_an_answer_without_ids_is_none_where_an_id_is_stored() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let properties = KafkaProperties::new(cluster.bootstrap_servers(), "inquiry", BTreeMap::new());
        let lookup = OffsetLookup::new(&properties, SystemClock::shared()).unwrap();
        let filter = TopicFilter::new(&Subscription::Topics(vec!["t".to_owned()])).unwrap();
        let inquiry = Inquiry::new(lookup, filter.clone(), IsolationLevel::ReadCommitted);
        let told = inquiry.ask_topics().await.unwrap();
        assert_eq!(told.get("t"), Some(&TopicAnswer::Topic { partitions: 1, id: None }));
        assert!(!inquiry.tells_ids());
        // Taken as an answer, it would end the job: the topic had an id and is told without one.
        let tracked = [Tracked {
            topic_partition: TopicPartition::new("t", 0),
            topic_id: Some(TopicId::new("id")),
            committed: Offset::ZERO,
            latest: None,
            truncated: false,
        }];
        let of = |answers: &Answers| review(&tracked, &filter, answers, crate::config::OnDataLoss::Fail);
        assert_eq!(of(&inquiry.ask().await.unwrap()).unwrap_err().kind(), ErrorKind::Corrupt);
        inquiry.expect_ids();
        let review = of(&inquiry.ask().await.unwrap()).unwrap();
        assert!(review.positions.is_empty() && review.problems.len() == 1, "{review:?}");
        assert!(!inquiry.tells_ids());
        drop(cluster);
    }
}
