//! Where records come from: what the planner asks, and what the batch reads.
//!
//! Whatever a stream reads, it is read by offset ranges of topic-partitions: a partition of a Kafka topic, a file and its bytes, the
//! log of a receiver. So everything that holds for Kafka holds for all of them: the plan, the batch's transaction that moves the
//! offsets, the ledger, windows that are read again after a restart.

mod chunks;
mod group_commits;
mod kafka;
mod lines;
mod receiver;
mod socket;
mod text_files;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

pub(crate) use self::chunks::Chunks;
pub(super) use self::{
    kafka::{KafkaSource, kafka_properties},
    receiver::ReceiverSource,
    socket::SocketReceiver,
    text_files::TextFileSource,
};
pub use self::{
    receiver::{Receiver, ReceiverLog, ReceiverSupervisor},
    text_files::TextFiles,
};
use crate::{
    clock::Clock,
    commit::StoredPosition,
    config::{KafkaConfig, OnDataLoss},
    error::{Error, Result},
    kafka::TopicAnswer,
    plan::{Answers, TopicFilter},
    read::{ReadRanges, Rehearsed},
    report::Reporter,
    types::{Offset, OffsetRange, TopicPartition},
};

/// What a stream of a context reads.
#[derive(Debug, Clone)]
pub(super) enum SourceSpec {
    /// Topics of Kafka.
    Kafka {
        /// Which, and where.
        kafka: Box<KafkaConfig>,
        /// The most offsets a second of one partition, where it is not that of the context.
        max_rate_per_partition: Option<u64>,
        /// The consumer group that the program commits offsets to; `None`: the application's name.
        group_id: Option<String>,
    },
    /// What needs no server.
    Local(Arc<dyn Source>),
}

impl SourceSpec {
    /// The most offsets a second of one partition, where it is not that of the context.
    pub(super) fn max_rate_per_partition(&self) -> Option<u64> {
        match self {
            Self::Kafka { max_rate_per_partition, .. } => *max_rate_per_partition,
            Self::Local(source) => source.max_rate_per_partition(),
        }
    }

    /// The source. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if a property or a pattern is refused.
    pub(super) fn source(&self, settings: &SourceSettings<'_>) -> Result<Arc<dyn Source>> {
        Ok(match self {
            Self::Kafka { kafka, max_rate_per_partition, group_id } => {
                let group = group_id.as_deref().unwrap_or(settings.application);
                Arc::new(KafkaSource::new(kafka, *max_rate_per_partition, group, settings)?)
            }
            Self::Local(source) => Arc::clone(source),
        })
    }
}

/// What sources are made with.
#[derive(Debug, Clone)]
pub(super) struct SourceSettings<'a> {
    /// The name under which servers see it.
    pub(super) application: &'a str,
    /// This source's share of the memory budget, in bytes.
    pub(super) memory_max_bytes: u64,
    /// How many Kafka clients read; `None`: as it sees fit.
    pub(super) reader_clients: Option<usize>,
    pub(super) clock: &'a Arc<dyn Clock>,
}

/// One stream's records. The driver asks it each interval what there is, plans, and reads exactly the planned ranges.
///
/// Names of topics that are not in Kafka have a colon, which no topic of Kafka has: `file:...`, `receiver:...`.
#[async_trait]
pub(crate) trait Source: ReadRanges {
    /// Which partitions are its own. Two streams of one context have none in common.
    fn filter(&self) -> &TopicFilter;

    /// Whether servers are asked: they must answer before the application is taken over.
    fn is_remote(&self) -> bool {
        false
    }

    /// Its topics, with earliest and latest offset of each partition, as they are now. What is not in the answer was not told.
    ///
    /// # Errors
    /// What makes asking again useless.
    async fn ask(&self) -> Result<Answers>;

    /// Where the very first start of the application begins; `None`: not everything is known yet, and it is asked again.
    /// Default: at the earliest offset of each partition.
    ///
    /// # Errors
    /// What makes asking again useless.
    async fn first_positions(&self) -> Result<Option<Vec<StoredPosition>>> {
        let answers = self.ask().await?;
        let position = |(topic_partition, topic_id)| {
            let until_offset = *answers.earliest.get(&topic_partition)?;
            Some(StoredPosition { topic_partition, topic_id, until_offset, leader_epoch: None })
        };
        Ok(answers.partitions(self.filter()).into_iter().map(position).collect())
    }

    /// Begins, once the application is this process's: with the stored positions, those of other streams among them.
    ///
    /// # Errors
    /// What the stream cannot start with.
    async fn open(&self, _application: &str, _positions: &[StoredPosition]) -> Result<()> {
        Ok(())
    }

    /// Before it begins: whom a receiver tells what becomes of it, as that of stream `stream_id`.
    fn reports_to(&self, _stream_id: usize, _reporter: &Reporter) {}

    /// Ends: nothing more comes.
    async fn close(&self) {}

    /// What to do where offsets that were to be read are gone.
    fn on_data_loss(&self) -> OnDataLoss {
        OnDataLoss::Fail
    }

    /// The most offsets a second of one partition, where it is not that of the context; `u64::MAX`: no limit, whatever the
    /// context's is.
    fn max_rate_per_partition(&self) -> Option<u64> {
        None
    }

    /// What an offset takes in memory, in bytes, where that is known beforehand; `None`: it is learned from batches.
    fn bytes_per_offset(&self) -> Option<u64> {
        None
    }

    /// Before a batch is read: its ranges, and the epoch that a range's start was read under.
    ///
    /// # Errors
    /// What no range can be read with.
    fn prepare(&self, _ranges: &[OffsetRange], _epochs: &dyn Fn(&TopicPartition) -> Option<i32>) -> Result<()> {
        Ok(())
    }

    /// Reads once before it counts, after a process that died without a commit.
    ///
    /// # Errors
    /// What was found damaged.
    fn rehearse(&self, _rehearsed: &[Rehearsed], _cancelled: &dyn Fn() -> bool) -> Result<()> {
        Ok(())
    }

    /// Bytes that are fetched ahead.
    fn queued_bytes(&self) -> u64 {
        0
    }

    /// What lies before these offsets is committed, and no window looks back on it any more.
    fn forget_before(&self, _ends: &BTreeMap<TopicPartition, Offset>) {}

    /// Has offsets committed to the consumer group that was named for it. Returns at once. Default: there is none to commit to.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if no client can be made.
    fn commit_to_group(&self, _offsets: BTreeMap<TopicPartition, Offset>) -> Result<()> {
        Ok(())
    }

    /// Its topics alone, asked right before a commit; `None`: they cannot change meanwhile.
    ///
    /// # Errors
    /// What makes asking again useless.
    async fn ask_topics(&self) -> Result<Option<BTreeMap<Arc<str>, TopicAnswer>>> {
        Ok(None)
    }

    /// From now on an answer that cannot tell topic ids counts as none.
    fn expect_ids(&self) {}

    /// The id of the cluster; `None`: it has none, or does not tell.
    ///
    /// # Errors
    /// What makes asking again useless.
    async fn cluster_id(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Why nobody answers, as far as it is known.
    fn why_silent(&self, error: Error) -> Error {
        error
    }
}
