//! What a program holds: builds a stream, starts it, stops it, and waits for its end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    DirectStream,
    driver::{Driver, End, STOP_SOURCES, STOP_STORE},
    job_graph::job_graph,
    life::{Life, Resting, StreamingContextState, Termination},
    mirrors::Mirrors,
    source::{Source, SourceSpec},
    sources::Sources,
    start,
};
use crate::{
    clock::{Clock, SystemClock},
    commit::{Committer, Ownership},
    config::{BackpressureConfig, CompatibleNames, ReportConfig, StoreConfig, StoreUrl, StreamConfig, TracesConfig},
    error::{Error, Result, Stage},
    failpoint,
    report::{ListenerBus, Reporter, Status, StreamingListener, serve},
    transform::{DStream, DirectKafkaInputDStream, Graph, LocalRunner, Rdd, Runner},
    types::BatchTime,
};

/// What a stream is started with.
pub(super) struct Parts {
    pub(super) application: String,
    pub(super) specs: Vec<SourceSpec>,
    pub(super) stream: StreamConfig,
    pub(super) store: StoreConfig,
    pub(super) report: ReportConfig,
    pub(super) ownership: Ownership,
    pub(super) until_latest: bool,
    pub(super) reader_clients: Option<usize>,
    pub(super) graph: Graph,
    pub(super) runner: Arc<dyn Runner>,
    pub(super) reporter: Reporter,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) resting: watch::Sender<Option<Resting>>,
}

pub(super) struct Started {
    pub(super) driver: Driver,
    pub(super) sources: Sources,
    pub(super) committer: Committer,
    pub(super) mirrors: Mirrors,
}

/// Settings and components of a [`StreamingContext`].
#[derive(Debug)]
pub struct StreamingContextBuilder {
    application: String,
    stream: StreamConfig,
    store: Option<StoreConfig>,
    report: ReportConfig,
    ownership: Ownership,
    until_latest: bool,
    reader_clients: Option<usize>,
    runner: Arc<dyn Runner>,
    clock: Arc<dyn Clock>,
}

impl StreamingContextBuilder {
    /// The database of results and offsets: `postgres://...` or `sqlite:FILE`. Or `checkpoint:FOLDER`, which keeps offsets and
    /// ledger alone: outputs are then side effects ([`foreach_rdd`](crate::transform::DStream::foreach_rdd)), at least once. Or
    /// `kafka:GROUP`, a consumer group of the cluster that is read (without a name: the application's), for outputs that go to topics
    /// of that cluster, exactly once ([`save_to_kafka`](crate::transform::DStream::save_to_kafka)). The application's name is then
    /// the transactional id as well.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is no such URL.
    pub fn store(mut self, url: &str) -> Result<Self> {
        let url = StoreUrl::parse(url).map_err(Error::config)?;
        self.store = Some(StoreConfig {
            url,
            migrate: crate::config::Migrate::default(),
            ledger_retention: crate::config::LEDGER_RETENTION_DEFAULT,
        });
        Ok(self)
    }

    /// The store's settings as a job file gives them.
    #[must_use]
    pub fn store_config(mut self, store: StoreConfig) -> Self {
        self.store = Some(store);
        self
    }

    /// Everything under `[stream]` of a job file.
    #[must_use]
    pub fn stream_config(mut self, stream: StreamConfig) -> Self {
        self.stream = stream;
        self
    }

    /// Where the web page, metrics and health are served, and where the committed offsets are copied to. Default: nowhere, for a
    /// program that is not the `directstream` binary.
    #[must_use]
    pub fn report_config(mut self, report: ReportConfig) -> Self {
        self.report = report;
        self
    }

    /// Tells the metrics under other exporters' names as well, for dashboards and alerts that exist already. Default: none.
    ///
    /// ```
    /// use std::time::Duration;
    /// use directstream::{config::CompatibleNames, stream::StreamingContext};
    ///
    /// StreamingContext::builder("orders", Duration::from_secs(1)).compatible_names([CompatibleNames::KafkaExporter]);
    /// ```
    #[must_use]
    pub fn compatible_names(mut self, names: impl IntoIterator<Item = CompatibleNames>) -> Self {
        self.report.compatible_names = names.into_iter().collect();
        self
    }

