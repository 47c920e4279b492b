//! The last batches, for the web page and its API: bounded, and gone with the process. The ledger is what stays.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    completed::{BatchCounts, BatchOutcome, CompletedBatch, CountedRange},
    listener::{BatchProgress, InputInfo, OutputOperationInfo},
    metrics::LOST_RANGE_REASONS,
    receivers::ReceiverInfo,
    steps::{Steps, Told},
    text::shortened,
};
use crate::{
    config::RETAINED_BATCHES_DEFAULT,
    types::{BatchTime, DeadLetterStage, LostRangeReason, OffsetRange},
};

/// Of one batch so many ranges are kept, the longest: a page of 2,000 lines is read by nobody.
pub(super) const BATCH_RANGES_MAX: usize = 2_000;

/// Of all batches together so many ranges are kept, about 15 MB; older batches have their sums alone.
pub(super) const RANGES_MAX: usize = 200_000;

/// Of one batch so many output operations are kept.
const BATCH_OPERATIONS_MAX: usize = 100;

/// Of so many input streams the records are kept one by one; those of later ones are in the batch's sum alone.
pub(super) const STREAMS_MAX: usize = 20;

/// Batches under way that are kept. Two are, but for those that a stop abandoned.
const UNDER_WAY_MAX: usize = 16;

/// Batches that were dropped and planned again: so many of the last ones are kept.
const DROPPED_MAX: usize = 100;

/// Bytes of a name or of an error's line that are kept.
const NAME_BYTES_MAX: usize = 200;
const FAILURE_BYTES_MAX: usize = 2_000;

/// How far a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchState {
    Waiting,
    Running,
    Completed,
    Failed,
    Dropped,
}

/// The ranges of a batch, as far as they are kept.
#[derive(Debug, Clone)]
pub(super) enum KeptRanges {
    /// Not read yet, or never to their ends.
    Planned(Arc<[OffsetRange]>),
    /// As they were committed.
    Counted(Arc<[CountedRange]>),
    /// Too many batches came since.
    Forgotten,
}

impl KeptRanges {
    fn len(&self) -> usize {
        match self {
            Self::Planned(ranges) => ranges.len(),
            Self::Counted(ranges) => ranges.len(),
            Self::Forgotten => 0,
        }
    }
}

/// One batch.
#[derive(Debug, Clone)]
pub(super) struct BatchEntry {
    pub(super) batch_seq: u64,
    pub(super) batch_time: BatchTime,
    pub(super) state: BatchState,
    pub(super) submission_time_ms: i64,
    pub(super) processing_start_time_ms: Option<i64>,
    pub(super) processing_end_time_ms: Option<i64>,
    pub(super) scheduling_delay_ms: Option<u64>,
    pub(super) processing_delay_ms: Option<u64>,
    pub(super) total_delay_ms: Option<u64>,
    pub(super) commit_time_ms: Option<u64>,
    /// Records of all streams; until they are read, the offsets that their ranges span.
    pub(super) num_records: u64,
    /// The same of each stream, up to [`STREAMS_MAX`].
    pub(super) stream_records: Vec<u64>,
    /// What was committed; without the ranges.
    pub(super) counts: BatchCounts,
    pub(super) operations: Vec<OutputOperationInfo>,
    /// Why it failed or was dropped, in one line.
    pub(super) failure: Option<String>,
    /// How many ranges it has that are not empty.
    pub(super) ranges_total: usize,
    pub(super) ranges: KeptRanges,
    /// When which part of it ran.
    pub(super) steps: Steps,
}

impl BatchEntry {
    fn of(batch: &BatchProgress, state: BatchState) -> Self {
        Self {
            batch_seq: batch.batch.batch_seq,
            batch_time: batch.batch.batch_time,
            state,
            submission_time_ms: batch.submission_time_ms,
            processing_start_time_ms: batch.processing_start_time_ms,
            processing_end_time_ms: batch.processing_end_time_ms,
            scheduling_delay_ms: batch.scheduling_delay_ms(),
            processing_delay_ms: batch.processing_delay_ms(),
            total_delay_ms: batch.total_delay_ms(),
            commit_time_ms: None,
            num_records: batch.num_records(),
            stream_records: batch.inputs.iter().take(STREAMS_MAX).map(InputInfo::num_records).collect(),
            counts: BatchCounts::default(),
            operations: batch.output_operations.iter().take(BATCH_OPERATIONS_MAX).map(kept).collect(),
            failure: None,
            ranges_total: batch.batch.ranges.iter().filter(|range| !range.is_empty()).count(),
            ranges: KeptRanges::Planned(Arc::clone(&batch.batch.ranges)),
            steps: Steps::default(),
        }
    }

