//! When which part of a batch ran, as the driver tells it: what its trace and its page are made of.

use std::time::Duration;

use super::{
    reporter::Reporter,
    text::shortened,
    traces::{TRACE_LINKS_MAX, TraceParent},
};
use crate::types::BatchTime;

/// Of one batch so many tries to commit are kept, the first ones.
const COMMIT_EVENTS_MAX: usize = 16;

/// Bytes of an error's line that are kept.
const LINE_BYTES_MAX: usize = 500;

/// A part of a batch's work that is measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// Kafka was asked, and the ranges were planned.
    Plan,
    /// Ranges were read and transformed. Output operations that commit with the batch ran within.
    Process,
    /// Ranges were being read: from the first that a task began to the last that one ended.
    Read,
    /// The batch before was waited for to commit.
    Wait,
    /// The batch was handed to the store, up to the answer; tries that failed included.
    Commit,
}

/// One step of a batch: when, by the wall clock, in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepInfo {
    /// What.
    pub kind: StepKind,
    /// When it began.
    pub start_time_ms: i64,
    /// When it ended.
    pub end_time_ms: i64,
}

/// How the tasks that read ranges spent their time, summed over all of them: they run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskTimes {
    /// Waiting for records, and taking them.
    pub reading: Duration,
    /// Giving them to the job's operations.
    pub transforming: Duration,
}

/// What happened to a commit on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitEvent {
    /// The answer was lost, and the store then said that it had happened.
    SettledCommitted,
    /// The answer was lost, and the store then said that it had not.
    SettledRolledBack,
    /// It was not committed, and is tried again or given up.
    NotCommitted,
}

/// What is told of a batch under way beside its progress.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) steps: Steps,
    pub(super) commit_events: Vec<ToldEvent>,
    pub(super) parents: Vec<TraceParent>,
}

/// The steps of a batch, as far as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Steps {
    pub(super) plan: Option<StepInfo>,
    pub(super) process: Option<StepInfo>,
    pub(super) read: Option<StepInfo>,
    pub(super) tasks: TaskTimes,
    pub(super) wait: Option<StepInfo>,
    pub(super) commit: Option<StepInfo>,
}

#[derive(Debug, Clone)]
#[cfg_attr(not(any(feature = "opentelemetry", test)), expect(dead_code, reason = "nothing is sent by this build"))]
pub(super) struct ToldEvent {
    pub(super) at_ms: i64,
    pub(super) event: CommitEvent,
    /// Why, in one line without payload.
    pub(super) line: Option<String>,
}

impl StepInfo {
    /// How long it took, in milliseconds; 0 if the clock went back.
    #[must_use]
    pub fn took_ms(&self) -> u64 {
        u64::try_from(self.end_time_ms.saturating_sub(self.start_time_ms)).unwrap_or(0)
    }
}

impl Steps {
    /// Of the time in which ranges were being read, the share that tasks spent reading; the rest they transformed.
    pub(super) fn read_time_ms(&self) -> Option<u64> {
        let TaskTimes { reading, transforming } = self.tasks;
        let all = reading.saturating_add(transforming);
        let took = self.read?.took_ms();
        if all.is_zero() {
            return Some(0);
        }
        let took = u128::from(took).saturating_mul(reading.as_micros()).checked_div(all.as_micros())?;
        u64::try_from(took).ok()
    }
}

impl Told {
    fn step(&mut self, step: StepInfo) {
        let place = match step.kind {
            StepKind::Plan => &mut self.steps.plan,
            StepKind::Process => &mut self.steps.process,
            StepKind::Read => &mut self.steps.read,
            StepKind::Wait => &mut self.steps.wait,
            StepKind::Commit => &mut self.steps.commit,
        };
        *place = Some(step);
    }
}

/// What the driver tells of a batch under way; of one that is not, nothing is kept.
impl Reporter {
    /// A step of the batch ended, well or not.
    pub fn batch_step(&self, batch_time: BatchTime, step: StepInfo) {
        self.history().tell(batch_time, |told| told.step(step));
    }

    /// How the tasks that read the batch's ranges spent their time, and the traces that its first records belong to, of which
    /// so many are kept as a span may have links.
    pub fn batch_read(&self, batch_time: BatchTime, tasks: TaskTimes, parents: &[TraceParent]) {
        self.history().tell(batch_time, |told| {
            told.steps.tasks = tasks;
            told.parents = parents.iter().take(TRACE_LINKS_MAX).copied().collect();
        });
    }

    /// Something happened to the batch's commit that is worth telling. Kept are the first few of a batch.
    pub fn commit_event(&self, batch_time: BatchTime, event: CommitEvent, line: Option<&str>) {
        let at_ms = self.shared.clock.now_ms();
        let line = line.map(|line| shortened(line, LINE_BYTES_MAX).into_owned());
        self.history().tell(batch_time, |told| {
            if told.commit_events.len() < COMMIT_EVENTS_MAX {
                told.commit_events.push(ToldEvent { at_ms, event, line });
            }
        });
    }
}
