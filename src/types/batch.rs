//! A batch's identity: its time, its number and its ranges.

use std::{fmt, sync::Arc, time::Duration};

use super::OffsetRange;
use crate::error::Error;

/// The identity of a batch: milliseconds since 1970-01-01 UTC, strictly increasing from batch to batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchTime(i64);

impl BatchTime {
    /// The batch time `ms`.
    #[must_use]
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn as_ms(self) -> i64 {
        self.0
    }
}

impl fmt::Display for BatchTime {
    /// Spark's form: `1700000000000 ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// What a batch is: its number, its time, and all its ranges. Given to every output, at any depth of the graph.
#[derive(Debug, Clone)]
pub struct BatchInfo {
    /// The number of the batch within its application, from 1, without holes; 0 outside of any stream.
    pub batch_seq: u64,
    /// The identity of the batch.
    pub batch_time: BatchTime,
    /// The ranges of all streams of the batch, in the order of topic and partition.
    pub ranges: Arc<[OffsetRange]>,
}

impl BatchInfo {
    /// The one range that is not empty, if there is but one.
    pub(crate) fn only_range(&self) -> Option<&OffsetRange> {
        let mut ranges = self.ranges.iter().filter(|range| !range.is_empty());
        ranges.next().filter(|_| ranges.next().is_none())
    }

    /// The error of user code that took longer than `stream.batch_deadline`; `what` it did not do.
    pub(crate) fn over_deadline(&self, what: &str, deadline: Duration) -> Error {
        let ranges: Vec<_> = self.ranges.iter().filter(|range| !range.is_empty()).collect();
        let text = format!(
            "the batch {what} within stream.batch_deadline batch_seq={} ranges={} deadline={deadline:?}",
            self.batch_seq,
            ranges.len(),
        );
        let error = Error::transform(text);
        match ranges.first() {
            Some(&first) => error.in_range(first.clone()),
            None => error,
        }
    }
}