    /// Output operations that run, ended well, and failed. Spark: `numActiveOutputOp`, `numCompletedOutputOp`,
    /// `numFailedOutputOp` of `BatchUIData`.
    pub(super) fn operations_by_state(&self) -> [usize; 3] {
        let count = |is: fn(&OutputOperationInfo) -> bool| self.operations.iter().filter(|known| is(known)).count();
        [
            count(|known| known.end_time_ms.is_none() && !known.is_failed()),
            count(|known| known.end_time_ms.is_some() && !known.is_failed()),
            count(OutputOperationInfo::is_failed),
        ]
    }

    /// The batch's own failure, or that of its first operation that failed.
    pub(super) fn first_failure(&self) -> Option<&str> {
        let of_operations = || self.operations.iter().find_map(|known| known.failure_reason.as_deref());
        self.failure.as_deref().or_else(of_operations)
    }

    pub(super) fn is_failed(&self) -> bool {
        self.state == BatchState::Failed || self.operations.iter().any(OutputOperationInfo::is_failed)
    }
}

/// Sums since the process started.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums {
    /// Batches that ended and were not dropped.
    pub(super) completed_batches: u64,
    pub(super) dropped_batches: u64,
    /// Records of committed batches.
    pub(super) processed_records: u64,
    pub(super) gaps: u64,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) late_records: u64,
    pub(super) dead_letters: BTreeMap<&'static str, u64>,
}

/// Averages over the batches that are kept and have the value: those that wait have no delays.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Averages {
    /// Records a second.
    pub(super) input_rate: Option<f64>,
    pub(super) scheduling_delay_ms: Option<u64>,
    pub(super) processing_time_ms: Option<u64>,
    pub(super) total_delay_ms: Option<u64>,
}