    /// Sends a trace of every batch to an OpenTelemetry collector. Default: none, whatever the environment says; to do what
    /// that says, as the `directstream` binary does, ask [`TracesConfig::of_environment`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use directstream::{config::TracesConfig, stream::StreamingContext};
    ///
    /// # fn example() -> directstream::Result<()> {
    /// let traces = TracesConfig::to_collector("http://127.0.0.1:4318")?;
    /// StreamingContext::builder("orders", Duration::from_secs(1)).traces(traces);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn traces(mut self, traces: impl Into<Option<TracesConfig>>) -> Self {
        self.report.traces = traces.into();
        self
    }

    /// The most offsets a second of one partition. Spark: `spark.streaming.kafka.maxRatePerPartition`.
    #[must_use]
    pub fn max_rate_per_partition(mut self, records_per_second: u64) -> Self {
        self.stream.max_rate_per_partition = Some(records_per_second);
        self
    }

    /// Rates that follow the speed of processing. Default: off. Spark: `spark.streaming.backpressure.*`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use directstream::{config::BackpressureConfig, stream::StreamingContext};
    ///
    /// let backpressure = BackpressureConfig { enabled: true, initial_rate: Some(5_000), ..Default::default() };
    /// StreamingContext::builder("orders", Duration::from_secs(1)).backpressure(backpressure);
    /// ```
    #[must_use]
    pub fn backpressure(mut self, backpressure: BackpressureConfig) -> Self {
        self.stream.backpressure = backpressure;
        self
    }

    /// The one budget for prefetch, records in flight and shuffles, in bytes. Default: 512 MiB.
    #[must_use]
    pub fn memory_max(mut self, bytes: u64) -> Self {
        self.stream.memory_max = bytes;
        self
    }

    /// How long reading and transforming one batch, its side effects, and the user's own SQL may each take. Default: 30 min.
    #[must_use]
    pub fn batch_deadline(mut self, deadline: Duration) -> Self {
        self.stream.batch_deadline = deadline;
        self
    }

    /// More than `max` batches may not fail at first within `interval`. Default: 1,000 within an hour. Spark's nearest:
    /// `spark.yarn.maxAppAttempts` within `spark.yarn.am.attemptFailuresValidityInterval`.
    #[must_use]
    pub fn max_failures(mut self, max: u64, interval: Duration) -> Self {
        (self.stream.max_failures, self.stream.failures_validity_interval) = (max, interval);
        self
    }

    /// What to do about another live owner of the application. Default: wait 10 s, then fail.
    #[must_use]
    pub fn ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = ownership;
        self
    }

    /// Ends by itself when the offsets that are latest at start are committed.
    #[must_use]
    pub fn until_latest(mut self, until_latest: bool) -> Self {
        self.until_latest = until_latest;
        self
    }

    /// How many Kafka clients read. Default: two where there are two cores and enough partitions.
    #[must_use]
    pub fn reader_clients(mut self, clients: usize) -> Self {
        self.reader_clients = Some(clients);
        self
    }

    /// Where tasks run. Default: one thread per core.
    #[must_use]
    pub fn runner(mut self, runner: Arc<dyn Runner>) -> Self {
        self.runner = runner;
        self
    }

    pub(super) fn application(&self) -> &str {
        &self.application
    }

    /// What the time is taken from: batch times, the wait for the next batch, and every limit in time that is not a server's.
    /// Default: the system's clocks. On a clock that stands still nothing is given up for having taken too long. Spark:
    /// `spark.streaming.clock`.
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use directstream::{clock::ManualClock, stream::StreamingContext};
    ///
    /// // A test says when the next batch begins: see directstream::testing.
    /// let clock = Arc::new(ManualClock::at(1_000));
    /// StreamingContext::builder("orders", Duration::from_secs(1)).clock(clock);
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The context. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no store.
    pub fn build(self) -> Result<StreamingContext> {
        let store = self.store.ok_or_else(|| Error::config("a streaming context needs a store: give its url"))?;
        let listeners = ListenerBus::new();
        let reporter = Reporter::with_listeners(&self.application, Arc::clone(&self.clock), listeners);
        reporter.retain_batches(self.report.retained_batches);
        let group = self.report.consumer_group.as_ref().map_or(&self.application, |mirror| &mirror.group);
        reporter.compatible_names(self.report.compatible_names.iter().copied(), group);
        let (stop, _) = watch::channel(false);
        let graph = Graph::with_interval(self.stream.batch_interval);
        Ok(StreamingContext {
            application: self.application,
            stream: self.stream,
            store,
            report: self.report,
            ownership: self.ownership,
            until_latest: self.until_latest,
            reader_clients: self.reader_clients,
            runner: self.runner,
            clock: self.clock,
            reporter,
            graph,
            specs: Mutex::default(),
            stop,
            resting: watch::Sender::default(),
            life: Arc::new(Life::new()),
        })
    }
}

