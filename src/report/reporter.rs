//! The driver's one handle to everything that is told to the outside.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use super::{
    build::{VERSION, librdkafka_version},
    bus::ListenerBus,
    compatible::Compatible,
    completed::{BatchOutcome, CommitSettled, CompletedBatch, Totals},
    health::{Health, HealthAnswer, Status},
    history::History,
    job_graph::JobGraph,
    listener::{BatchProgress, OutputOperationInfo, StreamStopped, StreamingEvent, StreamingStarted},
    metrics::{
        DEAD_LETTER_STAGES, ERROR_KINDS, Family, INFO, Instruments, LOST_RANGE_REASONS, RATE_LIMIT, STATUS, STORE_UP,
        kind_label,
    },
    mirror::{self, MirrorState},
    partitions::{PartitionPosition, Positions},
    rate_limit::RateLimit,
    servers::monotonic_ms,
    traces::Traces,
};
use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Stage},
};

/// How long the listeners may take for what is under way when the stream stops.
const LISTENER_GRACE: Duration = Duration::from_secs(2);

/// One line about the batches that were committed comes at most so often.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

/// Errors of one kind and stage are logged at most so often.
const ERROR_INTERVAL: Duration = Duration::from_secs(30);

/// Takes what the driver tells and passes it on: to metrics, health, logs and listeners. No call waits for anything, and
/// none is made per record. Cheap to clone; all clones are one reporter.
#[derive(Clone)]
pub struct Reporter {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) application: String,
    pub(super) clock: Arc<dyn Clock>,
    listeners: ListenerBus,
    pub(super) instruments: Instruments,
    state: Mutex<State>,
    /// For the web page: no scrape waits for it. Of the two locks never one is taken while the other is held.
    pub(super) history: Mutex<History>,
    pub(super) graph: Mutex<Arc<(JobGraph, usize)>>,
    pub(super) created_ms: i64,
    /// Where traces go, once it is known.
    pub(super) traces: OnceLock<Traces>,
}

pub(super) struct State {
    totals: Totals,
    pub(super) health: Health,
    pub(super) positions: Positions,
    pub(super) compatible: Compatible,
    owner: bool,
    pub(super) store_up: Option<bool>,
    pub(super) rate_limit: Option<f64>,
    mirrors: Vec<Arc<MirrorState>>,
    waiting: u64,
    running: u64,
    summary: Summary,
    errors: RateLimit<(ErrorKind, Option<Stage>)>,
}

/// What was committed since the last summary line.
#[derive(Default)]
struct Summary {
    last: Duration,
    batches: u64,
    records: u64,
}

impl Reporter {
    /// A reporter for `application`, without listeners yet.
    #[must_use]
    pub fn new(application: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        Self::with_listeners(application, clock, ListenerBus::new())
    }

