//! From settings to the first batch: servers answer, the application is ours, positions are fixed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    asked_to_stop,
    batch::Workshop,
    context::{Parts, Started},
    driver::Driver,
    failing::FailureBudget,
    fitting::{cluster_of, outbox_of, refuse_unfit_outputs, report_outbox, report_store},
    mirrors::{self, Prepared},
    place::Place,
    queue_stream::{has_a_past, refuse_a_past},
    source::{SourceSettings, SourceSpec},
    sources::Sources,
};
use crate::{
    commit::{Committer, Recovered, StoreHealth, StoreSettings},
    error::{Error, ErrorKind, Result, Stage},
    plan::{RateController, RecordSize, Silence, Timing},
    report::Status,
    transform::{Output, STORAGE_SHARE, StorageMemory},
    types::{TableSpec, Term, TopicPartition},
};

/// The pause between two questions to a cluster that does not answer yet.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Starts everything up to the first batch.
pub(super) async fn start(parts: &Parts, stop: watch::Receiver<bool>) -> Result<Started> {
    let reporter = parts.reporter.clone();
    reporter.status(Status::Starting);
    refuse_unfit_outputs(parts)?;
    let rate_controller = RateController::new(&parts.stream.backpressure, parts.stream.batch_interval)?;
    let settings = SourceSettings {
        application: &parts.application,
        memory_max_bytes: parts.stream.memory_max,
        reader_clients: parts.reader_clients,
        clock: &parts.clock,
    };
    let sources = Sources::new(&parts.specs, &settings)?;
    let mirrors = mirrors::prepare(parts)?;

    let asking = Asking { parts, sources: &sources, stop: stop.clone(), until: until(parts) };
    asking.ask_until(|| sources.ask_servers()).await?;
    let timing = Timing::first_start(parts.clock.now_ms(), parts.stream.batch_interval, on_grid(parts));
    let cluster_id = asking.in_time(sources.cluster_id()).await.unwrap_or(Ok(None))?;
    reporter.cluster(cluster_id.as_deref().unwrap_or_default());
    let settings = store_settings(parts, &timing, cluster_id)?;
    refuse_a_past(parts).await?;
    let (committer, recovered) = own(parts, settings, stop.clone()).await?;
    if recovered.batch_seq > 0 && !parts.graph.queues().is_empty() {
        return Err(has_a_past(&parts.application, recovered.batch_seq));
    }
    reporter.owned(recovered.epoch, recovered.batch_seq);
    if let Some(last_batch_time) = recovered.last_batch_time {
        reporter.resumed(last_batch_time);
    }
    report_outbox(&committer, reporter.clone());
    report_store(&committer, reporter);
    let timing = Timing::resumed(recovered.zero_time_ms, parts.stream.batch_interval, on_grid(parts));
    sources.expect_ids(&recovered.positions);
    let begin = Begin { parts, sources: &sources, committer, recovered: &recovered, timing, rate_controller, mirrors };
    let begun = begin.first_batch(stop).await;
    if begun.is_err() {
        sources.close().await;
    }
    begun
}

/// What is there once the application is owned.
struct Begin<'a> {
    parts: &'a Parts,
    sources: &'a Sources,
    committer: Committer,
    recovered: &'a Recovered,
    timing: Timing,
    rate_controller: Option<RateController>,
    mirrors: Prepared,
}

