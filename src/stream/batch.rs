//! One batch's work before its commit: read and transform. Runs on a thread that may wait.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::driver::Place;
use crate::{
    clock::Clock,
    error::{Error, Result, Stage},
    failpoint,
    plan::{Plan, PlannedRange},
    read::{DirectReader, KafkaRdd, ReadRanges},
    report::{OutputOperationInfo, Reporter},
    transform::{BatchScope, Input, Output, Prepared, Runner, panicked},
    types::{
        BatchCommit, BatchInfo, ColumnShape, CommittedRange, Compute, Isolated, Isolating, LostRange, Offset,
        OffsetRange, RangeCounts, Record, Task, TopicPartition,
    },
};

/// What every batch is run with.
pub(super) struct Workshop {
    pub(super) reader: Arc<DirectReader>,
    pub(super) runner: Arc<dyn Runner>,
    pub(super) outputs: Vec<Output>,
    /// The columns of all output tables, in the order in which the store was given them.
    pub(super) tables: Vec<Vec<ColumnShape>>,
    pub(super) keep_chunks: bool,
    pub(super) reporter: Reporter,
    pub(super) clock: Arc<dyn Clock>,
}

/// What is planned for one batch.
pub(super) struct Assignment {
    pub(super) batch: BatchInfo,
    pub(super) plan: Plan,
    pub(super) lost_ranges: Vec<LostRange>,
    /// Where every partition stood when the batch was planned.
    pub(super) places: BTreeMap<TopicPartition, Place>,
    pub(super) task: Task,
    pub(super) processing_started_ms: i64,
    /// The store refused rows of this batch: the records they come from are to be found.
    pub(super) isolating: bool,
}

impl Assignment {
    /// The epochs that the ranges' starts were read under. A range that goes on after a loss has none: the epoch belongs to
    /// a history that is gone.
    fn leader_epochs(&self) -> BTreeMap<&TopicPartition, i32> {
        let goes_on = |planned: &&PlannedRange| {
            planned.expected == Some(planned.range.from_offset) && planned.expected_topic_id == planned.topic_id
        };
        let epoch = |planned: &PlannedRange| self.places.get(&planned.range.topic_partition)?.leader_epoch;
        let ranges = self.plan.ranges.iter().filter(goes_on);
        ranges.filter_map(|planned| Some((&planned.range.topic_partition, epoch(planned)?))).collect()
    }
}

/// A batch that is read and transformed, and whose side effects have not run yet.
pub(super) struct Processed {
    pub(super) commit: BatchCommit,
    pub(super) operations: Vec<OutputOperationInfo>,
    scope: BatchScope,
}

impl Workshop {
    /// Reads the ranges and computes what the transactional outputs will write. Nothing is written.
    pub(super) fn process(&self, assignment: &Assignment) -> Result<Processed> {
        failpoint::hit("plan::done")?;
        let ranges = &assignment.batch.ranges;
        let epochs = assignment.leader_epochs();
        let epoch_of = |topic_partition: &TopicPartition| epochs.get(topic_partition).copied();
        self.reader.prepare(ranges, &epoch_of).map_err(|error| error.at(Stage::Read))?;
        let reader: Arc<dyn ReadRanges> = Arc::clone(&self.reader) as Arc<dyn ReadRanges>;
        let records = Arc::new(KafkaRdd::new(reader, Arc::clone(ranges), self.keep_chunks));
        let input = Input { records: Arc::clone(&records) as Arc<dyn Compute<Record>>, ranges: Arc::clone(ranges) };
        let scope = if assignment.isolating { BatchScope::isolating } else { BatchScope::new };
        let scope = scope(assignment.task.clone(), Arc::clone(&self.runner), vec![input]);
        let mut operations = Vec::new();
        let (prepared, isolating) = self.prepare(&scope, &mut operations)?;
        // Offsets are committed for all records, so all of them must have been there, also where no output asked.
        self.runner.run(ranges.len(), &|partition| records.complete(partition, &assignment.task).map(|_| ()))?;
        failpoint::hit("transform::done")?;
        let ranges = committed_ranges(&assignment.plan, &records.counts())?;
        let commit = BatchCommit {
            batch_seq: assignment.batch.batch_seq,
            batch_time: assignment.batch.batch_time,
            ranges,
            tables: prepared.tables,
            isolating,
            dead_letters: prepared.dead_letters,
            lost_ranges: assignment.lost_ranges.clone(),
            user_code: prepared.user_code,
            processing_started_ms: assignment.processing_started_ms,
        };
        Ok(Processed { commit, operations, scope })
    }

