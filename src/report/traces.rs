//! One trace for each batch that ended: made of what was told of it, when it has ended, and sent to an OpenTelemetry collector
//! by a thread of its own. No batch ever waits for it.
//!
//! Stages know nothing of traces: the times are those that the page shows. What is sent is decided in `model.rs`, without
//! OpenTelemetry; how, in `otlp.rs`.

#[cfg(any(feature = "opentelemetry", test))]
mod model;
#[cfg(any(feature = "opentelemetry", test))]
mod names;
#[cfg(feature = "opentelemetry")]
mod otlp;
#[cfg(not(feature = "opentelemetry"))]
#[path = "traces/without.rs"]
mod otlp;
mod parent;

use std::{sync::Arc, time::Duration};

#[cfg(test)]
pub(super) use model::{SpanModel, Value, trace_of};
pub use parent::TraceParent;

use super::{completed::CompletedBatch, history::BatchEntry, reporter::Reporter, steps::Told};
use crate::{config::TracesConfig, error::Result};

/// A batch's span has so many links at most: OpenTelemetry's own limit.
pub const TRACE_LINKS_MAX: usize = 128;

/// How long the last spans may take when the stream stops.
pub(super) const FLUSH_GRACE: Duration = Duration::from_secs(2);

/// A batch that ended, and all that is known of it.
#[cfg_attr(not(any(feature = "opentelemetry", test)), expect(dead_code, reason = "nothing is sent by this build"))]
pub(super) struct Ended<'a> {
    pub(super) application: &'a str,
    pub(super) epoch: u64,
    /// Whether what it reads comes from Kafka, or some of it.
    pub(super) reads_kafka: bool,
    pub(super) entry: &'a BatchEntry,
    pub(super) completed: &'a CompletedBatch,
    pub(super) told: &'a Told,
    /// In milliseconds since 1970-01-01 UTC.
    pub(super) now_ms: i64,
}

/// Where traces go.
pub(super) struct Traces {
    exporter: otlp::Exporter,
    reads_kafka: bool,
}

impl Reporter {
    /// Sends a trace of every batch that ends from now on to a collector, until the stream stops. A second call changes
    /// nothing.
    ///
    /// Spans wait in a queue of 2,048 for a thread that sends them: every 5 s (`OTEL_BSP_SCHEDULE_DELAY`), or once 512 wait
    /// (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`). Above that, and where the collector is away, they are lost and counted
    /// (`directstream_trace_spans_total`).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if this build has no OpenTelemetry, or one of its variables asks for
    /// what it does not have.
    pub fn trace_to(&self, config: &TracesConfig, reads_kafka: bool) -> Result<()> {
        if self.shared.traces.get().is_none() {
            let exporter = otlp::Exporter::start(config, &self.shared.application, Arc::clone(&self.shared.clock))?;
            tracing::info!(url = config.url(), "a trace of every batch is sent");
            // Of two at the same time, one has come first.
            let _ = self.shared.traces.set(Traces { exporter, reads_kafka });
        }
        Ok(())
    }

    /// Whether traces are sent: only then are records asked for theirs.
    #[must_use]
    pub fn traces(&self) -> bool {
        self.shared.traces.get().is_some()
    }

    pub(super) fn trace(&self, entry: &BatchEntry, completed: &CompletedBatch, told: &Told) {
        let Some(Traces { exporter, reads_kafka }) = self.shared.traces.get() else { return };
        let epoch = self.history().epoch;
        exporter.send(&Ended {
            application: &self.shared.application,
            epoch,
            reads_kafka: *reads_kafka,
            entry,
            completed,
            told,
            now_ms: self.shared.clock.now_ms(),
        });
    }

    /// Sends what waits, for two seconds at most, and nothing more from then on.
    pub(super) fn close_traces(&self) {
        if let Some(Traces { exporter, .. }) = self.shared.traces.get() {
            exporter.close(FLUSH_GRACE);
        }
    }

    /// Spans that were sent, and that were lost.
    pub(super) fn trace_spans(&self) -> [u64; 2] {
        self.shared.traces.get().map_or([0; 2], |traces| traces.exporter.spans())
    }
}
