//! Spans on their way to a collector: OpenTelemetry's queue and thread, and what becomes of the spans, counted.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    Context, InstrumentationScope, KeyValue,
    trace::{
        Event, Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
        TracerProvider,
    },
};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter,
        SpanProcessor,
    },
};

use super::{
    Ended, FLUSH_GRACE,
    model::{Attribute, EventModel, SpanModel, Value, trace_of},
    parent::TraceParent,
};
use crate::{
    clock::Clock,
    config::TracesConfig,
    error::{Error, Result},
    report::{build::VERSION, rate_limit::RateLimit},
};

mod client;

/// Spans that may wait to be sent. At ten spans a batch and one batch a second these are three minutes of a collector that is
/// away; with all the links that a batch may have, about 4 MB.
const QUEUE_SPANS_MAX: usize = 2_048;

/// Lost spans are logged at most so often.
const LOST_INTERVAL: Duration = Duration::from_secs(30);

/// Sends spans until it is closed.
pub(in crate::report) struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    tally: Arc<Tally>,
}

impl Exporter {
    /// Starts the thread that sends. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if a variable of OpenTelemetry asks for what this build does not have.
    pub(super) fn start(config: &TracesConfig, application: &str, clock: Arc<dyn Clock>) -> Result<Self> {
        let tally = Arc::new(Tally::new(clock));
        let timeout = Duration::from_millis(config.timeout_ms());
        let sender = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client::Client::new(timeout, Arc::clone(&tally)))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(config.url())
            .with_timeout(timeout)
            .build()
            .map_err(|error| Error::config("OpenTelemetry refuses its settings").caused_by(error))?;
        let queue = BatchConfigBuilder::default().with_max_queue_size(QUEUE_SPANS_MAX).build();
        let queue = BatchSpanProcessor::new(Counted { sender, tally: Arc::clone(&tally) }, queue);
        let provider = SdkTracerProvider::builder()
            .with_resource(resource(application))
            .with_span_processor(Bounded { queue, tally: Arc::clone(&tally) })
            .build();
        let scope = InstrumentationScope::builder("directstream").with_version(VERSION).build();
        Ok(Self { tracer: provider.tracer_with_scope(scope), provider, tally })
    }

    /// Hands the spans of a batch to the queue.
    pub(super) fn send(&self, ended: &Ended<'_>) {
        // Without a parent, whatever the program around is tracing: a batch is a trace of its own.
        self.end(trace_of(ended), &Context::new());
    }

    fn end(&self, model: SpanModel, parent: &Context) {
        let SpanModel { name, consumes, start_ms, end_ms, attributes, events, links, error, children } = model;
        let builder = self
            .tracer
            .span_builder(name)
            .with_kind(if consumes { SpanKind::Consumer } else { SpanKind::Internal })
            .with_start_time(time(start_ms))
            .with_attributes(attributes.into_iter().map(key_value))
            .with_events(events.into_iter().map(event).collect())
            .with_links(links.iter().map(link).collect());
        let context = parent.with_span(builder.start_with_context(&self.tracer, parent));
        for child in children {
            self.end(child, &context);
        }
        let span = TraceContextExt::span(&context);
        if let Some(error) = error {
            span.set_status(Status::error(error));
        }
        span.end_with_timestamp(time(end_ms));
    }

    /// Sends what waits, within the grace. What is still there then is lost.
    pub(super) fn close(&self, grace: Duration) {
        let closed = self.provider.shutdown_with_timeout(grace);
        // A request under way may end later, and counts no more.
        self.tally.closed.store(true, Ordering::Release);
        let left = self.tally.waiting.swap(0, Ordering::AcqRel);
        if closed.is_err() && left > 0 {
            self.tally.lost(left, "the stream ended, and the collector does not answer in time");
        }
    }

    /// Spans that were sent, and that were lost.
    pub(super) fn spans(&self) -> [u64; 2] {
        [&self.tally.sent, &self.tally.lost].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Who sends: named by the environment, or else by the application.
fn resource(application: &str) -> Resource {
    let told = Resource::builder().build();
    let name = told.get(&opentelemetry::Key::from_static_str("service.name"));
    if name.is_some_and(|name| !name.as_str().starts_with("unknown_service")) {
        return told;
    }
    Resource::builder().with_service_name(application.to_owned()).build()
}

fn time(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn key_value((name, value): Attribute) -> KeyValue {
    match value {
        Value::Text(text) => KeyValue::new(name, text),
        Value::Number(number) => KeyValue::new(name, number),
    }
}

fn event(model: EventModel) -> Event {
    let attributes = model.attributes.into_iter().map(key_value).collect();
    Event::new(model.name, time(model.at_ms), attributes, 0)
}

fn link(parent: &TraceParent) -> Link {
    let (trace, span) = (TraceId::from(parent.trace_id), SpanId::from(parent.span_id));
    Link::with_context(SpanContext::new(trace, span, TraceFlags::new(parent.flags), true, TraceState::NONE))
}

/// What becomes of spans.
struct Tally {
    waiting: AtomicUsize,
    sent: AtomicU64,
    lost: AtomicU64,
    closed: AtomicBool,
    /// Why the last request failed.
    reason: Mutex<Option<String>>,
    logged: Mutex<RateLimit<()>>,
    clock: Arc<dyn Clock>,
}

impl Tally {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            reason: Mutex::default(),
            logged: Mutex::new(RateLimit::every(LOST_INTERVAL)),
            clock,
        }
    }

    fn lost(&self, spans: usize, reason: &str) {
        self.lost.fetch_add(spans as u64, Ordering::Relaxed);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.admit((), self.clock.monotonic()).is_some() {
            let lost = self.lost.load(Ordering::Relaxed);
            tracing::warn!(lost, reason, "spans of batches are lost on their way to the collector");
        }
    }

    fn failed(&self, reason: String) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    fn why(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

/// The queue, which says nothing of what it loses: what it has no room for is counted here, and not given to it.
#[derive(Debug)]
struct Bounded {
    queue: BatchSpanProcessor,
    tally: Arc<Tally>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let waiting = &self.tally.waiting;
        let room = |waiting: usize| (waiting < QUEUE_SPANS_MAX).then_some(waiting + 1);
        match waiting.fetch_update(Ordering::AcqRel, Ordering::Relaxed, room) {
            Ok(_) => self.queue.on_end(span),
            Err(_full) => self.tally.lost(1, "the queue is full"),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    /// Whoever asks, also when the last of the program is dropped: never for longer than the grace.
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout.min(FLUSH_GRACE))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

/// What the queue's thread gives its spans to.
#[derive(Debug)]
struct Counted {
    sender: opentelemetry_otlp::SpanExporter,
    tally: Arc<Tally>,
}

impl SpanExporter for Counted {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let count = spans.len();
        let sent = self.sender.export(spans).await;
        if self.tally.closed.load(Ordering::Acquire) {
            return sent;
        }
        self.tally.waiting.fetch_sub(count, Ordering::AcqRel);
        match &sent {
            Ok(()) => {
                self.tally.sent.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) => {
                let reason = self.tally.why().unwrap_or_else(|| error.to_string());
                self.tally.lost(count, &reason);
            }
        }
        sent
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.sender.set_resource(resource);
    }
}