    /// Whether the records can be found that the store refuses. With two outputs that could find theirs, a record that one
    /// of them refuses would keep its rows in the other's tables.
    pub(super) fn isolates(&self) -> bool {
        let isolates = |output: &&Output| matches!(output, Output::Transactional(output) if output.isolates());
        self.outputs.iter().filter(isolates).count() == 1
    }

    fn prepare(
        &self,
        scope: &BatchScope,
        operations: &mut Vec<OutputOperationInfo>,
    ) -> Result<(Prepared, Option<Isolating>)> {
        let (mut all, mut isolating) = (Prepared::default(), None);
        let mut first = 0;
        for (id, output) in self.outputs.iter().enumerate() {
            let Output::Transactional(output) = output else { continue };
            let end = first + output.tables().len();
            let columns = self.tables.get(first..end).unwrap_or_default();
            let prepared = self.operate(id, output.name(), scope, operations, || output.prepare(scope, columns))?;
            all.tables.extend(prepared.tables.into_iter().map(|mut rows| {
                rows.table += first;
                rows
            }));
            if let Some(records) = prepared.isolating {
                isolating = Some(Isolating { first_table: first, records, isolated: Isolated::default() });
            }
            all.dead_letters.extend(prepared.dead_letters);
            all.user_code.extend(prepared.user_code);
            first = end;
        }
        Ok((all, isolating))
    }

    /// Runs the side effects, in order of definition: after the batch before has committed, and before this one does.
    pub(super) fn run_side_effects(&self, processed: &mut Processed) -> Result<()> {
        for (id, output) in self.outputs.iter().enumerate() {
            let Output::SideEffect(output) = output else { continue };
            let scope = processed.scope.clone();
            self.operate(id, output.name(), &scope, &mut processed.operations, || output.run(&scope))?;
        }
        Ok(())
    }

    pub(super) fn has_side_effects(&self) -> bool {
        self.outputs.iter().any(|output| matches!(output, Output::SideEffect(_)))
    }

    /// One output operation, with its events. A panic in the driver-side part of the user's code fails the batch.
    fn operate<R>(
        &self,
        id: usize,
        name: &str,
        scope: &BatchScope,
        operations: &mut Vec<OutputOperationInfo>,
        work: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let mut operation = OutputOperationInfo {
            batch_time: scope.batch().batch_time,
            id,
            name: name.to_owned(),
            start_time_ms: Some(self.clock.now_ms()),
            end_time_ms: None,
            failure_reason: None,
        };
        self.reporter.output_operation_started(&operation);
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)));
        operation.end_time_ms = Some(self.clock.now_ms());
        operation.failure_reason = done.as_ref().err().map(Error::chain);
        self.reporter.output_operation_completed(&operation);
        operations.push(operation);
        done.map_err(|error| error.at(Stage::Transform))
    }
}

/// The ranges that move an offset, each with what reading it found. Every offset must be accounted for.
fn committed_ranges(plan: &Plan, counts: &[Option<RangeCounts>]) -> Result<Vec<CommittedRange>> {
    let mut committed = Vec::new();
    for (planned, counts) in plan.ranges.iter().zip(counts) {
        let counts = counts.unwrap_or_default();
        if counts.records + counts.gaps != planned.range.count() {
            let message = format!("a range was not read whole records={} gaps={}", counts.records, counts.gaps);
            return Err(Error::internal(message).at(Stage::Read).in_range(planned.range.clone()));
        }
        if planned.moves() {
            committed.push(CommittedRange {
                range: planned.range.clone(),
                expected: planned.expected,
                expected_topic_id: planned.expected_topic_id.clone(),
                topic_id: planned.topic_id.clone(),
                counts,
            });
        }
    }
    Ok(committed)
}

/// The ranges as the batch's info shows them.
pub(super) fn ranges_of(plan: &Plan) -> Arc<[OffsetRange]> {
    plan.ranges.iter().map(|planned: &PlannedRange| planned.range.clone()).collect()
}

/// The end of each range, and the leader epoch of its last record: where the next batch goes on.
pub(super) fn ends_of(commit: &BatchCommit) -> impl Iterator<Item = (&TopicPartition, Offset, Option<i32>)> {
    commit
        .ranges
        .iter()
        .map(|range| (&range.range.topic_partition, range.range.until_offset, range.counts.leader_epoch))
}