/// What the page shows of the batches. Spark: `StreamingJobProgressListener`.
#[derive(Debug)]
pub(super) struct History {
    /// When the stream planned its first batch; `None` before.
    pub(super) start_time_ms: Option<i64>,
    pub(super) batch_interval: Duration,
    pub(super) epoch: u64,
    /// Used and budget.
    pub(super) memory_bytes: (u64, u64),
    pub(super) sums: Sums,
    /// Why the stream ended, in one line.
    pub(super) failure: Option<String>,
    pub(super) retained_max: usize,
    /// By the number of their stream.
    pub(super) receivers: BTreeMap<usize, ReceiverInfo>,
    /// The oldest first, like all lists here.
    under_way: VecDeque<BatchEntry>,
    /// What else was told of those under way.
    told: VecDeque<(BatchTime, Told)>,
    ended: VecDeque<Arc<BatchEntry>>,
    dropped: VecDeque<Arc<BatchEntry>>,
    /// Ranges of those that ended, and how many of them have theirs: the last ones.
    ranges_kept: usize,
    with_ranges: usize,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            start_time_ms: None,
            batch_interval: Duration::ZERO,
            epoch: 0,
            memory_bytes: (0, 0),
            sums: Sums::default(),
            failure: None,
            retained_max: RETAINED_BATCHES_DEFAULT,
            receivers: BTreeMap::new(),
            under_way: VecDeque::new(),
            told: VecDeque::new(),
            ended: VecDeque::new(),
            dropped: VecDeque::new(),
            ranges_kept: 0,
            with_ranges: 0,
        }
    }

    pub(super) fn started(&mut self, time_ms: i64, batch_interval: Duration) {
        (self.start_time_ms, self.batch_interval) = (Some(time_ms), batch_interval);
    }

    pub(super) fn submitted(&mut self, batch: &BatchProgress) {
        if self.under_way.len() >= UNDER_WAY_MAX {
            self.under_way.pop_front();
        }
        self.under_way.push_back(BatchEntry::of(batch, BatchState::Waiting));
    }

    pub(super) fn began(&mut self, batch: &BatchProgress) {
        self.take_under_way(batch.batch.batch_time);
        self.under_way.push_back(BatchEntry::of(batch, BatchState::Running));
    }

    /// An output operation of a batch under way began or ended.
    pub(super) fn operation(&mut self, operation: &OutputOperationInfo) {
        let batch = self.under_way.iter_mut().rev().find(|entry| entry.batch_time == operation.batch_time);
        let Some(BatchEntry { operations, .. }) = batch else { return };
        let room = operations.len() < BATCH_OPERATIONS_MAX;
        match operations.iter_mut().find(|known| known.id == operation.id) {
            Some(known) => *known = kept(operation),
            None if room => operations.push(kept(operation)),
            None => {}
        }
    }

    /// What is told of a batch under way beside its progress; nothing of others.
    pub(super) fn tell(&mut self, batch_time: BatchTime, tell: impl FnOnce(&mut Told)) {
        if !self.under_way.iter().any(|entry| entry.batch_time == batch_time) {
            return;
        }
        if let Some((_, told)) = self.told.iter_mut().find(|(known, _)| *known == batch_time) {
            return tell(told);
        }
        if self.told.len() >= UNDER_WAY_MAX {
            self.told.pop_front();
        }
        let mut told = Told::default();
        tell(&mut told);
        self.told.push_back((batch_time, told));
    }

    fn take_told(&mut self, batch_time: BatchTime) -> Told {
        let at = self.told.iter().position(|(known, _)| *known == batch_time);
        at.and_then(|at| self.told.remove(at)).map(|(_, told)| told).unwrap_or_default()
    }

    /// The batch ended: as it is kept, and what else was told of it.
    pub(super) fn ended(&mut self, completed: &CompletedBatch) -> (Arc<BatchEntry>, Told) {
        let CompletedBatch { progress, outcome, counts, commit_time, failure } = completed;
        let operations = self.take_under_way(progress.batch.batch_time).map(|entry| entry.operations);
        let told = self.take_told(progress.batch.batch_time);
        let state = match outcome {
            BatchOutcome::Completed => BatchState::Completed,
            BatchOutcome::Failed => BatchState::Failed,
            BatchOutcome::Dropped => BatchState::Dropped,
        };
        let mut entry = BatchEntry::of(progress, state);
        // A batch that was not transformed whole has told of its operations one by one alone.
        if let Some(operations) = operations.filter(|_| entry.operations.is_empty()) {
            entry.operations = operations;
        }
        entry.steps = told.steps;
        entry.commit_time_ms = commit_time.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        entry.failure = failure.as_deref().map(|line| shortened(line, FAILURE_BYTES_MAX).into_owned());
        if *outcome == BatchOutcome::Dropped {
            self.sums.dropped_batches += 1;
            entry.ranges = KeptRanges::Forgotten;
            let entry = Arc::new(entry);
            push_within(&mut self.dropped, DROPPED_MAX, Arc::clone(&entry));
            return (entry, told);
        }
        self.sums.completed_batches += 1;
        if *outcome == BatchOutcome::Completed {
            self.sums.add(counts);
            let lost_ranges = by_reason(&counts.lost_ranges);
            entry.counts = BatchCounts { ranges: Arc::default(), lost_ranges, ..counts.clone() };
            entry.ranges = KeptRanges::Counted(longest(&counts.ranges));
        }
        let entry = Arc::new(entry);
        self.keep(Arc::clone(&entry));
        (entry, told)
    }

    fn keep(&mut self, entry: Arc<BatchEntry>) {
        self.ranges_kept += entry.ranges.len();
        self.with_ranges += 1;
        for gone in push_within(&mut self.ended, self.retained_max, entry) {
            self.ranges_kept = self.ranges_kept.saturating_sub(gone.ranges.len());
        }
        self.with_ranges = self.with_ranges.min(self.ended.len());
        // The last batch has its ranges whatever comes.
        while self.ranges_kept > RANGES_MAX && self.with_ranges > 1 {
            let oldest = self.ended.len() - self.with_ranges;
            if let Some(entry) = self.ended.get_mut(oldest) {
                self.ranges_kept = self.ranges_kept.saturating_sub(entry.ranges.len());
                Arc::make_mut(entry).ranges = KeptRanges::Forgotten;
            }
            self.with_ranges -= 1;
        }
    }

    fn take_under_way(&mut self, batch_time: BatchTime) -> Option<BatchEntry> {
        let at = self.under_way.iter().rposition(|entry| entry.batch_time == batch_time)?;
        self.under_way.remove(at)
    }

    /// Batches in this state that have not ended, the newest first.
    pub(super) fn under_way(&self, state: BatchState) -> impl Iterator<Item = &BatchEntry> {
        self.under_way.iter().rev().filter(move |entry| entry.state == state)
    }

    /// Batches that ended and were not dropped, the newest first.
    pub(super) fn completed(&self) -> impl ExactSizeIterator<Item = &Arc<BatchEntry>> + DoubleEndedIterator {
        self.ended.iter().rev()
    }

    /// Batches that were dropped, the newest first.
    pub(super) fn dropped(&self) -> impl Iterator<Item = &Arc<BatchEntry>> {
        self.dropped.iter().rev()
    }

    /// The newest batch that is kept and fits.
    pub(super) fn find(&self, fits: impl Fn(&BatchEntry) -> bool) -> Option<Arc<BatchEntry>> {
        let under_way = self.under_way.iter().rev().find(|entry| fits(entry));
        let ended = || self.completed().find(|entry| fits(entry)).cloned();
        under_way.map(|entry| Arc::new(entry.clone())).or_else(ended)
    }

    /// Records of batches that were committed or are being processed. Spark counts a batch as received once it begins.
    pub(super) fn received_records(&self) -> u64 {
        let running: u64 = self.under_way(BatchState::Running).map(|entry| entry.num_records).sum();
        self.sums.processed_records.saturating_add(running)
    }

    pub(super) fn averages(&self) -> Averages {
        let all = || self.under_way.iter().chain(self.ended.iter().map(|entry| &**entry));
        let mean = |value: fn(&BatchEntry) -> Option<u64>| {
            let (sum, count) = all().filter_map(value).fold((0_u64, 0_u64), |(sum, n), ms| (sum + ms, n + 1));
            sum.checked_div(count)
        };
        let rates = all().map(|entry| self.rate(entry.num_records));
        let (sum, count) = rates.fold((0.0, 0.0), |(sum, count), rate| (sum + rate, count + 1.0));
        Averages {
            input_rate: (count > 0.0).then(|| sum / count),
            scheduling_delay_ms: mean(|entry| entry.scheduling_delay_ms),
            processing_time_ms: mean(|entry| entry.processing_delay_ms),
            total_delay_ms: mean(|entry| entry.total_delay_ms),
        }
    }

    /// So many records of one batch, in records a second.
    fn rate(&self, records: u64) -> f64 {
        let seconds = self.batch_interval.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for a chart")]
        let records = records as f64;
        if seconds > 0.0 { records / seconds } else { 0.0 }
    }
}

