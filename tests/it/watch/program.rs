//! A program that does what no job file does, so that all of the dashboard has something to show: windows over event time, an outbox,
//! a listener, and traces for a collector that is not there.

use std::time::{Duration, UNIX_EPOCH};

use directstream::{
    config::{ReportConfig, TracesConfig},
    report::{BatchProgress, StreamingListener},
    stream::{DirectStream, StreamingContext},
    transform::{Append, EventWindows, KafkaOutput},
    types::{ColumnType, KafkaRecord},
};

use super::dashboard::Watched;
use crate::support::{Kafka, record, unique, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
/// The program's name, its topic's first words, and the table that it writes.
const NAME: &str = "program";
const SECOND: Duration = Duration::from_secs(1);
/// So many records at a time are more than the outbox sends between two looks.
const MANY: usize = 5_000;

/// It panics once: what a listener does is its own affair.
struct Panics(bool);

impl StreamingListener for Panics {
    fn on_batch_completed(&mut self, _batch: &BatchProgress) {
        assert!(std::mem::replace(&mut self.0, true), "a panic that the test wants");
    }
}

/// The program, which runs in this process until it is dropped.
pub(super) struct Program {
    context: StreamingContext,
    kafka: Kafka,
    topic: String,
    instance: String,
}

impl Program {
    /// Serves its metrics at `instance`.
    pub(super) async fn start(kafka: &Kafka, database: &str, instance: &str) -> Self {
        let (topic, target) = (kafka.topic(1).await, kafka.topic(1).await);
        let traces = TracesConfig::to_collector("http://127.0.0.1:1").unwrap();
        let listen = Some(instance.parse().unwrap());
        let report = ReportConfig { listen, traces: Some(traces), ..ReportConfig::default() };
        let builder = StreamingContext::builder(unique(NAME), Duration::from_millis(100)).store(database).unwrap();
        let context = builder.report_config(report).build().unwrap();
        let stream = DirectStream::topics([&topic]).bootstrap_servers(kafka.brokers());
        let stream = context.direct_stream(stream).unwrap();
        stream
            .with_watermark(|record| record.timestamp().as_ms(), SECOND)
            .unwrap()
            .reduce_by_key_and_event_window(
                EventWindows::tumbling(SECOND),
                |_| (0_i64, 1_i64),
                |one, other| one + other,
            )
            .unwrap()
            .map(|(window, key, records)| (window.start_ms, key, records))
            .save_to_table(
                Append::into(NAME)
                    .typed_column("second_ms", ColumnType::BigInt)
                    .typed_column("key", ColumnType::BigInt)
                    .typed_column("records", ColumnType::BigInt)
                    .create(),
            )
            .unwrap();
        stream
            .map(move |record| KafkaRecord::to(&target).value(record.value().unwrap_or_default()))
            .save_to_kafka_outbox(KafkaOutput::bootstrap_servers(kafka.brokers()))
            .unwrap();
        context.add_listener(Box::new(Panics(false))).unwrap();
        context.start().await.unwrap();
        Self { context, kafka: kafka.clone(), topic, instance: instance.to_owned() }
    }

    /// Records, of which the last is far too late; and as many as the outbox has to take its time for.
    pub(super) async fn is_seen(&self, watched: &Watched) {
        let now_ms = i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
        for late_ms in [5_000, 0] {
            self.kafka.produce(&self.topic, vec![record("1").timestamp(now_ms - late_ms)]).await;
        }
        wait_until("the watermark has moved", LIMIT, async || self.context.reporter().totals().records == 2).await;
        self.kafka.produce(&self.topic, vec![record("1").timestamp(now_ms - 60_000)]).await;
        let own = |metric: &str| format!("{metric}{{instance=\"{}\"}} > 0", self.instance);
        watched.shows(&own("directstream_late_records_total")).await;
        wait_until("records wait in the outbox", LIMIT, async || {
            let records = (0..MANY).map(|_| record("1").timestamp(now_ms)).collect();
            self.kafka.produce(&self.topic, records).await;
            watched.numbers(&own("directstream_outbox_waiting_records")).is_ok_and(|waiting| !waiting.is_empty())
        })
        .await;
        for metric in ["outbox_sent_records_total", "outbox_errors_total", "listener_panics_total"] {
            watched.shows(&own(&format!("directstream_{metric}"))).await;
        }
        let lost = format!("directstream_trace_spans_total{{instance=\"{}\",outcome=\"lost\"}} > 0", self.instance);
        watched.shows(&lost).await;
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.context.stop();
    }
}
