//! All sources of a context, in order of definition: asked together, read each by its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::future::try_join_all;

use super::source::{Source, SourceSettings, SourceSpec};
use crate::{
    commit::StoredPosition,
    config::OnDataLoss,
    error::{Error, Result},
    kafka::TopicAnswer,
    plan::{Answers, Problem, Review, Tracked, review},
    read::{ReadRanges, Rehearsed},
    report::Reporter,
    types::{BatchCommit, Chunk, Flow, Offset, OffsetRange, RangeCounts, Stop, TopicId, TopicPartition},
};

/// The sources of a context. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    all: Arc<[Arc<dyn Source>]>,
}

/// What all sources answered in one interval, one after the other.
pub(super) struct AllAnswers(Vec<Answers>);

impl AllAnswers {
    /// The latest offset of every partition.
    pub(super) fn latest(&self) -> BTreeMap<TopicPartition, Offset> {
        let of = |answers: &Answers| answers.latest.clone();
        self.0.iter().flat_map(of).collect()
    }

    /// The id of every topic that tells one.
    pub(super) fn topic_ids(self) -> BTreeMap<Arc<str>, TopicId> {
        let told = |(topic, answer)| match answer {
            TopicAnswer::Topic { id: Some(id), .. } => Some((topic, id)),
            _ => None,
        };
        self.0.into_iter().flat_map(|answers| answers.topics).filter_map(told).collect()
    }

    /// Whether a partition is read to an end that will never move: a file that is done.
    pub(super) fn is_over(&self, topic_partition: &TopicPartition, committed: Option<Offset>) -> bool {
        let over = |answers: &Answers| {
            answers.closed.contains(&topic_partition.topic) && answers.latest.get(topic_partition).copied() == committed
        };
        committed.is_some() && self.0.iter().any(over)
    }

    /// The earliest offset of a partition, if one was told.
    pub(super) fn earliest(&self, topic_partition: &TopicPartition) -> Option<Offset> {
        self.0.iter().find_map(|answers| answers.earliest.get(topic_partition).copied())
    }
}

