//! What the stages hand to each other. Nothing here does I/O.

mod batch;
mod kafka_record;
mod offset;
mod offset_range;
mod output;
mod rdd;
mod record;
pub(crate) mod rows;
mod state;
pub(crate) mod table;
mod term;
mod topic_partition;
mod transaction;

pub use batch::{BatchInfo, BatchTime};
pub use kafka_record::KafkaRecord;
pub use offset::Offset;
pub use offset_range::OffsetRange;
pub use output::{
    BatchCommit, CommittedRange, DeadLetter, DeadLetterStage, Isolated, Isolating, LogTruncated, LostRange,
    LostRangeReason, RangeCounts, RecordRows, TableRows,
};
pub use rdd::{Compute, Flow, ShuffleStage, Stop, Task};
pub use record::{Chunk, Headers, MemoryChunk, MemoryRecord, Record, Timestamp};
pub use rows::{EncodedRows, Field, Refusal, RowReader, RowWriter};
pub use state::{SegmentKind, StateSegment};
pub use table::{Column, ColumnShape, ColumnSource, ColumnType, Merge, TableName, TableSpec, Value, WriteMode};
pub use term::Term;
pub use topic_partition::{TopicId, TopicPartition};
pub use transaction::{BatchTransaction, Cell, TransactionCode, TransactionSql};
