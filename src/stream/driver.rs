//! The loop: plan, read and transform, commit, report. Batches overlap, commits do not.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    asked_to_stop,
    batch::{Assignment, Processed, Workshop, ends_of, ranges_of},
    failing::{Failing, FailureBudget},
    life::Resting,
    measured::Measured,
    mirrors::Mirrors,
    pending::{Patience, Pending, Settled},
    place::Place,
    sources::Sources,
};
use crate::{
    clock::Clock,
    commit::{Committer, StoreHealth, StoredPosition},
    config::StreamConfig,
    error::{Error, ErrorKind, Result, Stage},
    failpoint,
    plan::{Plan, RateController, RecordSize, Silence, Timing, reached},
    read::ReadRanges,
    report::{BatchCounts, BatchOutcome, BatchProgress, CompletedBatch, Reporter, Status, StepInfo, StepKind},
    types::{BatchCommit, BatchInfo, BatchTime, KafkaRecord, LostRange, Offset, Task, TopicPartition},
};

/// After a stop was asked for and the batch in hand has ended (`in_hand.rs`), the commit under way is waited for so long;
/// after that its end is found out at the next start.
const STOP_COMMIT: Duration = Duration::from_secs(4);
/// ... and so long may the store take to give the application up. All four together are the grace of ten seconds.
pub(super) const STOP_STORE: Duration = Duration::from_secs(1);
/// ... and so long beforehand the sources to end, which takes time only where receivers have something to put away.
pub(super) const STOP_SOURCES: Duration = Duration::from_secs(1);
/// Of the memory budget, the share of one batch: half of it is prefetch, and two batches are in hand at a time.
pub(super) const BATCH_SHARE: u64 = 4;
/// ... and the share above which a batch is dropped and planned again: its records are far larger than those before them.
const BATCH_SHARE_MAX: u64 = 2;

/// Why the loop ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was asked to.
    Stopped,
    /// The offsets that were latest at start are committed.
    ReachedLatest,
}

pub(super) struct Driver {
    pub(super) stream: StreamConfig,
    pub(super) workshop: Arc<Workshop>,
    pub(super) sources: Sources,
    pub(super) committer: Committer,
    pub(super) mirrors: Mirrors,
    pub(super) reporter: Reporter,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) timing: Timing,
    pub(super) places: BTreeMap<TopicPartition, Place>,
    /// The number of the last batch that is committed or being committed.
    pub(super) batch_seq: u64,
    pub(super) last_time: Option<BatchTime>,
    pub(super) record_size: RecordSize,
    /// The total rate, where `stream.backpressure` is on.
    pub(super) rate_controller: Option<RateController>,
    pub(super) silence: Silence,
    pub(super) stop_at: Option<BTreeMap<TopicPartition, Offset>>,
    pub(super) pending: Option<Pending>,
    /// A batch whose rows the store refused: its ranges are next.
    pub(super) refused: Option<Arc<Assignment>>,
    /// Conflicts in a row.
    pub(super) conflicts: u32,
    pub(super) failures: FailureBudget,
    /// Whether the process before died without a commit, so that the first batch is read once before it counts.
    pub(super) rehearse: bool,
    /// When a stop was first seen to be asked for, in monotonic time.
    pub(super) stop_asked: OnceLock<Duration>,
    /// Committed batches that windows may still look back on, the oldest first.
    pub(super) retired: VecDeque<BatchInfo>,
    /// Intervals that were begun.
    pub(super) intervals: u64,
    /// Told while nothing is under way.
    pub(super) resting: watch::Sender<Option<Resting>>,
}

/// What a planned interval came to.
enum Turn {
    /// A batch was handed to the committer; whether the memory budget cut it short.
    Committing { cut_short: bool },
    /// There is nothing to read.
    Nothing,
    /// The batch was dropped whole and its ranges will be planned again.
    Dropped(Error),
    /// A stop was asked for, and the batch was abandoned whole.
    Abandoned,
}

