//! Traces: a real job sends them to a collector, which a test makes of a few lines and lets go away, come back, and hang.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener as StdListener,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::support::{
    Database, JobFile, Kafka, Process, Record, directstream, free_port, fresh_database, get, record, shared_kafka,
    wait_for, wait_until,
};

/// Enough for anything, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(60);

/// What no span may have in it, and what its sender must not tell anybody but the collector.
const PAYLOAD: &str = "payload-canary";
const SECRET: &str = "secret-canary";

const OUTPUT: &str = r#"
[[output]]
table = "records"
create = true
columns.id = { from = "value:/id", type = "bigint" }
columns.body = { from = "value:/body", type = "text" }
"#;

/// What was sent to the collector.
#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    resources: Vec<Vec<KeyValue>>,
    bodies: Vec<Bytes>,
    keys: BTreeSet<String>,
}

/// A collector: takes what comes, at an address that stays the same while it is away.
struct Collector {
    address: String,
    received: Arc<Mutex<Received>>,
    serving: Option<JoinHandle<()>>,
}

impl Collector {
    async fn start() -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut collector = Self { address, received: Arc::default(), serving: None };
        collector.come_back().await;
        collector
    }

    async fn come_back(&mut self) {
        let listener =
            wait_for("the address is free", LIMIT, async || TcpListener::bind(&self.address).await.ok()).await;
        let take = async |State(received): State<Arc<Mutex<Received>>>, headers: HeaderMap, body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
            let mut received = received.lock().unwrap();
            assert_eq!(headers["content-type"], "application/x-protobuf");
            received.keys.extend(headers.get("api-key").map(|key| key.to_str().unwrap().to_owned()));
            for of_resource in request.resource_spans {
                received.resources.push(of_resource.resource.unwrap().attributes);
                received.spans.extend(of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans));
            }
            received.bodies.push(body);
        };
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&self.received));
        self.serving = Some(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
    }

    async fn go_away(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        let _ = serving.await;
    }

    /// The spans that are of batches, by number.
    fn batches(&self) -> BTreeMap<i64, Span> {
        let received = self.received.lock().unwrap();
        let roots = received.spans.iter().filter(|span| span.parent_span_id.is_empty());
        let batches: Vec<_> = roots.map(|span| (number(span, "directstream.batch_seq"), span.clone())).collect();
        let by_number: BTreeMap<_, _> = batches.iter().cloned().collect();
        assert_eq!(by_number.len(), batches.len(), "no batch has two traces");
        by_number
    }

    /// Waits until the spans of batches count so many records in all.
    async fn counts(&self, records: i64) {
        let counted = async || {
            self.batches().values().map(|span| number(span, "messaging.batch.message_count")).sum::<i64>() == records
        };
        wait_until(&format!("spans of {records} records came"), LIMIT, counted).await;
    }
}

fn value<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a any_value::Value> {
    attributes.iter().find(|attribute| attribute.key == name)?.value.as_ref()?.value.as_ref()
}

fn number(span: &Span, name: &str) -> i64 {
    match value(&span.attributes, name) {
        Some(any_value::Value::IntValue(number)) => *number,
        other => panic!("{name}: {other:?}"),
    }
}

fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    match value(attributes, name)? {
        any_value::Value::StringValue(text) => Some(text),
        other => panic!("{name}: {other:?}"),
    }
}

fn trace_parent(number: usize) -> String {
    format!("00-{:032x}-{:016x}-01", number + 1, number + 1)
}

/// Records of which some have a trace, some a broken one, and some none.
fn records(count: usize) -> Vec<Record> {
    let of = |number: usize| {
        let partition = i32::try_from(number % 2).unwrap();
        let record = record(format!("{{\"id\":{number},\"body\":\"{PAYLOAD}\"}}")).partition(partition);
        let header = trace_parent(number);
        match number % 5 {
            3 => record.header("other", Some(header.as_bytes())),
            4 => record.header("traceparent", Some(&header.as_bytes()[..54])),
            _ => record.header("other", None).header("traceparent", Some(header.as_bytes())),
        }
    };
    (0..count).map(of).collect()
}

/// A job over two partitions, and what it writes to.
struct Watched {
    kafka: Kafka,
    topic: String,
    database: Database,
    folder: tempfile::TempDir,
    metrics: String,
}

impl Watched {
    async fn new() -> Self {
        let (kafka, database) = (shared_kafka().await, fresh_database().await);
        let metrics = format!("127.0.0.1:{}", free_port());
        Self { topic: kafka.topic(2).await, kafka, database, folder: tempfile::tempdir().unwrap(), metrics }
    }