/// The owner of one stream: what to read, what to do with it, and its life.
///
/// ```no_run
/// use std::time::Duration;
/// use directstream::{stream::{DirectStream, StreamingContext}, transform::Upsert};
///
/// # async fn example() -> directstream::Result<()> {
/// let context = StreamingContext::builder("word-count", Duration::from_secs(1)).store("sqlite:words.db")?.build()?;
/// let lines = context.direct_stream(DirectStream::topics(["lines"]).bootstrap_servers("localhost:9092"))?;
/// lines
///     .flat_map(|line| line.text().unwrap_or_default().split(' ').map(str::to_owned).collect::<Vec<_>>())
///     .map(|word| (word, 1_i64))
///     .reduce_by_key(|a, b| a + b)
///     .save_to_table(Upsert::into("word_counts").key("word").add("count"))?;
/// context.start().await?;
/// context.await_termination().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct StreamingContext {
    application: String,
    stream: StreamConfig,
    store: StoreConfig,
    report: ReportConfig,
    ownership: Ownership,
    until_latest: bool,
    reader_clients: Option<usize>,
    runner: Arc<dyn Runner>,
    clock: Arc<dyn Clock>,
    reporter: Reporter,
    graph: Graph,
    specs: Mutex<Vec<SourceSpec>>,
    stop: watch::Sender<bool>,
    resting: watch::Sender<Option<Resting>>,
    life: Arc<Life>,
}

impl StreamingContext {
    /// A context for the application `name`, under which offsets, ledger and dead letters are kept, with one batch every
    /// `batch_interval`.
    pub fn builder(name: impl Into<String>, batch_interval: Duration) -> StreamingContextBuilder {
        StreamingContextBuilder {
            application: name.into(),
            stream: StreamConfig { batch_interval, ..StreamConfig::default() },
            store: None,
            report: ReportConfig { listen: None, ..ReportConfig::default() },
            ownership: Ownership::default(),
            until_latest: false,
            reader_clients: None,
            runner: Arc::new(LocalRunner::per_core()),
            clock: SystemClock::shared(),
        }
    }

