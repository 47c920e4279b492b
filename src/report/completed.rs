//! A batch that ended: how, and what it moved.

use std::{sync::Arc, time::Duration};

use super::{listener::BatchProgress, metrics::DEAD_LETTER_STAGES};
use crate::types::{BatchCommit, DeadLetterStage, Isolated, LostRangeReason, OffsetRange};

/// A range of a batch, and what reading it found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedRange {
    /// The range.
    pub range: OffsetRange,
    /// Offsets with a record.
    pub records: u64,
    /// Offsets without one.
    pub gaps: u64,
}

/// What a batch moved. Counted when it is committed, never before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchCounts {
    /// Offsets with a record.
    pub records: u64,
    /// Offsets without one.
    pub gaps: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Rows for the output tables.
    pub rows: u64,
    /// Refused records, by the step that refused them.
    pub dead_letters: Vec<(DeadLetterStage, u64)>,
    /// Elements that came into no window over event time; known to whoever transformed them.
    pub late_records: u64,
    /// Skipped ranges: why, and how many offsets where that is known.
    pub lost_ranges: Vec<(LostRangeReason, Option<u64>)>,
    /// The ranges that moved an offset, one by one.
    pub ranges: Arc<[CountedRange]>,
}

impl BatchCounts {
    /// Adds what is known only once the batch is committed: the store wrote it record by record.
    pub fn add_isolated(&mut self, isolated: Isolated) {
        self.rows = self.rows.saturating_add(isolated.rows);
        for (stage, count) in &mut self.dead_letters {
            if *stage == DeadLetterStage::Write {
                *count = count.saturating_add(isolated.dead_letters);
            }
        }
    }

    /// The counts of what is to be committed; `rows` is known to whoever encoded them.
    #[must_use]
    pub fn of(commit: &BatchCommit, rows: u64) -> Self {
        let counts = || commit.ranges.iter().map(|range| range.counts);
        let refused = |stage| commit.dead_letters.iter().filter(|letter| letter.stage == stage).count();
        Self {
            records: counts().map(|counts| counts.records).sum(),
            gaps: counts().map(|counts| counts.gaps).sum(),
            bytes: counts().map(|counts| counts.bytes).sum(),
            rows,
            dead_letters: DEAD_LETTER_STAGES
                .into_iter()
                .map(|stage| (stage, u64::try_from(refused(stage)).unwrap_or(u64::MAX)))
                .collect(),
            late_records: 0,
            lost_ranges: commit
                .lost_ranges
                .iter()
                .map(|lost| (lost.reason, lost.until_offset.map(|until| lost.from_offset.offsets_until(until))))
                .collect(),
            ranges: commit
                .ranges
                .iter()
                .map(|range| CountedRange {
                    range: range.range.clone(),
                    records: range.counts.records,
                    gaps: range.counts.gaps,
                })
                .collect(),
        }
    }
}

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOutcome {
    /// Committed: results, dead letters and offsets are in the store.
    Completed,
    /// It failed, and the stream ends.
    Failed,
    /// Nothing of it remains; its ranges are planned again.
    Dropped,
}

/// A batch that ended.
#[derive(Debug, Clone)]
pub struct CompletedBatch {
    /// The batch, with all its times.
    pub progress: BatchProgress,
    /// How it ended.
    pub outcome: BatchOutcome,
    /// What it moved; counted only if it was committed.
    pub counts: BatchCounts,
    /// How long its transaction was open, the answer to COMMIT included.
    pub commit_time: Option<Duration>,
    /// Why it failed or was dropped, in one line without payload.
    pub failure: Option<String>,
}

/// What the store said about a commit whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitSettled {
    /// It had happened.
    Committed,
    /// It had not.
    RolledBack,
}

/// What this process has committed since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Batches.
    pub batches: u64,
    /// Records of their ranges.
    pub records: u64,
    /// Offsets of their ranges without a record.
    pub gaps: u64,
    /// Elements that came into no window over event time.
    pub late_records: u64,
}