impl Begin<'_> {
    /// Sources are opened, positions fixed, and what windows and state remember is taken in.
    async fn first_batch(self, mut stop: watch::Receiver<bool>) -> Result<Started> {
        let Self { parts, sources, committer, recovered, timing, rate_controller, mirrors } = self;
        // An owner may have been waited for, for long.
        let asking = Asking { parts, sources, stop: stop.clone(), until: until(parts) };
        sources.open(&parts.application, &recovered.positions, &parts.reporter).await?;
        let places = places(&asking, &committer, recovered).await?;
        let stop_at = match parts.until_latest {
            true => Some(asking.ask_until(|| sources.ask_whole()).await?.latest()),
            false => None,
        };

        // Only what looks back wants to know.
        let topic_ids = match parts.graph.histories().is_empty() {
            true => BTreeMap::new(),
            false => asking.ask_until(|| sources.ask_whole()).await?.topic_ids(),
        };
        let workshop = Arc::new(workshop(parts, sources.clone(), recovered));
        let taken_in = async {
            workshop.restore_state(parts, recovered).await?;
            workshop.remember_past(parts, recovered, topic_ids).await
        };
        tokio::select! {
            taken_in = taken_in => taken_in?,
            () = asked_to_stop(&mut stop) => return Err(stopped()),
        }
        let mirrors = mirrors.begin(sources, &committer, (&parts.reporter, &parts.clock), &places);
        let driver = Driver {
            stream: parts.stream.clone(),
            workshop,
            sources: sources.clone(),
            committer: committer.clone(),
            mirrors: mirrors.clone(),
            reporter: parts.reporter.clone(),
            clock: Arc::clone(&parts.clock),
            timing,
            places,
            batch_seq: recovered.batch_seq,
            last_time: recovered.last_batch_time,
            record_size: RecordSize::new(),
            rate_controller,
            silence: Silence::default(),
            stop_at,
            pending: None,
            refused: None,
            conflicts: 0,
            failures: FailureBudget::new(&parts.stream),
            rehearse: recovered.died_in_vain,
            stop_asked: OnceLock::new(),
            retired: VecDeque::new(),
            intervals: 0,
            resting: parts.resting.clone(),
        };
        Ok(Started { driver, sources: sources.clone(), committer, mirrors })
    }
}

/// What every batch will be run with.
fn workshop(parts: &Parts, sources: Sources, recovered: &Recovered) -> Workshop {
    Workshop {
        sources: Arc::new(sources),
        runner: Arc::clone(&parts.runner),
        outputs: parts.graph.outputs(),
        tables: recovered.tables.iter().map(|table| table.columns.clone()).collect(),
        histories: parts.graph.histories(),
        states: parts.graph.states(),
        queues: parts.graph.queues(),
        commits: parts.graph.commits(),
        zero_time_ms: recovered.zero_time_ms,
        term: Arc::new(Term {
            application: parts.application.as_str().into(),
            zero_time_ms: recovered.zero_time_ms,
            epoch: recovered.epoch,
        }),
        storage: Arc::new(StorageMemory::new(parts.stream.memory_max / STORAGE_SHARE)),
        keep_chunks: !parts.graph.reads_once(),
        reporter: parts.reporter.clone(),
        clock: Arc::clone(&parts.clock),
    }
}

/// Jobs with a rate limit keep the grid: a rate means offsets per interval. Backpressure counts as one. Jobs with windows or
/// state do: those slide over its ticks, or are told with them.
fn on_grid(parts: &Parts) -> bool {
    let of_a_stream = |spec: &SourceSpec| spec.max_rate_per_partition().is_some_and(|rate| rate < u64::MAX);
    let rated = parts.stream.max_rate_per_partition.is_some() || parts.specs.iter().any(of_a_stream);
    rated || parts.stream.backpressure.enabled || looks_back(parts)
}

/// Whether the job has windows or state: its batch interval is part of what they mean.
fn looks_back(parts: &Parts) -> bool {
    !parts.graph.histories().is_empty() || !parts.graph.states().is_empty()
}

/// The tables of all outputs, in order of definition.
fn tables(outputs: &[Output]) -> Vec<TableSpec> {
    let of = |output: &Output| match output {
        Output::Transactional(output) => output.tables().to_vec(),
        Output::SideEffect(_) => Vec::new(),
    };
    outputs.iter().flat_map(of).collect()
}

fn store_settings(parts: &Parts, timing: &Timing, cluster_id: Option<String>) -> Result<StoreSettings> {
    let mut settings = StoreSettings::new(parts.store.url.clone(), &parts.application);
    settings.tables = tables(&parts.graph.outputs());
    settings.migrate = parts.store.migrate;
    settings.ledger_retention = parts.store.ledger_retention;
    settings.ownership = parts.ownership;
    settings.start_timeout = parts.stream.start_timeout;
    settings.unavailable_max = parts.stream.unavailable_max;
    settings.batch_deadline = parts.stream.batch_deadline;
    settings.zero_time_ms = timing.zero_ms;
    settings.interval = parts.stream.batch_interval;
    settings.interval_fixed = looks_back(parts);
    settings.fingerprint = parts.graph.fingerprint();
    settings.cluster_id = cluster_id;
    settings.kafka = cluster_of(parts)?;
    settings.outbox = outbox_of(parts)?;
    Ok(settings)
}

