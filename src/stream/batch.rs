//! One batch's work before its commit: read and transform. Runs on a thread that may wait.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{measured::Measured, place::Place, sources::Sources};
use crate::{
    clock::Clock,
    error::{Error, Result, Stage},
    failpoint,
    plan::{Plan, PlannedRange},
    read::{KafkaRdd, ReadRanges},
    report::{OutputOperationInfo, Reporter},
    transform::{
        BatchScope, CommitQueue, Input, KeepsState, Output, Prepared, Queued, Remembers, Runner, StorageMemory,
        panicked,
    },
    types::{
        BatchCommit, BatchInfo, BatchTime, ColumnShape, CommittedRange, Compute, Isolated, Isolating, LostRange,
        Offset, OffsetRange, RangeCounts, Record, StateSegment, Task, Term, TopicPartition,
    },
};

/// What every batch is run with.
pub(super) struct Workshop {
    pub(super) sources: Arc<Sources>,
    pub(super) runner: Arc<dyn Runner>,
    pub(super) outputs: Vec<Output>,
    /// The columns of all output tables, in the order in which the store was given them.
    pub(super) tables: Vec<Vec<ColumnShape>>,
    /// What windows remember.
    pub(super) histories: Vec<Arc<dyn Remembers>>,
    /// The state operators.
    pub(super) states: Vec<Arc<dyn KeepsState>>,
    /// The queues that the program fills.
    pub(super) queues: Vec<Arc<dyn Queued>>,
    /// What the program wants committed to consumer groups, stream by stream.
    pub(super) commits: Vec<Arc<CommitQueue>>,
    /// Where slides begin: milliseconds since 1970-01-01 UTC.
    pub(super) zero_time_ms: i64,
    /// What every batch is run in.
    pub(super) term: Arc<Term>,
    pub(super) keep_chunks: bool,
    /// What the persisted elements of all batches in hand share.
    pub(super) storage: Arc<StorageMemory>,
    pub(super) reporter: Reporter,
    pub(super) clock: Arc<dyn Clock>,
}

/// The records of one batch: an RDD for each stream.
pub(super) struct Inputs {
    all: Vec<Arc<KafkaRdd>>,
}

impl Inputs {
    pub(super) fn for_scope(&self) -> Vec<Input> {
        let input = |records: &Arc<KafkaRdd>| Input {
            records: Arc::clone(records) as Arc<dyn Compute<Record>>,
            ranges: Arc::clone(records.offset_ranges()),
        };
        self.all.iter().map(input).collect()
    }

    /// Reads what no output asked for.
    ///
    /// # Errors
    /// What reading failed with.
    pub(super) fn complete(&self, runner: &dyn Runner, task: &Task) -> Result<()> {
        let partitions: Vec<_> = self
            .all
            .iter()
            .flat_map(|rdd| (0..rdd.offset_ranges().len()).map(move |partition| (rdd, partition)))
            .collect();
        runner.run(partitions.len(), &|index| {
            let (rdd, partition) = partitions[index];
            rdd.complete(partition, task).map(|_| ())
        })
    }

    /// What reading each range found; a range that was not read to its end is not in it.
    pub(super) fn counts(&self) -> BTreeMap<TopicPartition, RangeCounts> {
        let of = |rdd: &Arc<KafkaRdd>| {
            let counts = rdd.counts();
            let ranges = rdd.offset_ranges().iter().zip(counts);
            ranges.filter_map(|(range, counts)| Some((range.topic_partition.clone(), counts?))).collect::<Vec<_>>()
        };
        self.all.iter().flat_map(of).collect()
    }
}

/// What is planned for one batch.
pub(super) struct Assignment {
    pub(super) batch: BatchInfo,
    pub(super) plan: Plan,
    pub(super) lost_ranges: Vec<LostRange>,
    /// The name of the batch before it.
    pub(super) last_time: Option<BatchTime>,
    /// Where every partition stood when the batch was planned.
    pub(super) places: BTreeMap<TopicPartition, Place>,
    pub(super) task: Task,
    /// When its work began, in monotonic time.
    pub(super) began: Duration,
    pub(super) processing_started_ms: i64,
    /// What reads the ranges.
    pub(super) measured: Arc<Measured>,
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
        let place = |planned: &PlannedRange| self.places.get(&planned.range.topic_partition);
        let epoch = |planned: &PlannedRange| place(planned).filter(|place| !place.truncated)?.leader_epoch;
        let ranges = self.plan.ranges.iter().filter(goes_on);
        ranges.filter_map(|planned| Some((&planned.range.topic_partition, epoch(planned)?))).collect()
    }
}