    /// A reporter that also tells the listeners of `listeners`.
    #[must_use]
    pub fn with_listeners(application: impl Into<String>, clock: Arc<dyn Clock>, listeners: ListenerBus) -> Self {
        let now = clock.monotonic();
        let instruments = Instruments::new();
        let created_ms = clock.now_ms();
        instruments.start_time.set(seconds_of_ms(created_ms));
        let state = State {
            totals: Totals::default(),
            health: Health::starting_at(now),
            positions: Positions::default(),
            compatible: Compatible::default(),
            owner: false,
            store_up: None,
            rate_limit: None,
            mirrors: Vec::new(),
            waiting: 0,
            running: 0,
            summary: Summary { last: now, ..Summary::default() },
            errors: RateLimit::every(ERROR_INTERVAL),
        };
        let shared = Shared {
            application: application.into(),
            clock,
            listeners,
            instruments,
            state: Mutex::new(state),
            history: Mutex::new(History::new()),
            graph: Mutex::default(),
            created_ms,
            traces: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The listeners, to add more.
    #[must_use]
    pub fn listeners(&self) -> &ListenerBus {
        &self.shared.listeners
    }

    /// The process does something else from now on.
    pub fn status(&self, status: Status) {
        let mut state = self.state();
        if state.health.status != status {
            tracing::info!(application = self.shared.application, from = %state.health.status, to = %status, "status");
        }
        state.health.status = status;
        state.health.last_progress = self.shared.clock.monotonic();
    }

    /// What the process does.
    #[must_use]
    pub fn current_status(&self) -> Status {
        self.state().health.status
    }

    /// The driver's loop turned: a chunk was read, a server was asked again, a heartbeat was written. What `/healthz`
    /// rests on; to be told at least once a second, also while waiting.
    pub fn progress(&self) {
        self.state().health.last_progress = self.shared.clock.monotonic();
    }

    /// This process owns the application under `epoch`; the last committed batch was `batch_seq`.
    pub fn owned(&self, epoch: u64, batch_seq: u64) {
        self.shared.instruments.epoch.set(float(epoch));
        self.shared.instruments.batch_seq.set(float(batch_seq));
        {
            let mut state = self.state();
            state.health.batch_seq = batch_seq;
            self.own(&mut state, true);
        }
        self.history().epoch = epoch;
    }

    /// The stream plans its first batch.
    pub fn streaming_started(&self, batch_interval: Duration) {
        self.shared.instruments.batch_interval.set(batch_interval.as_secs_f64());
        let time_ms = self.shared.clock.now_ms();
        self.history().started(time_ms, batch_interval);
        self.post(&StreamingEvent::Started(StreamingStarted { time_ms }));
    }

    /// Kafka was asked and the next ranges are known, be they empty.
    pub fn plan_completed(&self, took: Duration) {
        self.shared.instruments.plan_seconds.record(took);
        let mut state = self.state();
        state.health.plans += 1;
        state.health.last_progress = self.shared.clock.monotonic();
    }

    /// Where all partitions of the job stand, those left out being gone. Told once per plan.
    pub fn positions(&self, positions: Vec<PartitionPosition>) {
        let now_ms = monotonic_ms(&*self.shared.clock);
        self.state().positions.replace(positions, now_ms);
    }

    /// A batch was planned and waits for its turn.
    pub fn batch_submitted(&self, batch: &BatchProgress) {
        self.count_in_hand(|state| state.waiting += 1);
        self.history().submitted(batch);
        self.post(&StreamingEvent::BatchSubmitted(Arc::new(batch.clone())));
    }

    /// The batch's first work started.
    pub fn batch_started(&self, batch: &BatchProgress) {
        self.count_in_hand(|state| {
            state.waiting = state.waiting.saturating_sub(1);
            state.running += 1;
        });
        self.history().began(batch);
        self.post(&StreamingEvent::BatchStarted(Arc::new(batch.clone())));
    }

    /// An output operation started.
    pub fn output_operation_started(&self, operation: &OutputOperationInfo) {
        self.history().operation(operation);
        self.post(&StreamingEvent::OutputOperationStarted(Arc::new(operation.clone())));
    }

    /// An output operation ended, well or not.
    pub fn output_operation_completed(&self, operation: &OutputOperationInfo) {
        self.history().operation(operation);
        self.post(&StreamingEvent::OutputOperationCompleted(Arc::new(operation.clone())));
    }

    /// The batch ended. A dropped one is told to no listener: it never was, and its ranges come again.
    pub fn batch_completed(&self, completed: &CompletedBatch) {
        let batch = &completed.progress;
        self.count_in_hand(|state| {
            // A batch that is dropped before its first work was still waiting.
            let in_hand =
                if batch.processing_start_time_ms.is_some() { &mut state.running } else { &mut state.waiting };
            *in_hand = in_hand.saturating_sub(1);
        });
        let status = match completed.outcome {
            BatchOutcome::Completed => 0,
            BatchOutcome::Failed => 1,
            BatchOutcome::Dropped => 2,
        };
        increment(&self.shared.instruments.batches, Some(status), 1);
        if completed.outcome == BatchOutcome::Completed {
            self.count_committed(completed);
        }
        self.shared.instruments.fold_samples();
        let (entry, told) = self.history().ended(completed);
        self.trace(&entry, completed, &told);
        if completed.outcome != BatchOutcome::Dropped {
            self.post(&StreamingEvent::BatchCompleted(Arc::new(batch.clone())));
        }
    }

    /// What the store said about a commit whose answer was lost.
    pub fn commit_settled(&self, settled: CommitSettled) {
        let outcome = match settled {
            CommitSettled::Committed => 0,
            CommitSettled::RolledBack => 1,
        };
        increment(&self.shared.instruments.commits_settled, Some(outcome), 1);
    }

    /// How many records wait in the outbox, and how many were sent and failures met since the process started.
    pub fn outbox(&self, waiting: u64, sent: u64, errors: u64) {
        let instruments = &self.shared.instruments;
        instruments.outbox_waiting.set(float(waiting));
        instruments.outbox_sent.absolute(sent);
        instruments.outbox_errors.absolute(errors);
    }

    /// These mirrors are looked at from now on.
    pub(crate) fn mirrors(&self, mirrors: Vec<Arc<MirrorState>>) {
        self.state().mirrors = mirrors;
    }

    /// How much of the memory budget is taken.
    pub fn memory(&self, used_bytes: u64, budget_bytes: u64) {
        self.shared.instruments.memory_used.set(float(used_bytes));
        self.shared.instruments.memory_max.set(float(budget_bytes));
        self.history().memory_bytes = (used_bytes, budget_bytes);
    }

    /// Bytes that were fetched and that no batch has taken yet.
    pub fn read_queued(&self, bytes: u64) {
        self.shared.instruments.read_queued.set(float(bytes));
    }

    /// Backpressure's limit in records a second, if there is one.
    pub fn rate_limit(&self, records_per_second: Option<f64>) {
        self.state().rate_limit = records_per_second;
    }

    /// An error was met, be it tried again or not. Counts it, and logs the first of its kind and stage, then one every
    /// half minute with the number of those held back.
    pub fn error(&self, error: &Error) {
        let kind = ERROR_KINDS.iter().position(|kind| *kind == error.kind());
        increment(&self.shared.instruments.errors, kind, 1);
        let admitted = self.state().errors.admit((error.kind(), error.stage()), self.shared.clock.monotonic());
        if let Some(held_back) = admitted {
            let kind = kind_label(error.kind());
            let held_back = Some(held_back).filter(|count| *count > 0);
            let stage = error.stage().map(tracing::field::display);
            tracing::warn!(kind, stage, error = error.chain(), held_back, "an attempt failed");
        }
    }

    /// The stream ended, with an error or without. Waits at most two seconds for the listeners, and two for the last traces.
    pub fn stopped(&self, failure: Option<&Error>) {
        let status = if failure.is_some() { Status::Failed } else { Status::Stopping };
        self.status(status);
        {
            let mut state = self.state();
            state.health.failure = failure.map(Error::kind);
            self.own(&mut state, false);
        }
        if failure.is_some_and(|error| error.kind() == ErrorKind::Fenced) {
            self.shared.instruments.fenced.increment(1);
        }
        let failure: Option<(ErrorKind, String)> = failure.map(|error| (error.kind(), error.chain()));
        self.history().failure = failure.as_ref().map(|(_, line)| line.clone());
        let stopped = StreamStopped { time_ms: self.shared.clock.now_ms(), failure };
        self.post(&StreamingEvent::Stopped(Arc::new(stopped)));
        self.shared.listeners.close(LISTENER_GRACE);
        self.close_traces();
    }

    /// What this process has committed since it started.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.state().totals
    }

    /// Latest minus committed offset, summed over all partitions where both are known.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.state().positions.lag()
    }

