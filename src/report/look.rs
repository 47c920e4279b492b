//! What a [`Reporter`] tells whoever looks at it: the batches, the job, where it stands.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::{
    health::Status, history::History, job_graph::JobGraph, metrics::kind_label, partitions::PartitionPosition,
    reporter::Reporter,
};

/// Where the stream stands, in a few values.
#[derive(Debug, Clone)]
pub(super) struct Vitals {
    pub(super) now_ms: i64,
    pub(super) status: Status,
    /// The kind of error it ended with.
    pub(super) failure: Option<&'static str>,
    pub(super) batch_seq: u64,
    pub(super) lag: u64,
    pub(super) partitions: usize,
    /// Records a second.
    pub(super) rate_limit: Option<f64>,
}

impl Reporter {
    /// So many completed batches are kept for the web page. Default: 1,000, at least 1. Spark:
    /// `spark.streaming.ui.retainedBatches`.
    ///
    /// ```
    /// use directstream::{clock::SystemClock, report::Reporter};
    ///
    /// Reporter::new("orders", SystemClock::shared()).retain_batches(100);
    /// ```
    pub fn retain_batches(&self, batches: usize) {
        self.history().retained_max = batches.max(1);
    }

    /// What the job is made of. Told once, at the start; of a very large one [the first
    /// nodes](super::GRAPH_NODES_MAX) are kept.
    pub fn job_graph(&self, graph: JobGraph) {
        *self.shared.graph.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(graph.bounded());
    }

    /// The graph, and how many of its nodes were left out.
    pub(super) fn graph(&self) -> Arc<(JobGraph, usize)> {
        Arc::clone(&self.shared.graph.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn application(&self) -> &str {
        &self.shared.application
    }

    /// When this reporter was made, in milliseconds since 1970-01-01 UTC: another one is another process.
    pub(super) fn created_ms(&self) -> i64 {
        self.shared.created_ms
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.shared.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn vitals(&self) -> Vitals {
        let now_ms = self.shared.clock.now_ms();
        let state = self.state();
        Vitals {
            now_ms,
            status: state.health.status,
            failure: state.health.failure.map(kind_label),
            batch_seq: state.health.batch_seq,
            lag: state.positions.lag(),
            partitions: state.positions.all().len(),
            rate_limit: state.rate_limit,
        }
    }

    /// Where all partitions stand, in the order of topic and partition.
    pub(super) fn partitions(&self) -> Vec<PartitionPosition> {
        self.state().positions.all().cloned().collect()
    }
}