/// A batch that is read and transformed, and whose side effects have not run yet.
pub(super) struct Processed {
    pub(super) commit: BatchCommit,
    pub(super) operations: Vec<OutputOperationInfo>,
    /// Elements that came into no window over event time.
    pub(super) late_records: u64,
    scope: BatchScope,
}

impl Workshop {
    /// Reads the ranges and computes what the transactional outputs will write. Nothing is written.
    pub(super) fn process(&self, assignment: &Assignment) -> Result<Processed> {
        failpoint::hit("plan::done")?;
        let ranges = &assignment.batch.ranges;
        let epochs = assignment.leader_epochs();
        let epoch_of = |topic_partition: &TopicPartition| epochs.get(topic_partition).copied();
        self.sources.prepare(ranges, &epoch_of).map_err(|error| error.at(Stage::Read))?;
        let inputs = self.inputs(&(Arc::clone(&assignment.measured) as Arc<dyn ReadRanges>), ranges);
        let scope = if assignment.isolating { BatchScope::isolating } else { BatchScope::on_grid };
        let scope = scope(assignment.task.clone(), Arc::clone(&self.runner), inputs.for_scope(), self.zero_time_ms);
        let scope = scope.storing_in(Arc::clone(&self.storage));
        self.queues.iter().for_each(|queue| queue.take(assignment.batch.batch_seq));
        self.remember(&scope)?;
        let state = self.advance_states(&scope)?;
        let mut operations = Vec::new();
        let (prepared, isolating) = self.prepare(&scope, &mut operations)?;
        // Offsets are committed for all records, so all of them must have been there, also where no output asked.
        inputs.complete(&*self.runner, &assignment.task)?;
        assignment.measured.through();
        failpoint::hit("transform::done")?;
        let ranges = committed_ranges(&assignment.plan, &inputs.counts())?;
        check_chain(&ranges, &assignment.lost_ranges)?;
        let commit = BatchCommit {
            batch_seq: assignment.batch.batch_seq,
            batch_time: assignment.batch.batch_time,
            ranges,
            tables: prepared.tables,
            records: prepared.records,
            isolating,
            dead_letters: prepared.dead_letters,
            lost_ranges: assignment.lost_ranges.clone(),
            state,
            user_code: prepared.user_code,
            processing_started_ms: assignment.processing_started_ms,
        };
        let late_records = self.states.iter().map(|state| state.late_records(commit.batch_seq)).sum();
        Ok(Processed { commit, operations, late_records, scope })
    }

    /// The records of `ranges`, stream by stream.
    pub(super) fn inputs(&self, reader: &Arc<dyn ReadRanges>, ranges: &Arc<[OffsetRange]>) -> Inputs {
        let of = |ranges| KafkaRdd::new(Arc::clone(reader), ranges, self.keep_chunks);
        Inputs { all: self.sources.split(ranges).into_iter().map(of).map(Arc::new).collect() }
    }

    /// How far windows look back, in milliseconds of batch time; 0 if there are none.
    pub(super) fn looks_back_ms(&self) -> i64 {
        self.histories.iter().map(|history| history.remembered_ms()).max().unwrap_or(0)
    }

    /// Lets windows see the batch. A panic in the driver-side part of the user's code fails it.
    pub(super) fn remember(&self, scope: &BatchScope) -> Result<()> {
        self.histories.iter().try_for_each(|history| {
            let done = catch_unwind(AssertUnwindSafe(|| history.remember(scope)));
            done.unwrap_or_else(|panic| Err(panicked(&*panic))).map_err(|error| error.at(Stage::Transform))
        })
    }

    /// Lets the state operators, which may build on windows and on each other, take the batch in; what of it is to be stored.
    fn advance_states(&self, scope: &BatchScope) -> Result<Vec<StateSegment>> {
        let mut segments = Vec::new();
        for state in &self.states {
            let done = catch_unwind(AssertUnwindSafe(|| state.advance(scope)));
            let done = done.unwrap_or_else(|panic| Err(panicked(&*panic)));
            segments.extend(done.map_err(|error| error.at(Stage::Transform))?);
        }
        Ok(segments)
    }