    /// The answer to `/healthz`.
    #[must_use]
    pub fn healthy(&self) -> HealthAnswer {
        self.state().health.healthy(self.shared.clock.monotonic())
    }

    /// The answer to `/readyz`.
    #[must_use]
    pub fn ready(&self) -> HealthAnswer {
        self.state().health.ready(self.shared.clock.monotonic())
    }

    /// All metrics in the Prometheus text format 0.0.4, in a fixed order.
    #[must_use]
    pub fn render_metrics(&self) -> String {
        let instruments = &self.shared.instruments;
        instruments.listener_events_dropped.absolute(self.shared.listeners.dropped_events());
        instruments.listener_panics.absolute(self.shared.listeners.panics());
        for (counter, spans) in instruments.trace_spans.iter().zip(self.trace_spans()) {
            counter.absolute(spans);
        }
        let mut info = Family::new(&INFO);
        info.add(&[&self.shared.application, VERSION, &librdkafka_version()], 1);
        let mut blocks = vec![info.into_text()];
        {
            let state = self.state();
            let mut status = Family::new(&STATUS);
            for each in Status::ALL {
                status.add(&[&each.to_string()], u8::from(each == state.health.status));
            }
            blocks.push(status.into_text());
            if let Some(limit) = state.rate_limit {
                let mut family = Family::new(&RATE_LIMIT);
                family.add(&[], limit);
                blocks.push(family.into_text());
            }
            if let Some(up) = state.store_up {
                let mut family = Family::new(&STORE_UP);
                family.add(&[], u8::from(up));
                blocks.push(family.into_text());
            }
            let now_ms = monotonic_ms(&*self.shared.clock);
            blocks.extend(state.positions.render(now_ms));
            blocks.extend(state.compatible.render(&state.positions, state.owner, now_ms));
            blocks.extend(mirror::render(&state.mirrors));
        }
        blocks.extend(instruments.render());
        blocks.concat()
    }

