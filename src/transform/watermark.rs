//! The event-time watermark: how far event time has come, as the committed batches say it.
//!
//! It is state of one value, in a partition of its own, and is kept as state is: a batch that is run again, or was never
//! committed, finds the one before it. Every batch stores it whole.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::state_segment::{self, Draft, Name};
use crate::{
    error::Result,
    types::{SegmentKind, StateSegment},
};

/// The watermark after one batch. `None`: no element had a time yet.
#[derive(Debug, Clone, Copy)]
struct Mark {
    batch_seq: u64,
    watermark_ms: Option<i64>,
}

/// The watermark of a state operator.
#[derive(Debug)]
pub(super) struct Watermark {
    operator: u32,
    partition: u32,
    /// After the last three batches, the oldest first: of two it may turn out that they were not committed.
    marks: Mutex<VecDeque<Mark>>,
}

impl Watermark {
    /// The watermark of state operator `operator`, stored as its partition `partition`.
    pub(super) fn new(operator: u32, partition: u32) -> Self {
        Self { operator, partition, marks: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Mark>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is once batch `last` is committed: that of the batch after it.
    pub(super) fn after(&self, last: u64) -> Option<i64> {
        self.lock().iter().rev().find(|mark| mark.batch_seq <= last).and_then(|mark| mark.watermark_ms)
    }

    /// Batch `batch_seq` moves it up to `until_ms`, never back; what is stored of that. What was run of the batch before, or of
    /// later ones, is no more.
    pub(super) fn advance(&self, batch_seq: u64, until_ms: Option<i64>) -> Result<StateSegment> {
        // None is less than any time.
        let watermark_ms = self.after(batch_seq.saturating_sub(1)).max(until_ms);
        let mut marks = self.lock();
        marks.retain(|mark| mark.batch_seq < batch_seq && mark.batch_seq.saturating_add(2) >= batch_seq);
        marks.push_back(Mark { batch_seq, watermark_ms });
        let mut draft = Draft::new();
        draft.add(&(), Some(&watermark_ms))?;
        let name = Name { operator: self.operator, partition: self.partition, batch_seq };
        Ok(draft.sealed(name, SegmentKind::Base))
    }

    /// Takes in what is stored of batch `last`.
    pub(super) fn restore(&self, segments: &[StateSegment], last: u64) -> Result<()> {
        state_segment::check_chain(self.operator, self.partition, segments, last)?;
        let mut watermark_ms = None;
        for segment in segments {
            state_segment::read(segment, |(): (), mark: Option<Option<i64>>| watermark_ms = mark.flatten())?;
        }
        self.lock().push_back(Mark { batch_seq: last, watermark_ms });
        Ok(())
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }
}
