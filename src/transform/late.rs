//! What came into no window over event time, and where it goes.

use std::{fmt, ops::ControlFlow, sync::Arc};

use super::{BatchScope, DStream, Output, Prepared, TransactionalOutput, to_tables::dead_letter};
use crate::{
    error::Result,
    types::{ColumnShape, DeadLetterStage, Record, TableSpec},
};

/// Why an element came into no window over event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LateReason {
    /// Every window of its time ended at or before the watermark: they have been told.
    WindowsClosed,
    /// It has no event time.
    NoTime,
    /// Its time is after that of the batch by more than [`ahead_max`](super::EventTimeDStream::ahead_max) allows.
    TooFarAhead,
    /// Its time is so near to the least or the greatest number of milliseconds that a window of it cannot be told.
    OutOfRange,
}

impl fmt::Display for LateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WindowsClosed => "too late: every window of its event time was told before",
            Self::NoTime => "it has no event time",
            Self::TooFarAhead => "its event time is too far ahead of the batch",
            Self::OutOfRange => "its event time is out of range",
        })
    }
}

/// An element that came into no window over event time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Late<T> {
    /// The element.
    pub element: T,
    /// Its event time in milliseconds since 1970-01-01 UTC, if it has one.
    pub event_time_ms: Option<i64>,
    /// The watermark of the batch, in milliseconds since 1970-01-01 UTC; `None` before the first element with a time.
    pub watermark_ms: Option<i64>,
    /// Why.
    pub reason: LateReason,
}

struct SaveAsDeadLetters {
    stream: DStream<Late<Record>>,
    output: String,
}

impl TransactionalOutput for SaveAsDeadLetters {
    fn name(&self) -> &'static str {
        "save_as_dead_letters"
    }

    fn tables(&self) -> &[TableSpec] {
        &[]
    }

    fn reads_once(&self) -> bool {
        true
    }

    fn slide_ms(&self) -> Option<i64> {
        self.stream.slide_ms()
    }

    fn prepare(&self, scope: &BatchScope, _tables: &[Vec<ColumnShape>]) -> Result<Prepared> {
        let letters = self.stream.rdd(scope)?.run(
            |_| Vec::new(),
            |letters, late| {
                let (reason, output) = (late.reason.to_string(), Some(self.output.clone()));
                letters.push(dead_letter(&late.element, DeadLetterStage::Window, reason, output));
                ControlFlow::Continue(())
            },
        )?;
        Ok(Prepared { dead_letters: letters.concat(), ..Prepared::default() })
    }
}

impl DStream<Late<Record>> {
    /// Keeps the Kafka records themselves in the table `dead_letters`, in the batch's transaction: key, value, headers, timestamp,
    /// topic, partition and offset, with the stage `window`. `output` names the windows that could not take them.
    ///
    /// Only records can be: of anything else it is not known where it lies in Kafka. Let the windows be over the direct
    /// stream itself, and make the pair in [`reduce_by_key_and_event_window`](super::EventTimeDStream::reduce_by_key_and_event_window).
    ///
    /// ```
    /// # use directstream::{Record, transform::{DStream, EventWindowDStream}};
    /// # fn example(minutes: EventWindowDStream<Record, String, i64>) {
    /// minutes.late().save_as_dead_letters("minutes");
    /// # }
    /// ```
    pub fn save_as_dead_letters(&self, output: impl Into<String>) {
        let output = SaveAsDeadLetters { stream: self.used(), output: output.into() };
        self.graph().add_output(Output::Transactional(Arc::new(output)));
    }
}