impl Sources {
    /// Nothing is connected yet. The sources share the memory budget of `settings`.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if a property or a pattern is refused.
    pub(super) fn new(specs: &[SourceSpec], settings: &SourceSettings<'_>) -> Result<Self> {
        let remote = specs.iter().filter(|spec| matches!(spec, SourceSpec::Kafka { .. })).count() as u64;
        let settings =
            SourceSettings { memory_max_bytes: settings.memory_max_bytes / remote.max(1), ..settings.clone() };
        let all = specs.iter().map(|spec| spec.source(&settings)).collect::<Result<Vec<_>>>()?;
        Ok(Self { all: all.into() })
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The number of the source whose partition it is. Those of none are the first one's: a past batch may have read what no
    /// stream reads any more.
    pub(super) fn number_of(&self, topic_partition: &TopicPartition) -> usize {
        if self.len() == 1 {
            return 0;
        }
        self.all.iter().position(|source| source.filter().reads(topic_partition)).unwrap_or(0)
    }

    pub(super) fn of(&self, topic_partition: &TopicPartition) -> Option<&Arc<dyn Source>> {
        self.all.get(self.number_of(topic_partition))
    }

    /// The ranges of each source, in the order in which they are given.
    pub(super) fn split(&self, ranges: &Arc<[OffsetRange]>) -> Vec<Arc<[OffsetRange]>> {
        if self.len() == 1 {
            return vec![Arc::clone(ranges)];
        }
        let mut split = vec![Vec::new(); self.len()];
        for range in ranges.iter() {
            if let Some(own) = split.get_mut(self.number_of(&range.topic_partition)) {
                own.push(range.clone());
            }
        }
        split.into_iter().map(Arc::from).collect()
    }

    /// Asks the servers: whole answers, or none yet.
    ///
    /// # Errors
    /// A topic that is not there, as [`Problem::to_error`] says it.
    pub(super) async fn ask_servers(&self) -> Result<Option<()>> {
        for source in self.all.iter().filter(|source| source.is_remote()) {
            if !is_whole(&**source, &source.ask().await?)? {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// Asks all for what there is now.
    ///
    /// # Errors
    /// What makes asking again useless; [`Config`](crate::ErrorKind::Config) if two streams read the same partition.
    pub(super) async fn ask(&self) -> Result<AllAnswers> {
        let answers = try_join_all(self.all.iter().map(|source| source.ask())).await?;
        let mut known = BTreeSet::new();
        if self.len() > 1 {
            for (source, answers) in self.all.iter().zip(&answers) {
                let partitions = answers.partitions(source.filter()).into_iter().map(|(partition, _)| partition);
                not_twice(&mut known, partitions)?;
            }
        }
        Ok(AllAnswers(answers))
    }

    /// The same, unless an answer is missing: `None` then.
    ///
    /// # Errors
    /// As [`ask_servers`](Self::ask_servers).
    pub(super) async fn ask_whole(&self) -> Result<Option<AllAnswers>> {
        let answers = self.ask().await?;
        for (source, answers) in self.all.iter().zip(&answers.0) {
            if !is_whole(&**source, answers)? {
                return Ok(None);
            }
        }
        Ok(Some(answers))
    }

    /// Where the first start begins; `None`: not everything is known yet.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(super) async fn first_positions(&self) -> Result<Option<Vec<StoredPosition>>> {
        let mut all = Vec::new();
        let mut known = BTreeSet::new();
        for source in self.all.iter() {
            let Some(positions) = source.first_positions().await? else { return Ok(None) };
            not_twice(&mut known, positions.iter().map(|position| position.topic_partition.clone()))?;
            all.extend(positions);
        }
        Ok(Some(all))
    }

    /// Compares what is tracked with what was answered: [`review`] for each source, one picture of all.
    ///
    /// # Errors
    /// As [`review`].
    pub(super) fn review(&self, tracked: &[Tracked], answers: &AllAnswers) -> Result<Review> {
        let mut all = Review::default();
        for (source, answers) in self.all.iter().zip(&answers.0) {
            let one = review(tracked, source.filter(), answers, source.on_data_loss())?;
            all.positions.extend(one.positions);
            all.joined.extend(one.joined);
            all.lost_ranges.extend(one.lost_ranges);
            all.problems.extend(one.problems);
        }
        all.positions.sort_by(|one, other| one.topic_partition.cmp(&other.topic_partition));
        all.lost_ranges.sort_by(|one, other| one.topic_partition.cmp(&other.topic_partition));
        Ok(all)
    }

    /// Begins all that need to, once the application is owned.
    ///
    /// # Errors
    /// What a stream cannot start with.
    pub(super) async fn open(
        &self,
        application: &str,
        positions: &[StoredPosition],
        reporter: &Reporter,
    ) -> Result<()> {
        for (stream_id, source) in self.all.iter().enumerate() {
            source.reports_to(stream_id, reporter);
            source.open(application, positions).await?;
        }
        Ok(())
    }

    /// Ends all.
    pub(super) async fn close(&self) {
        for source in self.all.iter() {
            source.close().await;
        }
    }

    /// Before a batch is read.
    ///
    /// # Errors
    /// What no range of a source can be read with.
    pub(super) fn prepare(
        &self,
        ranges: &Arc<[OffsetRange]>,
        epochs: &dyn Fn(&TopicPartition) -> Option<i32>,
    ) -> Result<()> {
        for (source, ranges) in self.all.iter().zip(self.split(ranges)) {
            source.prepare(&ranges, epochs)?;
        }
        Ok(())
    }

    /// Reads once before it counts.
    ///
    /// # Errors
    /// What was found damaged.
    pub(super) fn rehearse(&self, rehearsed: &[Rehearsed], cancelled: &dyn Fn() -> bool) -> Result<()> {
        for (number, source) in self.all.iter().enumerate() {
            let own = |one: &&Rehearsed| self.number_of(&one.range.topic_partition) == number;
            source.rehearse(&rehearsed.iter().filter(own).cloned().collect::<Vec<_>>(), cancelled)?;
        }
        Ok(())
    }

    /// Bytes that are fetched ahead.
    pub(super) fn queued_bytes(&self) -> u64 {
        self.all.iter().map(|source| source.queued_bytes()).sum()
    }

    /// The ranges are committed, and no window looks back on them any more.
    pub(super) fn forget(&self, ranges: &Arc<[OffsetRange]>) {
        // Servers have their own retention.
        if self.all.iter().all(|source| source.is_remote()) {
            return;
        }
        for (source, ranges) in self.all.iter().zip(self.split(ranges)) {
            let ends = ranges.iter().map(|range| (range.topic_partition.clone(), range.until_offset)).collect();
            source.forget_before(&ends);
        }
    }

    /// Has a stream's offsets committed to its consumer group. What is wrong with that is only told: they are for others to look at.
    pub(super) fn commit_to_group(&self, number: usize, offsets: BTreeMap<TopicPartition, Offset>) {
        let Some(source) = self.all.get(number).filter(|_| !offsets.is_empty()) else { return };
        if let Err(error) = source.commit_to_group(offsets) {
            tracing::warn!("{}", error.chain());
        }
    }

    /// A topic that was deleted and created again between plan and commit: its records may be the new topic's.
    ///
    /// # Errors
    /// What makes asking again useless. The error that is given is one of this batch.
    pub(super) async fn recreated_topic(&self, commit: &BatchCommit) -> Result<Option<Error>> {
        for (number, source) in self.all.iter().enumerate() {
            let Some(topics) = source.ask_topics().await? else { continue };
            let own = commit.ranges.iter().filter(|range| self.number_of(&range.range.topic_partition) == number);
            let changed = own.into_iter().find(|range| {
                // No answer is no evidence.
                let told = topics.get(&range.range.topic_partition.topic);
                matches!((told, &range.topic_id), (Some(TopicAnswer::Topic { id, .. }), Some(known))
                    if id.as_ref() != Some(known))
            });
            if let Some(range) = changed {
                let error = Error::offsets_lost("the topic was created again while its records were read");
                return Ok(Some(error.in_range(range.range.clone())));
            }
        }
        Ok(None)
    }

    /// Ids are stored: an answer that cannot tell them counts as none. Topics of which none is stored may never have had one.
    pub(super) fn expect_ids(&self, positions: &[StoredPosition]) {
        for position in positions.iter().filter(|position| position.topic_id.is_some()) {
            if let Some(source) = self.of(&position.topic_partition) {
                source.expect_ids();
            }
        }
    }

    /// The ids of the clusters that are read, each once, in order of definition; `None` if none tells one.
    ///
    /// # Errors
    /// What makes asking again useless.
    pub(super) async fn cluster_id(&self) -> Result<Option<String>> {
        let mut ids: Vec<String> = Vec::new();
        for source in self.all.iter().filter(|source| source.is_remote()) {
            match source.cluster_id().await? {
                Some(id) if !ids.contains(&id) => ids.push(id),
                Some(_) => {}
                // Half of a name would look like another cluster.
                None => return Ok(None),
            }
        }
        Ok((!ids.is_empty()).then(|| ids.join("+")))
    }

    /// Whether what is lost of this partition is gone over.
    pub(super) fn skips_losses(&self, topic_partition: Option<&TopicPartition>) -> bool {
        let source = topic_partition.map_or(self.all.first(), |known| self.of(known));
        source.is_some_and(|source| source.on_data_loss() == OnDataLoss::Skip)
    }

    /// Why nobody answers, as far as it is known.
    pub(super) fn why_silent(&self, error: Error) -> Error {
        let asked = error.topic_partition().and_then(|known| self.of(known));
        match asked.or_else(|| self.all.iter().find(|source| source.is_remote())) {
            Some(source) => source.why_silent(error),
            None => error,
        }
    }
}

impl ReadRanges for Sources {
    fn read(
        &self,
        range: &OffsetRange,
        cancelled: &dyn Fn() -> bool,
        each: &mut dyn FnMut(Arc<Chunk>) -> Flow,
    ) -> Result<RangeCounts, Stop> {
        match self.of(&range.topic_partition) {
            Some(source) => source.read(range, cancelled, each),
            None => Err(Stop::Failed(Error::internal("a range of no stream").in_range(range.clone()))),
        }
    }
}

/// Whether all that a source's plan needs was told.
fn is_whole(source: &dyn Source, answers: &Answers) -> Result<bool> {
    if let Some(problem) = answers.missing_topics(source.filter()).first() {
        return Err(Problem::to_error(problem));
    }
    let told =
        |(known, _): &(TopicPartition, _)| answers.latest.contains_key(known) && answers.earliest.contains_key(known);
    Ok(answers.partitions(source.filter()).iter().all(told))
}

/// Two streams of one application would move the same stored offset, each by its own reading.
fn not_twice(known: &mut BTreeSet<TopicPartition>, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<()> {
    for partition in partitions {
        if !known.insert(partition.clone()) {
            let told = "two streams of one context read the same partition: use one of them twice";
            return Err(Error::config(told).on(partition));
        }
    }
    Ok(())
}