    fn own(&self, state: &mut State, owner: bool) {
        state.owner = owner;
        self.shared.instruments.owner.set(f64::from(u8::from(owner)));
    }

    fn count_in_hand(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.health.last_progress = self.shared.clock.monotonic();
        self.shared.instruments.waiting_batches.set(float(state.waiting));
        self.shared.instruments.running_batches.set(float(state.running));
    }

    fn count_committed(&self, completed: &CompletedBatch) {
        let CompletedBatch { progress, counts, commit_time, .. } = completed;
        let instruments = &self.shared.instruments;
        instruments.records.increment(counts.records);
        instruments.gaps.increment(counts.gaps);
        instruments.bytes.increment(counts.bytes);
        instruments.rows.increment(counts.rows);
        for (stage, records) in &counts.dead_letters {
            increment(&instruments.dead_letters, DEAD_LETTER_STAGES.iter().position(|each| each == stage), *records);
        }
        instruments.late_records.increment(counts.late_records);
        for (reason, offsets) in &counts.lost_ranges {
            let index = LOST_RANGE_REASONS.iter().position(|each| each == reason);
            increment(&instruments.lost_ranges, index, 1);
            increment(&instruments.lost_offsets, index, offsets.unwrap_or(0));
        }
        let delays = [
            (&instruments.scheduling_delay, progress.scheduling_delay_ms()),
            (&instruments.processing_delay, progress.processing_delay_ms()),
            (&instruments.total_delay, progress.total_delay_ms()),
        ];
        for (histogram, delay_ms) in delays {
            if let Some(delay_ms) = delay_ms {
                histogram.record(Duration::from_millis(delay_ms));
            }
        }
        if let Some(commit_time) = commit_time {
            instruments.commit_seconds.record(*commit_time);
        }
        instruments.batch_seq.set(float(progress.batch.batch_seq));
        instruments.last_batch_time.set(seconds_of_ms(progress.batch.batch_time.as_ms()));
        instruments.last_batch_records.set(float(counts.records));
        let mut state = self.state();
        state.totals.batches += 1;
        state.totals.records += counts.records;
        state.totals.gaps += counts.gaps;
        state.totals.late_records += counts.late_records;
        state.health.batch_seq = progress.batch.batch_seq;
        state.positions.commit(progress.batch.ranges.iter());
        self.summarize(&mut state, progress, counts.records);
    }

    /// One line a minute in the log, and one per batch for who asks for details.
    fn summarize(&self, state: &mut State, progress: &BatchProgress, records: u64) {
        let batch_seq = progress.batch.batch_seq;
        tracing::debug!(batch_seq, records, total_delay_ms = progress.total_delay_ms(), "batch committed");
        state.summary.batches += 1;
        state.summary.records += records;
        let now = self.shared.clock.monotonic();
        if now.saturating_sub(state.summary.last) < SUMMARY_INTERVAL {
            return;
        }
        let Summary { batches, records, .. } = std::mem::take(&mut state.summary);
        state.summary.last = now;
        tracing::info!(
            batches,
            records,
            batch_seq,
            lag = state.positions.lag(),
            "batches committed in the last minute"
        );
    }

    fn post(&self, event: &StreamingEvent) {
        self.shared.listeners.post(event);
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").field("application", &self.shared.application).finish_non_exhaustive()
    }
}

fn increment(counters: &[metrics::Counter], index: Option<usize>, by: u64) {
    if let Some(counter) = index.and_then(|index| counters.get(index)) {
        counter.increment(by);
    }
}

/// A count as Prometheus keeps it. Exact up to 2^53.
fn float(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "the text format has no other numbers")]
    let float = count as f64;
    float
}

pub(super) fn seconds_of_ms(ms: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
    let float = ms as f64;
    float / 1000.0
}
