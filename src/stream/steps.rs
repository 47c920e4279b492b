//! When which part of a batch ran: told to the reporter as each ends, a few calls a batch.

use super::{batch::Assignment, driver::Driver};
use crate::{
    report::{StepInfo, StepKind},
    types::BatchTime,
};

impl Driver {
    /// A step ended just now that began at `start_time_ms`.
    pub(super) fn step_ended(&self, batch_time: BatchTime, kind: StepKind, start_time_ms: i64) {
        let end_time_ms = self.clock.now_ms();
        self.reporter.batch_step(batch_time, StepInfo { kind, start_time_ms, end_time_ms });
    }

    /// Reading and transforming ended just now, well or not.
    pub(super) fn process_ended(&self, assignment: &Assignment) {
        let batch_time = assignment.batch.batch_time;
        if let Some((read, tasks, parents)) = assignment.measured.reading() {
            self.reporter.batch_step(batch_time, read);
            self.reporter.batch_read(batch_time, tasks, &parents);
        }
        self.step_ended(batch_time, StepKind::Process, assignment.processing_started_ms);
    }
}
