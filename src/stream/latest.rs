//! What Kafka holds of a job's topics now, for whoever looks at a job from outside.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{DirectStream, inquiry::Inquiry, source::kafka_properties};
use crate::{
    clock::Clock,
    config::{Job, KafkaConfig},
    error::{Error, Result, Stage},
    kafka::OffsetLookup,
    plan::{Answers, TopicFilter},
    types::{Offset, TopicPartition},
};

/// The pause between two questions to a cluster that does not answer whole yet.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The partitions of a job's topics and the end of each, as far as Kafka told.
#[derive(Debug, Default)]
pub struct LatestOffsets {
    /// Every partition of the topics that exist; `None` where its end is not known.
    pub partitions: BTreeMap<TopicPartition, Option<Offset>>,
    /// What Kafka did not tell, and why.
    pub missing: Option<Error>,
}

/// Asks Kafka for the latest offset of every partition that a job reads, as often as somebody wants to know.
#[derive(Debug)]
pub struct LatestLookup {
    inquiry: Inquiry,
}

impl LatestLookup {
    /// With a client of its own. Nothing is asked yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a property is refused.
    pub fn new(kafka: &KafkaConfig, application: &str, clock: Arc<dyn Clock>) -> Result<Self> {
        let lookup = OffsetLookup::new(&kafka_properties(kafka, application), clock)?;
        Ok(Self { inquiry: Inquiry::new(lookup, TopicFilter::new(&kafka.subscription)?, kafka.isolation_level) })
    }

    /// Asks once: the last stable offset under read_committed, else the high watermark. Waits for the answer no longer than
    /// `limit`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if it could not be asked. That nobody answers is no error here, but
    /// told in [`LatestOffsets::missing`].
    pub async fn ask(&self, limit: Duration) -> Result<LatestOffsets> {
        let inquiry = &self.inquiry;
        let answers = match tokio::time::timeout(limit, inquiry.ask()).await {
            Ok(answers) => answers?,
            Err(_elapsed) => Answers::default(),
        };
        let partitions: BTreeMap<_, _> = answers
            .partitions(inquiry.filter())
            .into_iter()
            .map(|(topic_partition, _)| {
                let latest = answers.latest.get(&topic_partition).copied();
                (topic_partition, latest)
            })
            .collect();
        let missing = if partitions.is_empty() && answers.topics.values().all(|answer| !answer.is_answered()) {
            Some(inquiry.why_silent(Error::unavailable("Kafka does not answer")))
        } else if let Some(problem) = answers.missing_topics(inquiry.filter()).first() {
            Some(problem.to_error())
        } else {
            let unknown =
                partitions.iter().find(|(_, latest)| latest.is_none()).map(|(topic_partition, _)| topic_partition);
            unknown.map(|tp| Error::unavailable("Kafka did not tell the latest offset").on(tp.clone()))
        };
        Ok(LatestOffsets { partitions, missing: missing.map(|error| error.at(Stage::Plan)) })
    }
}

/// Topics, and earliest and latest offset of every partition of the job, within `stream.start_timeout`; and who was asked.
pub(super) async fn whole_answers(job: &Job, clock: Arc<dyn Clock>) -> Result<(Inquiry, Answers)> {
    let started = clock.monotonic();
    let lookup = OffsetLookup::new(&kafka_properties(&job.kafka, &job.name), Arc::clone(&clock))?;
    let inquiry = Inquiry::new(lookup, TopicFilter::new(&job.kafka.subscription)?, job.kafka.isolation_level);
    loop {
        let answers = inquiry.ask().await?;
        let whole =
            |(tp, _): &(TopicPartition, _)| answers.latest.contains_key(tp) && answers.earliest.contains_key(tp);
        let missing = answers.missing_topics(inquiry.filter());
        if missing.is_empty() && answers.partitions(inquiry.filter()).iter().all(whole) {
            return Ok((inquiry, answers));
        }
        if clock.monotonic().saturating_sub(started) >= job.stream.start_timeout {
            let error =
                missing.first().map_or_else(|| Error::unavailable("Kafka does not answer"), |told| told.to_error());
            return Err(inquiry.why_silent(error).at(Stage::Plan));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The first offset that Kafka still has of each partition, and the one after the last that may be read, by the stream's
/// isolation level. Asked until all have answered, no longer than `limit`.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) if a property is refused,
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) naming a partition that nobody answers for.
pub async fn log_ends(
    stream: &DirectStream,
    partitions: &[TopicPartition],
    limit: Duration,
    clock: Arc<dyn Clock>,
) -> Result<Vec<[Offset; 2]>> {
    let started = clock.monotonic();
    let lookup = OffsetLookup::new(&kafka_properties(&stream.kafka, "directstream"), Arc::clone(&clock))?;
    let inquiry = Inquiry::new(lookup, TopicFilter::new(&stream.kafka.subscription)?, stream.kafka.isolation_level);
    loop {
        let [latest, earliest] = inquiry.ask_ends(partitions.to_vec()).await?;
        let told =
            earliest.iter().zip(&latest).map(|(first, last)| Some([first.outcome.offset()?, last.outcome.offset()?]));
        if let Some(ends) = told.collect::<Option<Vec<_>>>() {
            return Ok(ends);
        }
        if clock.monotonic().saturating_sub(started) >= limit {
            let silent = earliest.iter().chain(&latest).find(|told| told.outcome.offset().is_none());
            let text = silent.map_or_else(|| "Kafka does not answer".to_owned(), |told| told.outcome.to_string());
            let error = inquiry.why_silent(Error::unavailable(text)).at(Stage::Plan);
            return Err(match silent {
                Some(told) => error.on(told.topic_partition.clone()),
                None => error,
            });
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