    /// Whether a batch of that time must be run for windows, also without any record.
    pub(super) fn must_advance(&self, batch_time: BatchTime) -> bool {
        self.histories.iter().any(|history| history.counts_at(batch_time.as_ms()))
    }

    /// Whether a batch of that time must be run for state or for a queue, also without any record, after batch `last`.
    pub(super) fn is_due(&self, last: u64, batch_time: BatchTime) -> bool {
        self.states.iter().any(|state| state.is_due(last, batch_time.as_ms())) || self.has_queued(last)
    }

    /// Whether a queue has something that no batch has up to `last`.
    pub(super) fn has_queued(&self, last: u64) -> bool {
        self.queues.iter().any(|queue| queue.is_due(last.saturating_add(1)))
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
            let slide_ms = output.slide_ms();
            let Output::Transactional(output) = output else { continue };
            let end = first + output.tables().len();
            if !scope.is_due(slide_ms) {
                first = end;
                continue;
            }
            let columns = self.tables.get(first..end).unwrap_or_default();
            let prepared = self.operate(id, output.name(), scope, operations, || output.prepare(scope, columns))?;
            all.tables.extend(prepared.tables.into_iter().map(|mut rows| {
                rows.table += first;
                rows
            }));
            if let Some(records) = prepared.isolating {
                isolating = Some(Isolating { first_table: first, records, isolated: Isolated::default() });
            }
            all.records.extend(prepared.records);
            all.dead_letters.extend(prepared.dead_letters);
            all.user_code.extend(prepared.user_code);
            first = end;
        }
        Ok((all, isolating))
    }

    /// Runs the side effects, in order of definition: after the batch before has committed, and before this one does.
    pub(super) fn run_side_effects(&self, processed: &mut Processed) -> Result<()> {
        for (id, output) in self.outputs.iter().enumerate() {
            let slide_ms = output.slide_ms();
            let Output::SideEffect(output) = output else { continue };
            if !processed.scope.is_due(slide_ms) {
                continue;
            }
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
fn committed_ranges(plan: &Plan, counts: &BTreeMap<TopicPartition, RangeCounts>) -> Result<Vec<CommittedRange>> {
    let mut committed = Vec::new();
    for planned in &plan.ranges {
        let mut counts = counts.get(&planned.range.topic_partition).copied().unwrap_or_default();
        if counts.records + counts.gaps != planned.range.count() {
            let message = format!("a range was not read whole records={} gaps={}", counts.records, counts.gaps);
            return Err(Error::internal(message).at(Stage::Read).in_range(planned.range.clone()));
        }
        counts.leader_epoch = end_epoch(planned, &counts);
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

/// A loss and the move over it belong into one transaction: a move without its loss would skip records that nobody is told
/// of, a loss without its move would be told again and again.
fn check_chain(ranges: &[CommittedRange], lost_ranges: &[LostRange]) -> Result<()> {
    let is_lost = |range: &CommittedRange| {
        lost_ranges
            .iter()
            .any(|lost| lost.topic_partition == range.range.topic_partition && Some(lost.from_offset) == range.expected)
    };
    let jumps = |range: &&CommittedRange| range.expected.is_some_and(|expected| expected != range.range.from_offset);
    if let Some(range) = ranges.iter().filter(jumps).find(|range| !is_lost(range)) {
        let message = "a range does not begin where the one before it ended, and nothing was lost";
        return Err(Error::internal(message).at(Stage::Plan).in_range(range.range.clone()));
    }
    let moved = |lost: &LostRange| ranges.iter().any(|range| range.range.topic_partition == lost.topic_partition);
    match lost_ranges.iter().find(|lost| !moved(lost)) {
        None => Ok(()),
        Some(lost) => {
            let error = Error::internal("a lost range comes without the move over it").at(Stage::Plan);
            Err(error.on(lost.topic_partition.clone()))
        }
    }
}

/// The leader epoch that is stored with a range's end. A later seek to that end tells it to the broker, which says where
/// its entries up to that epoch end: below the stored offset, the log was cut off there. Too old an epoch is a false
/// alarm, none at all a truncation that nobody notices.
///
/// - The last offset has a record: its epoch is the end's.
/// - A gap lies there. A record before it may be of an older leader than the gap, so its epoch may end before the range
///   does. Taken is the epoch of the leader that told the latest offset:
///   - what lies below a latest offset is on every leader that is elected cleanly after it, under epochs that are not
///     later than the one told. Up to that epoch the log reaches past the range's end, however many leaders came since
///     and whether or not they wrote anything: no false alarm;
///   - a log that was cut off below the end has its next entries under a later epoch, since a leader that comes by an
///     unclean election or a restart has a new one: up to the epoch told it ends before the range: found.
/// - Another leader came between that answer and the read. A record that it wrote has a later epoch than the one told,
///   which then says nothing about the end: none is stored. (Where all that it wrote is gaps, nothing shows it. If it was
///   elected uncleanly as well, the alarm tells of a truncation that did happen, within the range.)
fn end_epoch(planned: &PlannedRange, counts: &RangeCounts) -> Option<i32> {
    let told = || planned.latest_epoch.filter(|told| counts.record_epoch.is_none_or(|record| record <= *told));
    counts.leader_epoch.or_else(told)
}

/// The ranges as the batch's info shows them.
pub(super) fn ranges_of(plan: &Plan) -> Arc<[OffsetRange]> {
    plan.ranges.iter().map(|planned: &PlannedRange| planned.range.clone()).collect()
}

/// The end of each range, and its leader epoch: where the next batch goes on.
pub(super) fn ends_of(commit: &BatchCommit) -> impl Iterator<Item = (&TopicPartition, Offset, Option<i32>)> {
    commit
        .ranges
        .iter()
        .map(|range| (&range.range.topic_partition, range.range.until_offset, range.counts.leader_epoch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, types::LostRangeReason};

    fn planned(latest_epoch: Option<i32>) -> PlannedRange {
        PlannedRange {
            range: range(0, 0, 10),
            expected: Some(Offset::ZERO),
            expected_topic_id: None,
            topic_id: None,
            latest: Offset::clamped(10),
            latest_epoch,
            cut: None,
        }
    }

    fn range(partition: i32, from: i64, until: i64) -> OffsetRange {
        OffsetRange::new(TopicPartition::new("t", partition), Offset::clamped(from), Offset::clamped(until))
    }

    #[test]
    fn the_end_of_a_range_has_the_epoch_of_its_record_or_of_the_leader_that_told_the_latest_offset() {
        // Of the record at the end, of the last record, told with the latest offset; stored.
        for (at_end, record, told, stored) in [
            (Some(3), Some(3), Some(5), Some(3)),
            (Some(3), Some(3), None, Some(3)),
            (None, Some(3), Some(5), Some(5)),
            (None, Some(5), Some(5), Some(5)),
            (None, None, Some(5), Some(5)),
            // A leader that came after the answer wrote the record: how far the one told reaches is not known.
            (None, Some(6), Some(5), None),
            (None, Some(3), None, None),
            (None, None, None, None),
        ] {
            let counts = RangeCounts { leader_epoch: at_end, record_epoch: record, ..RangeCounts::default() };
            assert_eq!(end_epoch(&planned(told), &counts), stored, "{at_end:?} {record:?} {told:?}");
        }
    }

    #[test]
    fn a_loss_and_the_move_over_it_come_together_or_not_at_all() {
        let moved = |partition, expected: Option<i64>, from| CommittedRange {
            range: range(partition, from, 20),
            expected: expected.map(Offset::clamped),
            expected_topic_id: None,
            topic_id: None,
            counts: RangeCounts::default(),
        };
        let lost = |partition, from| LostRange {
            topic_partition: TopicPartition::new("t", partition),
            from_offset: Offset::clamped(from),
            until_offset: None,
            reason: LostRangeReason::Retention,
            topic_id: None,
        };
        let ranges = [moved(0, Some(5), 15), moved(1, Some(7), 7), moved(2, None, 3)];
        check_chain(&ranges, &[lost(0, 5)]).unwrap();
        // A log that was cut off and has grown past the committed offset goes on where it was.
        check_chain(&ranges, &[lost(0, 5), lost(1, 7)]).unwrap();
        for losses in [vec![], vec![lost(1, 7)], vec![lost(0, 4)], vec![lost(0, 5), lost(3, 1)]] {
            assert_eq!(check_chain(&ranges, &losses).unwrap_err().kind(), ErrorKind::Internal, "{losses:?}");
        }
    }
}