    /// Records of Kafka: which topics, and where. A context may have several streams, also of several clusters; they are read
    /// side by side, and all of their offsets move in the one transaction of the batch. Spark: `KafkaUtils.createDirectStream`.
    ///
    /// ```
    /// # use directstream::stream::{DirectStream, StreamingContext};
    /// # fn example(context: &StreamingContext) -> directstream::Result<()> {
    /// let orders = context.direct_stream(DirectStream::topics(["orders"]).bootstrap_servers("one:9092"))?;
    /// let returns = context.direct_stream(DirectStream::topics(["returns"]).bootstrap_servers("two:9092"))?;
    /// orders.union(&returns).count().print();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A stream that is added to an application that has run before begins at the earliest offsets, as a new topic does. What two
    /// streams must not do is read the same partition: the start, or the batch in which such a topic appears, fails with
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), also where topics of the same name lie in two clusters.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) once the context was started or stopped.
    pub fn direct_stream(&self, stream: DirectStream) -> Result<DirectKafkaInputDStream> {
        let DirectStream { kafka, max_rate_per_partition, group_id } = stream;
        self.add_spec(SourceSpec::Kafka { kafka: Box::new(kafka), max_rate_per_partition, group_id })
    }

    /// Records of a source that needs no server.
    ///
    /// # Errors
    /// As [`direct_stream`](Self::direct_stream).
    pub(crate) fn add_source(&self, source: Arc<dyn Source>) -> Result<DirectKafkaInputDStream> {
        self.add_spec(SourceSpec::Local(source))
    }

    fn add_spec(&self, spec: SourceSpec) -> Result<DirectKafkaInputDStream> {
        self.graph.check_open()?;
        // The stream's number in the graph is its place in this list.
        let mut specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        specs.push(spec);
        Ok(DirectKafkaInputDStream::new(&self.graph))
    }

    /// The elements of all `streams` of this context, batch by batch: their partitions one after the other. Spark:
    /// `StreamingContext.union`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is none, or one of another context.
    pub fn union<T: Send + 'static>(&self, streams: impl IntoIterator<Item = DStream<T>>) -> Result<DStream<T>> {
        self.graph.union(streams)
    }

    /// Each batch's RDDs of all `streams` of this context, in this order, and its time through `function`, which runs once
    /// per batch, in the driver. Spark: `StreamingContext.transform`.
    ///
    /// ```
    /// # use directstream::{stream::StreamingContext, transform::DStream};
    /// # fn example(context: &StreamingContext, web: DStream<String>, shop: DStream<String>) -> directstream::Result<()> {
    /// let in_both = context.transform([web, shop], |visitors, _batch_time| Ok(visitors[0].intersection(&visitors[1])))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no stream, or one of another context.
    pub fn transform<T: Send + 'static, R: Send + 'static>(
        &self,
        streams: impl IntoIterator<Item = DStream<T>>,
        function: impl Fn(&[Rdd<T>], BatchTime) -> Result<Rdd<R>> + Send + Sync + 'static,
    ) -> Result<DStream<R>> {
        self.graph.transform(streams, function)
    }

    pub(super) fn application(&self) -> &str {
        &self.application
    }

    /// Adds a listener, who is told what happens to batches.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if its thread cannot be started.
    pub fn add_listener(&self, listener: Box<dyn StreamingListener>) -> Result<()> {
        self.reporter.listeners().add(listener)
    }

    /// What this stream reports: metrics and health.
    #[must_use]
    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Tells while nothing is under way; not while a batch is in hand or a commit.
    pub(crate) fn resting(&self) -> watch::Receiver<Option<Resting>> {
        self.resting.subscribe()
    }

    /// Where it is in its life. Spark: `getState`.
    #[must_use]
    pub fn state(&self) -> StreamingContextState {
        self.life.state()
    }

    /// Starts: servers must answer, the application becomes ours, and batches run in the background from then on. A second
    /// call changes nothing, and a warning is logged.
    ///
    /// # Errors
    /// Whatever the first minute finds wrong: see [`ErrorKind`](crate::ErrorKind); the context is stopped then.
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it has been stopped.
    pub async fn start(&self) -> Result<()> {
        // A program that a test starts takes its faults from its environment, whichever program it is.
        failpoint::arm();
        match self.life.begin() {
            StreamingContextState::Initialized => {}
            StreamingContextState::Active => {
                tracing::warn!("the context was started already");
                return Ok(());
            }
            StreamingContextState::Stopped => {
                return Err(Error::config("the context has been stopped already: build another one"));
            }
        }
        self.graph.close();
        let started = self.start_driver().await;
        if let Err(error) = &started {
            self.reporter.error(error);
            self.reporter.stopped(Some(error));
            self.life.end(Err(error.clone()));
        }
        started
    }

    async fn start_driver(&self) -> Result<()> {
        let parts = self.parts()?;
        parts.reporter.job_graph(job_graph(&parts.specs, &parts.graph));
        if let Some(traces) = &self.report.traces {
            let of_kafka = |spec: &SourceSpec| matches!(spec, SourceSpec::Kafka { .. });
            self.reporter.trace_to(traces, parts.specs.iter().any(of_kafka))?;
        }
        let server = match self.report.listen {
            Some(address) => serve(&address.to_string(), self.reporter.clone()).await?,
            None => None,
        };
        let stop = self.stop.subscribe();
        let started = match start::start(&parts, stop.clone()).await {
            Ok(started) => started,
            Err(error) if *stop.borrow() => {
                tracing::info!("stopped while starting: {error}");
                self.reporter.stopped(None);
                self.life.end(Ok(Termination::Stopped));
                return Ok(());
            }
            Err(error) => {
                return Err(error.at(Stage::Start));
            }
        };
        let reporter = self.reporter.clone();
        let driver = tokio::spawn(async move {
            let Started { driver, sources, committer, mirrors } = started;
            let ended = driver.run(stop).await;
            // Before the application is given up: a successor opens the same logs.
            let sources_end = tokio::time::timeout(STOP_SOURCES, sources.close());
            let health = committer.health().borrow().clone();
            let _ = tokio::join!(sources_end, mirrors.close(&health));
            // Given up in good order, so that a successor starts at once; a fenced process has nothing to give up.
            let _ = tokio::time::timeout(STOP_STORE, committer.stop()).await;
            reporter.stopped(ended.as_ref().err());
            if ended.is_err() {
                reporter.status(Status::Failed);
            }
            drop(server);
            ended.map(|end| match end {
                End::Stopped => Termination::Stopped,
                End::ReachedLatest => Termination::ReachedLatest,
            })
        });
        let life = Arc::clone(&self.life);
        tokio::spawn(async move {
            let failed = |error| Err(Error::internal("the driver's task failed").caused_by(error));
            life.end(driver.await.unwrap_or_else(failed));
        });
        Ok(())
    }

    fn parts(&self) -> Result<Parts> {
        let specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if specs.is_empty() && self.graph.queues().is_empty() {
            return Err(Error::config("the context has no stream: add one, such as a direct_stream"));
        }
        self.graph.check()?;
        Ok(Parts {
            application: self.application.clone(),
            specs,
            stream: self.stream.clone(),
            store: self.store.clone(),
            report: self.report.clone(),
            ownership: self.ownership,
            until_latest: self.until_latest,
            reader_clients: self.reader_clients,
            graph: self.graph.clone(),
            runner: Arc::clone(&self.runner),
            reporter: self.reporter.clone(),
            clock: Arc::clone(&self.clock),
            resting: self.resting.clone(),
        })
    }

    /// Asks the stream to stop: the batch in hand is finished, or abandoned whole if that takes too long.
    /// Returns at once; any number of times, and before the start as well, which is refused from then on.
    ///
    /// Spark has an immediate stop and a graceful one, which first works off what its receivers hold. Here nothing is held that
    /// is not still in Kafka, so this one is both.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        self.graph.close();
        self.life.stop();
    }

    /// Waits for the end of the stream; at once if it has ended. Anybody may wait, and is told the same.
    ///
    /// # Errors
    /// What ended it: see [`ErrorKind`](crate::ErrorKind). [`ErrorKind::Config`](crate::ErrorKind::Config) if it was not
    /// started.
    pub async fn await_termination(&self) -> Result<Termination> {
        self.life.ended().await
    }

    /// Waits for the end of the stream, for `timeout` at most; `None` if it goes on. Spark: `awaitTerminationOrTimeout`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # async fn example(context: &directstream::stream::StreamingContext) -> directstream::Result<()> {
    /// while context.await_termination_or_timeout(Duration::from_secs(10)).await?.is_none() {
    ///     println!("{} records so far", context.reporter().totals().records);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`await_termination`](Self::await_termination).
    pub async fn await_termination_or_timeout(&self, timeout: Duration) -> Result<Option<Termination>> {
        self.life.ended_within(timeout).await
    }
}