impl Sums {
    fn add(&mut self, counts: &BatchCounts) {
        self.processed_records += counts.records;
        self.gaps += counts.gaps;
        self.bytes += counts.bytes;
        self.rows += counts.rows;
        self.late_records += counts.late_records;
        for (stage, records) in &counts.dead_letters {
            *self.dead_letters.entry(stage_name(*stage)).or_default() += records;
        }
    }
}

/// A stage as the API names it.
pub(super) fn stage_name(stage: DeadLetterStage) -> &'static str {
    match stage {
        DeadLetterStage::Decode => "decode",
        DeadLetterStage::Convert => "convert",
        DeadLetterStage::Write => "write",
        DeadLetterStage::Window => "window",
    }
}

/// The operation as it is kept: its texts within their bounds.
fn kept(operation: &OutputOperationInfo) -> OutputOperationInfo {
    let mut kept = operation.clone();
    kept.name = shortened(&kept.name, NAME_BYTES_MAX).into_owned();
    kept.failure_reason = kept.failure_reason.map(|line| shortened(&line, FAILURE_BYTES_MAX).into_owned());
    kept
}

/// The longest ranges, in the order in which they come.
fn longest(ranges: &Arc<[CountedRange]>) -> Arc<[CountedRange]> {
    if ranges.len() <= BATCH_RANGES_MAX {
        return Arc::clone(ranges);
    }
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.select_nth_unstable_by_key(BATCH_RANGES_MAX, |at| {
        std::cmp::Reverse(ranges.get(*at).map(|counted| counted.range.count()))
    });
    order.truncate(BATCH_RANGES_MAX);
    order.sort_unstable();
    order.into_iter().filter_map(|at| ranges.get(at).cloned()).collect()
}

/// Adds an entry; gives what must go for it.
fn push_within(list: &mut VecDeque<Arc<BatchEntry>>, max: usize, entry: Arc<BatchEntry>) -> Vec<Arc<BatchEntry>> {
    list.push_back(entry);
    let gone = list.len().saturating_sub(max.max(1));
    list.drain(..gone).collect()
}

/// The lost ranges in one sum per reason: a batch may have one of each partition, and is kept for long.
fn by_reason(lost: &[(LostRangeReason, Option<u64>)]) -> Vec<(LostRangeReason, Option<u64>)> {
    let of = |reason| {
        let mut same = lost.iter().filter(|(own, _)| *own == reason).map(|(_, offsets)| *offsets).peekable();
        same.peek()?;
        // One of which it is not known how many makes the sum unknown.
        Some((reason, same.try_fold(0_u64, |sum, offsets| Some(sum.saturating_add(offsets?)))))
    };
    LOST_RANGE_REASONS.into_iter().filter_map(of).collect()
}