/// Questions to Kafka that a start cannot do without.
struct Asking<'a> {
    parts: &'a Parts,
    sources: &'a Sources,
    stop: watch::Receiver<bool>,
    /// When waiting for answers ends, in monotonic time.
    until: Duration,
}

/// When a start that asks from now on has waited long enough.
fn until(parts: &Parts) -> Duration {
    parts.clock.monotonic().saturating_add(parts.stream.start_timeout)
}

impl Asking<'_> {
    /// The answer, if it comes while there is time. A question that is given up is left to itself; the process does not
    /// wait for it at its end.
    async fn in_time<T>(&self, question: impl Future<Output = T>) -> Option<T> {
        let left = self.until.saturating_sub(self.parts.clock.monotonic());
        tokio::time::timeout(left, question).await.ok()
    }

    /// Asks until the answer is there, or the time is over.
    async fn ask_until<T, F: Future<Output = Result<Option<T>>>>(&self, mut ask: impl FnMut() -> F) -> Result<T> {
        let mut stop = self.stop.clone();
        let mut failed = Error::unavailable("Kafka does not answer");
        loop {
            let told = tokio::select! {
                told = self.in_time(ask()) => told,
                () = asked_to_stop(&mut stop) => return Err(stopped()),
            };
            match told {
                Some(Ok(Some(answer))) => return Ok(answer),
                Some(Ok(None)) => failed = Error::unavailable("Kafka does not answer"),
                Some(Err(error)) if error.kind() == ErrorKind::Unavailable => failed = error,
                Some(Err(error)) => return Err(error.at(Stage::Start)),
                None => {}
            }
            self.parts.reporter.progress();
            if self.parts.clock.monotonic() >= self.until {
                return Err(self.sources.why_silent(failed).at(Stage::Start));
            }
            tokio::select! {
                () = tokio::time::sleep(ASK_AGAIN) => {}
                () = asked_to_stop(&mut stop) => return Err(stopped()),
            }
        }
    }
}

/// What a start that was asked to stop ends with; the context turns it into an ordinary end.
pub(super) fn stopped() -> Error {
    Error::unavailable("asked to stop while starting")
}

/// Takes the application over, or waits for its owner to leave.
async fn own(
    parts: &Parts,
    settings: StoreSettings,
    mut stop: watch::Receiver<bool>,
) -> Result<(Committer, Recovered)> {
    let (health, mut told) = watch::channel(StoreHealth::Serving);
    let mut starting = std::pin::pin!(Committer::start(settings, Arc::clone(&parts.clock), health));
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    loop {
        // Giving up here is safe: no transaction of a batch is open yet, and a lost takeover is one epoch less.
        tokio::select! {
            started = &mut starting => return started,
            _ = beat.tick() => parts.reporter.progress(),
            Ok(()) = told.changed() => {
                let (waiting, up) = {
                    let health = told.borrow_and_update();
                    (*health == StoreHealth::Waiting, health.is_up())
                };
                parts.reporter.status(if waiting { Status::Standby } else { Status::Starting });
                // Counted from when the application is owned.
                parts.reporter.store(up, 0, 0);
            }
            () = asked_to_stop(&mut stop) => return Err(stopped()),
        }
    }
}

/// Where every partition stands: as stored, or fixed now and stored before the first batch.
async fn places(
    asking: &Asking<'_>,
    committer: &Committer,
    recovered: &Recovered,
) -> Result<BTreeMap<TopicPartition, Place>> {
    if !recovered.positions.is_empty() || recovered.batch_seq > 0 {
        return Ok(recovered.positions.iter().map(Place::of).collect());
    }
    let positions = asking.ask_until(|| asking.sources.first_positions()).await?;
    committer.initialize_positions(positions.clone()).await?;
    Ok(positions.iter().map(Place::of).collect())
}
