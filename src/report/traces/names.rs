//! Every name of a span's attribute, once: OpenTelemetry's conventions for messaging are not stable, and move.

/// OpenTelemetry's: "Semantic conventions for messaging spans" and "for Kafka".
pub(super) const SYSTEM: &str = "messaging.system";
pub(super) const OPERATION_NAME: &str = "messaging.operation.name";
pub(super) const OPERATION_TYPE: &str = "messaging.operation.type";
pub(super) const DESTINATION: &str = "messaging.destination.name";
pub(super) const MESSAGE_COUNT: &str = "messaging.batch.message_count";
pub(super) const ERROR_TYPE: &str = "error.type";

/// What a batch does with its records.
pub(super) const PROCESS: &str = "process";
pub(super) const KAFKA: &str = "kafka";

/// Ours.
pub(super) const APPLICATION: &str = "directstream.application";
pub(super) const BATCH_SEQ: &str = "directstream.batch_seq";
pub(super) const BATCH_TIME: &str = "directstream.batch_time_ms";
pub(super) const EPOCH: &str = "directstream.epoch";
pub(super) const OUTCOME: &str = "directstream.outcome";
pub(super) const SCHEDULING_DELAY: &str = "directstream.scheduling_delay_ms";
pub(super) const PROCESSING_DELAY: &str = "directstream.processing_delay_ms";
pub(super) const RANGES: &str = "directstream.ranges";
pub(super) const RECORDS: &str = "directstream.records";
pub(super) const GAPS: &str = "directstream.gaps";
pub(super) const BYTES: &str = "directstream.bytes";
pub(super) const ROWS: &str = "directstream.rows";
pub(super) const DEAD_LETTERS: &str = "directstream.dead_letters";
pub(super) const LATE_RECORDS: &str = "directstream.late_records";
pub(super) const LOST_RANGES: &str = "directstream.lost_ranges";
pub(super) const OPERATION_ID: &str = "directstream.output_operation";
pub(super) const TASKS_READING: &str = "directstream.tasks_reading_ms";
pub(super) const TASKS_TRANSFORMING: &str = "directstream.tasks_transforming_ms";
pub(super) const TRANSACTION_TIME: &str = "directstream.transaction_ms";

/// Spans.
pub(super) const PLAN: &str = "plan";
pub(super) const READ_AND_TRANSFORM: &str = "read and transform";
pub(super) const READ: &str = "read";
pub(super) const WAIT: &str = "wait for the batch before";
pub(super) const COMMIT: &str = "commit";

/// Events of a commit.
pub(super) const SETTLED: &str = "commit outcome settled";
pub(super) const NOT_COMMITTED: &str = "not committed";
pub(super) const REASON: &str = "directstream.reason";
