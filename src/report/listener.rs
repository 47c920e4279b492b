//! What a stream tells about its batches, in Spark's words and order:
//! started, then per batch: submitted, started, each output operation started and completed, completed; then stopped.

use std::{fmt::Write, sync::Arc};

use super::receivers::ReceiverInfo;
use crate::{
    error::ErrorKind,
    types::{BatchInfo, BatchTime, OffsetRange},
};

/// What one input stream brings to a batch.
#[derive(Debug, Clone)]
pub struct InputInfo {
    /// The stream's number, in order of definition.
    pub stream_id: usize,
    /// The stream's ranges of this batch, in the order of topic and partition.
    pub ranges: Arc<[OffsetRange]>,
    /// How many records the ranges held; `None` until they were read.
    pub records: Option<u64>,
}

impl InputInfo {
    /// The records of the stream in this batch. Until they were read, the offsets that the ranges span: offsets without
    /// a record are still counted then.
    #[must_use]
    pub fn num_records(&self) -> u64 {
        self.records.unwrap_or_else(|| self.ranges.iter().map(OffsetRange::count).sum())
    }

    /// One line per range that is not empty, as Spark's page shows it: the longest first.
    ///
    /// ```
    /// use directstream::{Offset, OffsetRange, TopicPartition, report::InputInfo};
    ///
    /// let range = OffsetRange::new(TopicPartition::new("t", 0), Offset::clamped(5), Offset::clamped(9));
    /// let input = InputInfo { stream_id: 0, ranges: [range].into(), records: None };
    /// assert_eq!(input.description(), "topic: t\tpartition: 0\toffsets: 5 to 9\tcount: 4");
    /// ```
    #[must_use]
    pub fn description(&self) -> String {
        let mut text = String::new();
        let mut ranges: Vec<_> = self.ranges.iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_by_key(|range| std::cmp::Reverse(range.count()));
        for range in ranges {
            let line_break = if text.is_empty() { "" } else { "\n" };
            let (topic, partition) = (range.topic(), range.partition());
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{line_break}topic: {topic}\tpartition: {partition}\toffsets: {} to {}\tcount: {}",
                range.from_offset,
                range.until_offset,
                range.count()
            );
        }
        text
    }
}

/// One output operation of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputOperationInfo {
    /// The batch.
    pub batch_time: BatchTime,
    /// Its number within the batch: 0, 1, 2 and so on, in order of definition.
    pub id: usize,
    /// What it is, such as `save_to_table orders`.
    pub name: String,
    /// When it started, in milliseconds since 1970-01-01 UTC.
    pub start_time_ms: Option<i64>,
    /// When it ended.
    pub end_time_ms: Option<i64>,
    /// Why it failed, in one line without payload; `None` if it did not.
    pub failure_reason: Option<String>,
}

impl OutputOperationInfo {
    /// How long it took, once it ended.
    #[must_use]
    pub fn duration_ms(&self) -> Option<u64> {
        between_ms(self.start_time_ms, self.end_time_ms)
    }

    /// What it is in words, as Spark names a batch's jobs. The time is that of the batch, in UTC.
    ///
    /// ```
    /// use directstream::{BatchTime, report::OutputOperationInfo};
    ///
    /// let (batch_time, name) = (BatchTime::from_ms(3_723_000), "print".to_owned());
    /// let (start_time_ms, end_time_ms, failure_reason) = (None, None, None);
    /// let operation = OutputOperationInfo { batch_time, id: 1, name, start_time_ms, end_time_ms, failure_reason };
    /// assert_eq!(operation.description(), "Streaming job from [output operation 1, batch time 01:02:03]");
    /// ```
    #[must_use]
    pub fn description(&self) -> String {
        let second = self.batch_time.as_ms().div_euclid(1_000);
        let (hours, minutes, seconds) =
            (second.div_euclid(3_600).rem_euclid(24), second.div_euclid(60).rem_euclid(60), second.rem_euclid(60));
        let time = format!("{hours:02}:{minutes:02}:{seconds:02}");
        format!("Streaming job from [output operation {}, batch time {time}]", self.id)
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.start_time_ms.is_some() && self.end_time_ms.is_none()
    }

    /// Whether it failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failure_reason.is_some()
    }
}

/// A batch and how far it is: Spark's `BatchInfo`.
#[derive(Debug, Clone)]
pub struct BatchProgress {
    /// Its number, time and ranges.
    pub batch: BatchInfo,
    /// What each input stream brings.
    pub inputs: Vec<InputInfo>,
    /// When the batch was ready to run, in milliseconds since 1970-01-01 UTC. For a batch that starts late this is the
    /// interval tick it belongs to, so that the scheduling delay shows how late it is.
    pub submission_time_ms: i64,
    /// When its first work started.
    pub processing_start_time_ms: Option<i64>,
    /// When its last work ended.
    pub processing_end_time_ms: Option<i64>,
    /// Its output operations, in order of definition.
    pub output_operations: Vec<OutputOperationInfo>,
}

