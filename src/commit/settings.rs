//! What the committer is started with, and what it gives back.

use std::time::Duration;

use uuid::Uuid;

use super::protocol::Ownership;
use crate::{
    config::{
        BATCH_DEADLINE_DEFAULT, LEDGER_RETENTION_DEFAULT, Migrate, START_TIMEOUT_DEFAULT, StoreUrl,
        UNAVAILABLE_MAX_DEFAULT,
    },
    error::Error,
    kafka::{KafkaOutput, KafkaProperties},
    types::{BatchCommit, BatchTime, ColumnShape, ColumnType, Isolated, Offset, TableSpec, TopicId, TopicPartition},
};

/// What the committer is started with.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// The store.
    pub url: StoreUrl,
    /// The application id: everything is kept under it.
    pub application: String,
    /// The output tables; [`TableRows::table`](crate::types::TableRows::table) is an index into them.
    pub tables: Vec<TableSpec>,
    /// Whether starting brings the store's own tables up to date.
    pub migrate: Migrate,
    /// How long a batch stays in the ledger.
    pub ledger_retention: Duration,
    /// How many batches stay in the ledger, however old: what windows and `verify` need.
    pub ledger_batches_min: u64,
    /// What this process is called as an owner: never used before. Tests choose it.
    pub owner: Uuid,
    /// What to do about a live owner.
    pub ownership: Ownership,
    /// How long the store may be unavailable at start.
    pub start_timeout: Duration,
    /// How long the store may be unavailable later.
    pub unavailable_max: Duration,
    /// How long the user's own SQL of one batch may take.
    pub batch_deadline: Duration,
    /// The start of the grid of batch times, kept from the first start on: milliseconds since 1970-01-01 UTC.
    pub zero_time_ms: i64,
    /// The batch interval.
    pub interval: Duration,
    /// Whether the stored interval must stay as it is: a job with windows or state.
    pub interval_fixed: bool,
    /// How to reach the cluster that is read: a `kafka:` store is in it too.
    pub kafka: Option<KafkaProperties>,
    /// Where the outbox is sent to; `None`: the job has none.
    pub outbox: Option<KafkaOutput>,
    /// Kafka's cluster id, if known: another one than the stored one is refused.
    pub cluster_id: Option<String>,
    /// What must stay the same for stored state to make sense: another one than the stored one is refused.
    pub fingerprint: String,
    /// The name and version of this program, for the ledger.
    pub build: String,
}

impl StoreSettings {
    /// Settings with the defaults: migrate, 30 days of ledger, wait for a live owner, 30 s to start, 10 min unavailable, 30 min
    /// for user code, an interval of one second from time 0.
    #[must_use]
    pub fn new(url: StoreUrl, application: impl Into<String>) -> Self {
        Self {
            url,
            application: application.into(),
            tables: Vec::new(),
            migrate: Migrate::Auto,
            ledger_retention: LEDGER_RETENTION_DEFAULT,
            ledger_batches_min: 100,
            owner: Uuid::new_v4(),
            ownership: Ownership::Wait,
            start_timeout: START_TIMEOUT_DEFAULT,
            unavailable_max: UNAVAILABLE_MAX_DEFAULT,
            batch_deadline: BATCH_DEADLINE_DEFAULT,
            zero_time_ms: 0,
            interval: Duration::from_secs(1),
            interval_fixed: false,
            kafka: None,
            outbox: None,
            cluster_id: None,
            fingerprint: String::new(),
            build: concat!("directstream ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// The committed position of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPosition {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The id of the topic that the offset belongs to; `None` if the broker told none.
    pub topic_id: Option<TopicId>,
    /// The next offset to read.
    pub until_offset: Offset,
    /// The leader epoch that offset was read under, if known: the broker then notices a log that was cut off since.
    pub leader_epoch: Option<i32>,
}

/// An output table as the database has it, its columns in the order of the [`TableSpec`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableShape {
    /// The columns.
    pub columns: Vec<ColumnShape>,
}

impl TableShape {
    /// The columns' types.
    #[must_use]
    pub fn types(&self) -> Vec<ColumnType> {
        self.columns.iter().map(|column| column.column_type).collect()
    }
}

/// What the store knows of the application when it is started.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The epoch of this start.
    pub epoch: u64,
    /// The last committed batch; 0 if there is none.
    pub batch_seq: u64,
    /// Its time.
    pub last_batch_time: Option<BatchTime>,
    /// Whether the process before this one ended without giving the application up, and had committed no batch.
    pub died_in_vain: bool,
    /// The start of the grid of batch times, fixed at the first start: milliseconds since 1970-01-01 UTC.
    pub zero_time_ms: i64,
    /// The committed positions, in the order of topic and partition; empty at the first start.
    pub positions: Vec<StoredPosition>,
    /// The output tables, in the order of the settings.
    pub tables: Vec<TableShape>,
}

/// What became of a commit.
#[derive(Debug)]
pub enum CommitOutcome {
    /// The batch is committed.
    Committed(Commit),
    /// The stored offsets are not the expected ones. Nothing was committed; `positions` are what is stored now.
    Conflict {
        /// The batch, as it was given.
        batch: Box<BatchCommit>,
        /// The stored positions.
        positions: Vec<StoredPosition>,
    },
    /// The batch is not committed, and the committer is ready again.
    NotCommitted {
        /// The batch, as it was given.
        batch: Box<BatchCommit>,
        /// Why. [`ErrorKind::is_retryable`](crate::ErrorKind::is_retryable) tells whether the same batch may be tried again;
        /// [`Transform`](crate::ErrorKind::Transform) says that the database refused a row, or that user code failed;
        /// [`Error::is_about_rows`] tells the two apart.
        error: Error,
        /// Whether COMMIT was sent and its answer lost, and the store told that the batch is not committed.
        resolved: bool,
    },
}

/// A committed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Its number.
    pub batch_seq: u64,
    /// Whether the answer to the commit was lost, and the store told that it is committed.
    pub resolved: bool,
    /// From the first command to the answer.
    pub took: Duration,
    /// What writing record by record came to, if the batch was written so.
    pub isolated: Option<Isolated>,
}

/// How the committer is doing: changes are told without being asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreHealth {
    /// Another process owns the application, and we wait.
    Waiting,
    /// The application is ours and the store answers.
    Serving,
    /// The store does not answer; why, in one line.
    Unavailable(String),
    /// It is over: every further request fails. The kind, and why in one line.
    Ended(crate::error::ErrorKind, String),
    /// It is over, in good order.
    Stopped,
}

impl StoreHealth {
    /// Whether the store answers, as far as is known.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        !matches!(self, Self::Unavailable(_) | Self::Ended(..))
    }
}