    fn job(&self, name: &'static str, report: &str) -> PathBuf {
        let job = JobFile::new(self.kafka.brokers(), &self.topic, self.database.url()).name(name).outputs(OUTPUT);
        job.report(format!("listen = \"{}\"\n{report}", self.metrics)).write(self.folder.path())
    }

    fn run(&self, job: &Path, environment: &[(&str, &str)]) -> Process {
        let mut command = directstream(&["run"]);
        command.arg(job).env("DIRECTSTREAM_LOG", "warn").envs(environment.iter().copied());
        Process::start(command, self.folder.path().join(crate::support::unique("stderr")))
    }

    async fn produce(&self, records: Vec<Record>) {
        self.kafka.produce(&self.topic, records).await;
    }

    /// A counter of the job.
    fn counted(&self, series: &str) -> f64 {
        let (_, text) = get(&self.metrics, "/metrics").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        line.unwrap_or(0.0)
    }

    async fn committed(&self, records: u32) {
        let all = async || self.counted("directstream_records_total ") >= f64::from(records);
        wait_until(&format!("{records} records are committed"), LIMIT, all).await;
    }

    /// Number and records of each batch, as the ledger has them.
    async fn ledger(&self, application: &str) -> BTreeMap<i64, i64> {
        let sql = "SELECT batch_seq, records FROM directstream.batches WHERE application = $1";
        let rows: Vec<(i64, i64)> =
            sqlx::query_as(sql).bind(application).fetch_all(&mut self.database.connect().await).await.unwrap();
        rows.into_iter().collect()
    }
}

/// Every span has its place: below that of its batch, within its times.
fn check_tree(received: &Received, batch: &Span) -> Vec<Span> {
    let of_batch: Vec<_> = received.spans.iter().filter(|span| span.trace_id == batch.trace_id).cloned().collect();
    for span in of_batch.iter().filter(|span| span.span_id != batch.span_id) {
        let above = of_batch.iter().find(|above| above.span_id == span.parent_span_id);
        let above = above.unwrap_or_else(|| panic!("{} has nothing above it", span.name));
        let within = above.start_time_unix_nano..=above.end_time_unix_nano;
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert!(
            within.contains(&span.start_time_unix_nano) && within.contains(&span.end_time_unix_nano),
            "{}",
            span.name
        );
        assert_eq!((span.kind(), span.links.len()), (SpanKind::Internal, 0));
    }
    assert_eq!(batch.kind(), SpanKind::Consumer);
    of_batch
}

/// The traces that are linked to, in order.
fn links(span: &Span) -> Vec<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut links: Vec<_> =
        span.links.iter().map(|link| format!("00-{}-{}-01", hex(&link.trace_id), hex(&link.span_id))).collect();
    links.sort();
    links
}

/// What every span of batches that were committed is to be, and what was sent beside them.
fn check_spans(received: &Received, batches: &BTreeMap<i64, Span>, topic: &str) {
    let mut settled = 0;
    for (seq, batch) in batches {
        let spans = check_tree(received, batch);
        let names: BTreeSet<_> = spans.iter().map(|span| span.name.as_str()).collect();
        for name in ["plan", "read and transform", "read", "commit"] {
            assert!(names.contains(name), "batch {seq} has no {name}: {names:?}");
        }
        assert!(names.iter().any(|name| name.contains("records")), "the output: {names:?}");
        assert_eq!(batch.name, format!("process {topic}"));
        assert_eq!(text(&batch.attributes, "messaging.destination.name"), Some(topic));
        assert_eq!(text(&batch.attributes, "directstream.outcome"), Some("completed"));
        assert_eq!(batch.status.as_ref().map_or(StatusCode::Unset, |status| status.code()), StatusCode::Unset);
        let events = spans.iter().filter(|span| span.name == "commit").flat_map(|span| &span.events);
        settled += events.filter(|event| text(&event.attributes, "directstream.outcome") == Some("committed")).count();
    }
    assert_eq!(settled, 1, "the answer of one commit was lost");
    for resource in &received.resources {
        assert_eq!(text(resource, "service.name"), Some("traced"));
        assert_eq!(text(resource, "deployment.environment.name"), Some("test"));
    }
    assert_eq!(received.keys.iter().collect::<Vec<_>>(), [SECRET]);
    let said = |body: &Bytes, word: &str| body.windows(word.len()).any(|window| window == word.as_bytes());
    assert!(received.bodies.iter().all(|body| said(body, "traced") && !said(body, PAYLOAD) && !said(body, SECRET)));
}

