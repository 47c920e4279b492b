//! Every question to Kafka, asked on a thread that may wait.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use crate::{
    error::{Error, Result},
    kafka::{IsolationLevel, OffsetLookup, TopicAnswer},
    plan::{Answers, StartAnswers, StartLookups, TopicFilter},
    types::TopicPartition,
};

/// Asks Kafka about topics and offsets. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Inquiry {
    lookup: Arc<OffsetLookup>,
    filter: TopicFilter,
    isolation: IsolationLevel,
    /// Whether the cluster has a controller; empty until it is known.
    controller: Arc<OnceLock<bool>>,
}

impl Inquiry {
    pub(super) fn new(lookup: OffsetLookup, filter: TopicFilter, isolation: IsolationLevel) -> Self {
        Self { lookup: Arc::new(lookup), filter, isolation, controller: Arc::default() }
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
            // Latest first: what retention deletes in between makes a range that reading refuses, never one that skips.
            answers.take_latest(this.lookup.latest(&partitions, this.isolation));
            answers.take_earliest(this.lookup.earliest(&partitions, this.isolation));
            answers
        })
        .await
    }

    /// What the first start's positions need, for all partitions of the job.
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
        self.controller.get() == Some(&true)
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
            Some(false) => self.lookup.partitions(&asked),
            None => return BTreeMap::new(),
        };
        names.iter().cloned().zip(answers).collect()
    }

    /// Whether the cluster has a controller, and with it tells topic ids: asked until it is known, then never again.
    fn controller(&self) -> Option<bool> {
        if let Some(known) = self.controller.get() {
            return Some(*known);
        }
        let found = self.lookup.has_controller()?;
        if self.controller.set(found).is_ok() && !found {
            tracing::warn!("the cluster tells no topic ids: a topic that is created again is not noticed");
        }
        Some(found)
    }

    /// Why nobody answers, as far as the client knows.
    pub(super) fn why_silent(&self, error: Error) -> Error {
        let protocol = self.lookup.security_protocol();
        match self.lookup.last_client_errors().first() {
            Some(cause) => {
                Error::new(error.kind(), format!("{error}: {cause} security.protocol={protocol}")).caused_by(error)
            }
            None => error,
        }
    }
}
