//! What one batch hands to the committer: ranges with counts, rows, dead letters, lost ranges.

use std::{fmt, ops::Range, sync::Arc};

use super::{BatchTime, EncodedRows, KafkaRecord, Offset, OffsetRange, StateSegment, TopicId, TopicPartition};
use crate::{error::Result, types::transaction::TransactionCode};

/// What reading one range found. `records + gaps` is the range's offset count: the driver checks it before it commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RangeCounts {
    /// Offsets with a record.
    pub records: u64,
    /// Offsets without one: transaction markers, aborted and compacted records.
    pub gaps: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// xxh3 over offset, key, value and headers of the records in offset order.
    pub checksum: u64,
    /// The leader epoch of the range's end. As reading finds it, that of the record right before the end; `None` if a gap
    /// is there, or the broker told none.
    pub leader_epoch: Option<i32>,
    /// The leader epoch of the last record, wherever in the range it lies.
    pub record_epoch: Option<i32>,
}

/// One range of a batch as it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedRange {
    /// The range that was read.
    pub range: OffsetRange,
    /// The stored offset it continues from, which the compare-and-swap expects. `None`: the partition is new, its row is
    /// inserted. It differs from `range.from_offset` only where a lost range lies between.
    pub expected: Option<Offset>,
    /// The stored topic id, which the compare-and-swap expects as well. It differs from `topic_id` where the topic was
    /// created again, and where no id was known before.
    pub expected_topic_id: Option<TopicId>,
    /// The topic's id, stored from now on; `None` where the broker tells none.
    pub topic_id: Option<TopicId>,
    /// What reading it found.
    pub counts: RangeCounts,
}

/// Why offsets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LostRangeReason {
    /// Retention or DeleteRecords moved the log's start past the committed offset.
    Retention,
    /// The topic was deleted and created again.
    TopicRecreated,
    /// The log was truncated below the committed offset.
    Truncated,
}

impl fmt::Display for LostRangeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retention => "retention",
            Self::TopicRecreated => "topic_recreated",
            Self::Truncated => "truncated",
        })
    }
}

/// The cause of an error: reading found that a partition's log was cut off below the offset where it was to go on, although
/// it reaches past that offset again. Offsets alone, which are all that a plan knows, do not show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogTruncated;

impl fmt::Display for LogTruncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reason=truncated")
    }
}

impl std::error::Error for LogTruncated {}

/// Offsets that Kafka no longer has and that `on_data_loss = "skip"` went over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRange {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The committed offset.
    pub from_offset: Offset,
    /// Where reading goes on; `None` if it is not known how much was lost.
    pub until_offset: Option<Offset>,
    /// Why.
    pub reason: LostRangeReason,
    /// The id of the topic that the lost offsets belonged to.
    pub topic_id: Option<TopicId>,
}

/// Which step refused a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeadLetterStage {
    /// Bytes to values.
    Decode,
    /// A value to its column.
    Convert,
    /// The database refused the row.
    Write,
    /// It came into no window over event time: too late, or without a time that can be used.
    Window,
}

impl fmt::Display for DeadLetterStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decode => "decode",
            Self::Convert => "convert",
            Self::Write => "write",
            Self::Window => "window",
        })
    }
}

/// A record that was refused, kept whole in the batch's transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it lies in Kafka.
    pub topic_partition: TopicPartition,
    /// Its offset.
    pub offset: Offset,
    /// Which step refused it.
    pub stage: DeadLetterStage,
    /// Why, in one line without the payload.
    pub reason: String,
    /// The output that could not take it.
    pub output: Option<String>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers as a JSON array of `[name, base64 or null]`.
    pub headers: String,
    /// Its timestamp in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: Option<i64>,
}

/// Rows of one output table, in merge order: the chunks of partition 0, then those of partition 1, and so on. For an
/// upsert: one row per key, in key order.
#[derive(Debug)]
pub struct TableRows {
    /// Which of the outputs that the store was opened with.
    pub table: usize,
    /// The rows, in chunks.
    pub chunks: Vec<EncodedRows>,
}

/// The records of a batch whose rows the store refused, so that it can find out which of them it does not take: numbered in
/// merge order, that is by topic, partition and offset.
pub trait RecordRows: Send + Sync + fmt::Debug {
    /// How many records there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of a record's key and value.
    fn bytes(&self, record: usize) -> usize;

    /// The rows of some records for every table of the output, numbered within it; one row per key for an upsert.
    ///
    /// # Errors
    /// One that [is about rows](crate::Error::is_about_rows) if the records cannot be merged, as where a sum is out of range.
    fn rows(&self, records: Range<usize>) -> Result<Vec<TableRows>>;

    /// The record as it is kept when it is refused; `output` is the table that did.
    fn dead_letter(&self, record: usize, reason: String, output: Option<String>) -> DeadLetter;
}

/// Rows that are written in slices of records, down to the one record that the store refuses.
#[derive(Debug)]
pub struct Isolating {
    /// The number of the output's first table among those that the store was opened with.
    pub first_table: usize,
    /// The records.
    pub records: Box<dyn RecordRows>,
    /// What the last attempt to write them came to; the store tells.
    pub isolated: Isolated,
}

/// What writing record by record came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Isolated {
    /// Rows written.
    pub rows: u64,
    /// Records refused, each of them a dead letter now.
    pub dead_letters: u64,
}

/// Everything that one batch commits, in one transaction: results, state, dead letters, lost ranges, the ledger row, offsets.
#[derive(Debug)]
pub struct BatchCommit {
    /// The batch's number: the stored one plus one.
    pub batch_seq: u64,
    /// The batch's time.
    pub batch_time: BatchTime,
    /// All ranges that move an offset, in the order of topic and partition.
    pub ranges: Vec<CommittedRange>,
    /// Rows for the output tables.
    pub tables: Vec<TableRows>,
    /// Records for Kafka, in the order of outputs and of their partitions: sent in the transaction itself by the store in Kafka.
    pub records: Vec<KafkaRecord>,
    /// Rows of an output whose records are written slice by slice, because the store refused one of them.
    pub isolating: Option<Isolating>,
    /// Refused records.
    pub dead_letters: Vec<DeadLetter>,
    /// Skipped offsets.
    pub lost_ranges: Vec<LostRange>,
    /// What the state operators changed: a segment of each of their partitions.
    pub state: Vec<StateSegment>,
    /// The user's own SQL, run after the table rows, in order of definition.
    pub user_code: Vec<Arc<dyn TransactionCode>>,
    /// When processing started, for the ledger: milliseconds since 1970-01-01 UTC.
    pub processing_started_ms: i64,
}