#[tokio::test]
async fn a_collector_gets_a_trace_of_every_batch_that_is_linked_to_those_of_its_records() {
    let (watched, mut collector) = (Watched::new().await, Collector::start().await);
    watched.produce(records(30)).await;
    let report = format!("traces.endpoint = \"http://{}\"", collector.address);
    let mut job = watched.run(
        &watched.job("traced", &report),
        &[
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_EXPORTER_OTLP_HEADERS", &format!("api-key={SECRET}")),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
            ("FAILPOINTS", "commit::after_commit=1*off->1*return(error)->off"),
        ],
    );
    collector.counts(30).await;
    for total in [40, 50] {
        watched.produce(records(10)).await;
        collector.counts(total).await;
    }
    let batches = collector.batches();
    let of_ledger = watched.ledger("traced").await;
    let of_spans = batches.iter().map(|(seq, span)| (*seq, number(span, "directstream.records"))).collect();
    assert_eq!(of_ledger, of_spans);
    let sent: Vec<String> = {
        let mut sent: Vec<_> = (0..30).filter(|number| number % 5 < 3).map(trace_parent).collect();
        sent.sort();
        sent
    };
    assert_eq!(links(&batches[&1]), sent);
    check_spans(&collector.received.lock().unwrap(), &batches, &watched.topic);

    // Nobody waits for a collector that is away; what it missed is counted.
    collector.go_away().await;
    watched.produce(records(10)).await;
    watched.committed(60).await;
    let lost = async || watched.counted("directstream_trace_spans_total{outcome=\"lost\"} ") > 0.0;
    wait_until("spans are counted as lost", LIMIT, lost).await;
    collector.come_back().await;
    let before = collector.batches().len();
    watched.produce(records(10)).await;
    wait_until("spans come again", LIMIT, async || collector.batches().len() > before).await;
    watched.committed(70).await;

    // Nor for one that takes a connection and never answers, at the end either.
    collector.go_away().await;
    let hangs = wait_for("the address is free", LIMIT, async || StdListener::bind(&collector.address).ok()).await;
    hangs.set_nonblocking(true).unwrap();
    watched.produce(records(10)).await;
    watched.committed(80).await;
    let held = wait_for("it is connected to", LIMIT, async || hangs.accept().ok()).await;
    let asked = Instant::now();
    job.runs();
    job.signal("TERM");
    let (code, told) = job.ended().await;
    assert_eq!(code, 143, "{told}");
    assert!(asked.elapsed() < Duration::from_secs(12), "{:?}", asked.elapsed());
    drop(held);
    let lines = told.lines().filter(|line| line.contains("spans of batches are lost")).count();
    assert!((1..=2).contains(&lines), "{told}");
    assert!(!told.contains(SECRET) && !told.contains(PAYLOAD), "{told}");
}

/// By OpenTelemetry's own variables alone; and the last spans go out at the end, long before their time.
#[tokio::test]
async fn the_trace_of_a_batch_that_fails_says_why_without_its_payload() {
    let (watched, collector) = (Watched::new().await, Collector::start().await);
    watched.produce(vec![record(format!("{{\"id\":\"{PAYLOAD}\"}}")).partition(0)]).await;
    let endpoint = format!("http://{}/", collector.address);
    let job = watched.run(
        &watched.job("broken", ""),
        &[
            ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_SERVICE_NAME", "named"),
        ],
    );
    let (code, told) = job.ended().await;
    assert_eq!(code, 6, "{told}");
    let batches = collector.batches();
    let batch = &batches[&1];
    let status = batch.status.clone().unwrap();
    assert_eq!(status.code(), StatusCode::Error);
    assert!(!status.message.is_empty() && !status.message.contains('\n'), "{}", status.message);
    assert_eq!(text(&batch.attributes, "error.type"), Some("failed"));
    let received = collector.received.lock().unwrap();
    let failed = check_tree(&received, batch);
    let operation = failed.iter().find(|span| value(&span.attributes, "directstream.output_operation").is_some());
    assert_eq!(operation.and_then(|span| span.status.as_ref()).map(|status| status.code()), Some(StatusCode::Error));
    assert_eq!(text(&received.resources[0], "service.name"), Some("named"));
    let said = |body: &Bytes| body.windows(PAYLOAD.len()).any(|window| window == PAYLOAD.as_bytes());
    assert!(received.bodies.iter().all(|body| !said(body)));
}