impl BatchProgress {
    /// How long it waited before its first work started.
    #[must_use]
    pub fn scheduling_delay_ms(&self) -> Option<u64> {
        between_ms(Some(self.submission_time_ms), self.processing_start_time_ms)
    }

    /// How long its work took.
    #[must_use]
    pub fn processing_delay_ms(&self) -> Option<u64> {
        between_ms(self.processing_start_time_ms, self.processing_end_time_ms)
    }

    /// Both together.
    #[must_use]
    pub fn total_delay_ms(&self) -> Option<u64> {
        Some(self.scheduling_delay_ms()? + self.processing_delay_ms()?)
    }

    /// The records of all input streams.
    #[must_use]
    pub fn num_records(&self) -> u64 {
        self.inputs.iter().map(InputInfo::num_records).sum()
    }

    /// Whether an output operation failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.output_operations.iter().any(OutputOperationInfo::is_failed)
    }
}

/// Milliseconds between two readings of the wall clock; 0 if it went back.
fn between_ms(from: Option<i64>, until: Option<i64>) -> Option<u64> {
    Some(u64::try_from(until?.saturating_sub(from?)).unwrap_or(0))
}

/// The stream plans its first batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamingStarted {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time_ms: i64,
}

/// The stream ended. Nothing comes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStopped {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time_ms: i64,
    /// What it failed with; `None` if it was asked to stop or had nothing left to do.
    pub failure: Option<(ErrorKind, String)>,
}

/// Observes a stream. Each listener has its own thread and its own bounded queue: it sees events in order and one at a
/// time. One that is too slow loses events, which are counted; one that panics goes on with the next event. Neither ever
/// holds a batch up.
#[expect(unused_variables, reason = "the names of the parameters are documentation")]
pub trait StreamingListener: Send {
    /// The stream plans its first batch.
    fn on_streaming_started(&mut self, started: &StreamingStarted) {}

    /// A batch was planned and waits.
    fn on_batch_submitted(&mut self, batch: &BatchProgress) {}

    /// The batch's first work started.
    fn on_batch_started(&mut self, batch: &BatchProgress) {}

    /// An output operation started.
    fn on_output_operation_started(&mut self, operation: &OutputOperationInfo) {}

    /// An output operation ended, well or not.
    fn on_output_operation_completed(&mut self, operation: &OutputOperationInfo) {}

    /// The batch ended: committed, or failed if [`BatchProgress::is_failed`].
    fn on_batch_completed(&mut self, batch: &BatchProgress) {}

    /// A receiver began, or began again.
    fn on_receiver_started(&mut self, receiver: &ReceiverInfo) {}

    /// A receiver ended, and is started again after a pause: [`last_error`](ReceiverInfo::last_error) says why.
    fn on_receiver_error(&mut self, receiver: &ReceiverInfo) {}

    /// A receiver ended with its stream.
    fn on_receiver_stopped(&mut self, receiver: &ReceiverInfo) {}

    /// The stream ended.
    fn on_stream_stopped(&mut self, stopped: &StreamStopped) {}
}

/// One event on its way to the listeners.
#[derive(Debug, Clone)]
pub(super) enum StreamingEvent {
    Started(StreamingStarted),
    BatchSubmitted(Arc<BatchProgress>),
    BatchStarted(Arc<BatchProgress>),
    OutputOperationStarted(Arc<OutputOperationInfo>),
    OutputOperationCompleted(Arc<OutputOperationInfo>),
    BatchCompleted(Arc<BatchProgress>),
    ReceiverStarted(Arc<ReceiverInfo>),
    ReceiverError(Arc<ReceiverInfo>),
    ReceiverStopped(Arc<ReceiverInfo>),
    Stopped(Arc<StreamStopped>),
}

impl StreamingEvent {
    pub(super) fn deliver(&self, listener: &mut dyn StreamingListener) {
        match self {
            Self::Started(started) => listener.on_streaming_started(started),
            Self::BatchSubmitted(batch) => listener.on_batch_submitted(batch),
            Self::BatchStarted(batch) => listener.on_batch_started(batch),
            Self::OutputOperationStarted(operation) => listener.on_output_operation_started(operation),
            Self::OutputOperationCompleted(operation) => listener.on_output_operation_completed(operation),
            Self::BatchCompleted(batch) => listener.on_batch_completed(batch),
            Self::ReceiverStarted(receiver) => listener.on_receiver_started(receiver),
            Self::ReceiverError(receiver) => listener.on_receiver_error(receiver),
            Self::ReceiverStopped(receiver) => listener.on_receiver_stopped(receiver),
            Self::Stopped(stopped) => listener.on_stream_stopped(stopped),
        }
    }
}