impl Driver {
    /// Runs until it is asked to stop, everything asked for is read, or something ends it.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<End> {
        self.reporter.status(Status::Running);
        self.reporter.streaming_started(self.stream.batch_interval);
        self.reporter.rate_limit(self.total_rate());
        let ended = self.run_batches(&mut stop).await;
        self.reporter.status(Status::Stopping);
        // A commit under way is waited for, whatever ended the loop: its end is known then, not guessed at next start.
        let settled = match tokio::time::timeout(STOP_COMMIT, self.settle()).await {
            Ok(settled) => settled,
            Err(_grace_is_over) => Ok(()),
        };
        self.commit_to_groups();
        let end = ended?;
        settled?;
        Ok(end)
    }

    async fn run_batches(&mut self, stop: &mut watch::Receiver<bool>) -> Result<End> {
        let mut cut_short = false;
        let mut began = self.clock.monotonic();
        let mut failing = Failing::new(self.failures.clone());
        loop {
            let since = self.clock.monotonic().saturating_sub(began);
            let wait = self.timing.wait(self.clock.now_ms(), self.last_time, since, cut_short).max(failing.pause());
            if self.rest(wait, failing.is_failing(), stop).await? {
                return Ok(End::Stopped);
            }
            began = self.clock.monotonic();
            self.intervals += 1;
            self.commit_to_groups();
            let turn = self.turn(stop).await?;
            cut_short = matches!(turn, Turn::Committing { cut_short: true });
            match turn {
                Turn::Committing { .. } | Turn::Nothing => failing.ended(),
                Turn::Dropped(error) => failing.again(error, self.clock.monotonic(), self.stream.unavailable_max)?,
                Turn::Abandoned => return Ok(End::Stopped),
            }
            if self.is_done() {
                if self.settle_or_stop(stop).await? {
                    return Ok(End::Stopped);
                }
                if self.is_done() {
                    return self.outbox_sent(stop).await;
                }
            }
        }
    }

    /// Everything asked for is committed: what of it goes to Kafka is to be there, too.
    async fn outbox_sent(&self, stop: &mut watch::Receiver<bool>) -> Result<End> {
        tokio::select! {
            sent = self.committer.outbox_sent() => sent.map(|()| End::ReachedLatest),
            () = asked_to_stop(stop) => Ok(End::Stopped),
        }
    }

    /// Waits for the next interval, and meanwhile for the commit under way. Gives whether a stop was asked for.
    async fn rest(&mut self, wait: Duration, failing: bool, stop: &mut watch::Receiver<bool>) -> Result<bool> {
        let mut health = self.committer.health();
        let clock = Arc::clone(&self.clock);
        let (mut until, ends) = (clock.sleep(wait), clock.monotonic().saturating_add(wait));
        loop {
            if self.pending.as_ref().is_some_and(Pending::is_finished) {
                self.settle().await?;
            }
            // An idle owner learns here that it was fenced, not at its next commit.
            if let StoreHealth::Ended(kind, message) = &*health.borrow_and_update() {
                return Err(Error::new(*kind, message.clone()).at(Stage::Commit));
            }
            self.reporter.progress();
            let again = failing || self.refused.is_some() || self.conflicts > 0;
            let resting = Resting { until: ends, again, intervals: self.intervals };
            self.resting.send_replace(self.pending.is_none().then_some(resting));
            let mut check = std::pin::pin!(tokio::time::sleep(Duration::from_secs(1)));
            tokio::select! {
                biased;
                () = asked_to_stop(stop) => return Ok(true),
                () = &mut until => return Ok(false),
                _ = health.changed() => {}
                settled = settled(&mut self.pending), if self.pending.is_some() => self.finish_commit(settled)?,
                () = &mut check => {}
            }
        }
    }

    /// One interval: plan, read and transform, side effects, and hand over to the committer.
    async fn turn(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Turn> {
        if let Some(refused) = self.refused.take() {
            let (plan, lost_ranges) = (refused.plan.clone(), refused.lost_ranges.clone());
            // With the places it was planned from: the stored ones know nothing of a log that was cut off since.
            let places = refused.places.clone();
            let (assignment, progress) = self.submit(plan, lost_ranges, refused.batch.batch_time, (places, true));
            // It may hold the memory of two batches.
            let turn = self.run_batch(assignment, progress, stop).await?;
            return self.alone(turn, stop).await;
        }
        let (started, started_ms) = (self.clock.monotonic(), self.clock.now_ms());
        let answers = tokio::select! {
            answers = self.sources.ask() => answers?,
            // The question is left to itself: a broker that does not answer must not hold a stop up.
            () = asked_to_stop(stop) => return Ok(Turn::Abandoned),
        };
        let (plan, lost_ranges) = self.plan(&answers)?;
        let planned_ms = self.clock.now_ms();
        self.reporter.plan_completed(self.clock.monotonic().saturating_sub(started));
        self.report_positions(&answers);
        // Windows slide over every tick; once nothing is left in them, ticks may be skipped.
        let next =
            self.last_time.map(|last| self.timing.next_tick(last)).filter(|next| self.workshop.must_advance(*next));
        let time = next.unwrap_or_else(|| self.timing.batch_time(self.clock.now_ms(), self.last_time));
        let due = next.is_some() || self.workshop.is_due(self.batch_seq, time);
        if !plan.moves() && lost_ranges.is_empty() && !due {
            // The interval is over; the next one has another name.
            self.last_time = Some(time);
            return Ok(Turn::Nothing);
        }
        if std::mem::take(&mut self.rehearse) && self.rehearsed(&plan, stop).await?.is_none() {
            return Ok(Turn::Abandoned);
        }
        let cut_short = plan.is_cut_by_memory();
        let (assignment, progress) = self.submit(plan, lost_ranges, time, (self.places.clone(), false));
        let step = StepInfo { kind: StepKind::Plan, start_time_ms: started_ms, end_time_ms: planned_ms };
        self.reporter.batch_step(time, step);
        let measured = Arc::clone(&assignment.measured);
        let turn = match self.run_batch(assignment, progress, stop).await? {
            Turn::Committing { .. } => Turn::Committing { cut_short },
            other => other,
        };
        let large = measured.bytes() > self.stream.memory_max / BATCH_SHARE;
        if large { self.alone(turn, stop).await } else { Ok(turn) }
    }

    /// Holds the next batch back until this one is committed: there is no memory for both.
    async fn alone(&mut self, turn: Turn, stop: &mut watch::Receiver<bool>) -> Result<Turn> {
        if self.settle_or_stop(stop).await? { Ok(Turn::Abandoned) } else { Ok(turn) }
    }

    /// Reads and transforms, and hands over to the committer once the batch before is committed.
    async fn run_batch(
        &mut self,
        assignment: Arc<Assignment>,
        progress: BatchProgress,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Turn> {
        let processed = self.process(Arc::clone(&assignment), stop).await;
        self.process_ended(&assignment);
        let processed = match processed {
            Ok(Some(processed)) => processed,
            Ok(None) => return Ok(Turn::Abandoned),
            // Rows that cannot be merged: found before the store was asked.
            Err(error) if error.is_about_rows() && !assignment.isolating && self.workshop.isolates() => {
                self.report_dropped(progress, &error, BatchOutcome::Dropped);
                self.refused = Some(assignment);
                return Ok(Turn::Dropped(error));
            }
            Err(error) => {
                for (topic_partition, (records, bytes)) in assignment.measured.seen() {
                    self.observe(&topic_partition, records, bytes);
                }
                return self.dropped(progress, error);
            }
        };
        // From here on the batch before must be committed: what was planned from its ends stands or falls with it.
        let (seq, ready, ready_ms) = (self.batch_seq, self.clock.monotonic(), self.clock.now_ms());
        let waits = self.pending.is_some();
        if self.settle_or_stop(stop).await? {
            return Ok(Turn::Abandoned);
        }
        let waited = self.clock.monotonic().saturating_sub(ready);
        if waits {
            self.step_ended(assignment.batch.batch_time, StepKind::Wait, ready_ms);
        }
        // A conflict has put the number back.
        if self.batch_seq != seq {
            let error = Error::new(ErrorKind::Conflict, "the batch before was not committed").at(Stage::Commit);
            return self.dropped(progress, error);
        }
        self.commit(processed, (progress, assignment, waited), stop).await
    }

    fn submit(
        &self,
        plan: Plan,
        lost_ranges: Vec<LostRange>,
        time: BatchTime,
        (places, isolating): (BTreeMap<TopicPartition, Place>, bool),
    ) -> (Arc<Assignment>, BatchProgress) {
        let ranges = ranges_of(&plan);
        let batch = BatchInfo { batch_seq: self.batch_seq + 1, batch_time: time, ranges: Arc::clone(&ranges) };
        let now_ms = self.clock.now_ms();
        let mut progress = BatchProgress {
            batch: batch.clone(),
            inputs: self.inputs(&ranges),
            // The tick that the batch is named after, so that a batch that starts late shows it.
            submission_time_ms: time.as_ms().min(now_ms),
            processing_start_time_ms: None,
            processing_end_time_ms: None,
            output_operations: Vec::new(),
        };
        self.reporter.batch_submitted(&progress);
        progress.processing_start_time_ms = Some(now_ms);
        self.reporter.batch_started(&progress);
        let task = Task::new(batch.clone()).in_term(Arc::clone(&self.workshop.term));
        let reader = Arc::clone(&self.workshop.sources) as Arc<dyn ReadRanges>;
        let bytes_max = self.stream.memory_max / BATCH_SHARE_MAX;
        let measured = Measured::new(reader, &batch.ranges, bytes_max, Arc::clone(&self.clock));
        let measured = Arc::new(if self.reporter.traces() { measured.seeking_parents() } else { measured });
        let assignment = Assignment {
            batch,
            plan,
            lost_ranges,
            last_time: self.last_time,
            places,
            task,
            began: self.clock.monotonic(),
            processing_started_ms: now_ms,
            measured,
            isolating,
        };
        (Arc::new(assignment), progress)
    }

    /// Side effects, a last look at the topics' ids, and over to the committer.
    async fn commit(
        &mut self,
        processed: Processed,
        (mut progress, assignment, waited): (BatchProgress, Arc<Assignment>, Duration),
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Turn> {
        let before = self.before_commit(processed, &progress.batch);
        let Some(ready) = self.unless_stopped(before, stop).await else { return Ok(Turn::Abandoned) };
        let processed = match ready? {
            Ok(processed) => processed,
            Err(error) => return self.dropped(progress, error),
        };
        let Processed { commit, operations, late_records, .. } = processed;
        progress.output_operations = operations;
        for input in &mut progress.inputs {
            let own = |known| self.sources.number_of(known) == input.stream_id;
            let own = commit.ranges.iter().filter(|range| own(&range.range.topic_partition));
            input.records = Some(own.map(|range| range.counts.records).sum());
        }
        self.advance(&commit, progress.batch.batch_time);
        self.report_memory(&commit);
        let rows = commit.tables.iter().flat_map(|table| &table.chunks).map(|chunk| chunk.rows).sum();
        let counts = BatchCounts { late_records, ..BatchCounts::of(&commit, rows) };
        let patience = Patience {
            clock: Arc::clone(&self.clock),
            unavailable_max: self.stream.unavailable_max,
            failures: self.failures.clone(),
            reporter: self.reporter.clone(),
            mirrors: self.mirrors.clone(),
        };
        let batch = (progress, counts, assignment, waited);
        self.pending = Some(Pending::start(self.committer.clone(), commit, patience, batch, stop.clone()));
        Ok(Turn::Committing { cut_short: false })
    }

    /// The rows and records that wait for their commit, the records that are prefetched and what is persisted, of the one budget.
    fn report_memory(&self, commit: &BatchCommit) {
        let queued = self.sources.queued_bytes();
        let rows: usize = commit.tables.iter().flat_map(|table| &table.chunks).map(|chunk| chunk.bytes.len()).sum();
        let records: usize = commit.records.iter().map(KafkaRecord::bytes).sum();
        self.reporter.read_queued(queued);
        let used = queued.saturating_add((rows + records) as u64).saturating_add(self.workshop.storage.used());
        self.reporter.memory(used, self.stream.memory_max);
    }

    /// The next batch is planned from this batch's ends.
    fn advance(&mut self, commit: &BatchCommit, time: BatchTime) {
        self.batch_seq = commit.batch_seq;
        self.last_time = Some(time);
        for range in &commit.ranges {
            self.observe(&range.range.topic_partition, range.counts.records, range.counts.bytes);
            let joins = || Place::joined(range.range.until_offset);
            let place = self.places.entry(range.range.topic_partition.clone()).or_insert_with(joins);
            place.topic_id.clone_from(&range.topic_id);
        }
        for (topic_partition, until, leader_epoch) in ends_of(commit) {
            if let Some(place) = self.places.get_mut(topic_partition) {
                place.offset = until;
                place.leader_epoch = leader_epoch;
                place.truncated = false;
            }
        }
    }

    /// A batch of which nothing remains: its ranges are planned again, if the error is one that passes.
    fn dropped(&mut self, progress: BatchProgress, error: Error) -> Result<Turn> {
        if let Some(place) = error.topic_partition().and_then(|known| self.places.get_mut(known)) {
            place.note(&error);
        }
        let fatal = !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OffsetsLost | ErrorKind::Conflict);
        let outcome = if fatal { BatchOutcome::Failed } else { BatchOutcome::Dropped };
        self.report_dropped(progress, &error, outcome);
        if fatal { Err(error) } else { Ok(Turn::Dropped(error)) }
    }

    fn report_dropped(&self, progress: BatchProgress, error: &Error, outcome: BatchOutcome) {
        self.reporter.error(error);
        let (counts, failure) = (BatchCounts::default(), Some(error.chain()));
        self.reporter.batch_completed(&CompletedBatch { progress, outcome, counts, commit_time: None, failure });
    }

    /// Waits for the commit under way, if there is one.
    async fn settle(&mut self) -> Result<()> {
        let settled = match &mut self.pending {
            Some(pending) => pending.settled().await,
            None => return Ok(()),
        };
        self.finish_commit(settled)
    }

    /// The same, unless a stop is asked for: then waiting is given up and the commit is not, for `run` waits for it once
    /// more within the grace. Gives whether a stop was asked for.
    async fn settle_or_stop(&mut self, stop: &mut watch::Receiver<bool>) -> Result<bool> {
        let reporter = self.reporter.clone();
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                biased;
                settled = self.settle() => return settled.map(|()| false),
                () = asked_to_stop(stop) => return Ok(true),
                _ = beat.tick() => reporter.progress(),
            }
        }
    }

    /// Takes the end of the commit under way. It is told once: asking an ended commit again would be a defect.
    fn finish_commit(&mut self, settled: Result<Settled>) -> Result<()> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let speed = settled.as_ref().ok().and_then(|settled| pending.speed(settled));
        pending.tell_end(&self.reporter, settled.as_ref().ok(), self.clock.now_ms());
        let Pending { mut progress, mut counts, assignment, .. } = pending;
        let settled = match settled {
            // The database names the row's table, and no record: where there is but one range, it is of that one.
            Ok(Settled::Refused(error, _)) if !self.workshop.isolates() => Err(match progress.batch.only_range() {
                Some(range) => error.in_range(range.clone()),
                None => error,
            }),
            settled => settled,
        };
        match settled {
            Err(error) => {
                let error = error.at(Stage::Commit);
                let (outcome, failure) = (BatchOutcome::Failed, Some(error.chain()));
                progress.processing_end_time_ms = Some(self.clock.now_ms());
                self.reporter.batch_completed(&CompletedBatch {
                    progress,
                    outcome,
                    counts,
                    commit_time: None,
                    failure,
                });
                Err(error)
            }
            Ok(Settled::Committed(commit, ended)) => {
                failpoint::hit("stream::acknowledge")?;
                self.conflicts = 0;
                progress.processing_end_time_ms = Some(ended.at_ms);
                self.workshop.queues.iter().for_each(|queue| queue.committed(commit.batch_seq));
                if let Some(speed) = speed {
                    self.learn(&speed);
                }
                for range in progress.batch.ranges.iter() {
                    if let Some(place) = self.places.get_mut(&range.topic_partition) {
                        place.committed = Some(range.until_offset);
                    }
                }
                self.retire(progress.batch.clone());
                if let Some(isolated) = commit.isolated {
                    counts.add_isolated(isolated);
                    tracing::warn!(
                        batch_seq = commit.batch_seq,
                        dead_letters = isolated.dead_letters,
                        rows = isolated.rows,
                        "the batch is committed without the records that the database refused"
                    );
                }
                let (outcome, commit_time) = (BatchOutcome::Completed, Some(commit.took));
                let completed = CompletedBatch { progress, outcome, counts, commit_time, failure: None };
                self.reporter.batch_completed(&completed);
                Ok(())
            }
            Ok(Settled::Refused(error, positions)) => {
                let error = error.at(Stage::Commit);
                tracing::warn!("the batch is run again to find the records that are refused: {}", error.chain());
                self.batch_seq = progress.batch.batch_seq - 1;
                self.report_dropped(progress, &error, BatchOutcome::Dropped);
                self.places = positions.iter().map(Place::of).collect();
                self.refused = Some(assignment);
                Ok(())
            }
            Ok(Settled::Conflict(positions)) => {
                // Its name is free again: windows need a batch of each.
                self.last_time = assignment.last_time;
                self.conflicted(progress, &positions)
            }
        }
    }

    /// Somebody moved the offsets: planned again once from what is stored, then given up.
    fn conflicted(&mut self, progress: BatchProgress, positions: &[StoredPosition]) -> Result<()> {
        self.conflicts += 1;
        let seq = progress.batch.batch_seq;
        let message = format!("the stored offsets are not those that the batch was planned from batch_seq={seq}");
        let error = Error::new(ErrorKind::Conflict, message).at(Stage::Commit);
        self.report_dropped(progress, &error, BatchOutcome::Dropped);
        if self.conflicts > 1 {
            return Err(error);
        }
        let kept = |known: &TopicPartition| positions.iter().any(|stored| stored.topic_partition == *known);
        let committed = self.places.iter().filter(|(_, place)| place.committed.is_some());
        if let Some(gone) = committed.map(|(known, _)| known).find(|known| !kept(known)) {
            // Taken for new, it would be read again from its beginning, and everything doubled.
            let message = "a stored offset is missing although batches were committed";
            return Err(Error::corrupt(message).on(gone.clone()).at(Stage::Commit));
        }
        let error = self.failures.spend(error, self.clock.monotonic())?;
        tracing::warn!("{error}: planning again");
        self.batch_seq = seq - 1;
        self.refused = None;
        self.places = positions.iter().map(Place::of).collect();
        self.mirrors.moved(&self.places);
        Ok(())
    }

    fn is_done(&self) -> bool {
        let at = |(topic_partition, place): (_, &Place)| (topic_partition, place.offset);
        let is_read = self.stop_at.as_ref().is_some_and(|stop_at| reached(self.places.iter().map(at), stop_at));
        is_read && !self.workshop.has_queued(self.batch_seq)
    }
}

/// The end of the commit under way; never, if there is none.
async fn settled(pending: &mut Option<Pending>) -> Result<Settled> {
    match pending {
        Some(pending) => pending.settled().await,
        None => std::future::pending().await,
    }
}
