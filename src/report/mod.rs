//! Metrics, health, logs and events: copies for others to look at. Nothing here is ever read back, and nothing here
//! holds a batch up.
//!
//! The driver holds one [`Reporter`] and tells it what happens, a few calls per batch and none per record. The reporter
//! counts it, judges the process's health by it, and passes it on to [`StreamingListener`]s. A [`ReportServer`] shows
//! all that on one small HTTP port.
//!
//! ```
//! use directstream::{clock::SystemClock, report::{Reporter, Status}};
//!
//! let reporter = Reporter::new("orders", SystemClock::shared());
//! reporter.status(Status::Running);
//! assert!(reporter.render_metrics().contains("directstream_status{status=\"running\"} 1"));
//! ```

mod answers;
mod api;
mod build;
mod bus;
mod compatible;
mod completed;
mod health;
mod history;
mod host;
mod job_graph;
mod listener;
mod log;
mod look;
mod metrics;
mod mirror;
mod page;
mod partitions;
mod progress;
mod rate_limit;
mod receivers;
mod reporter;
mod server;
mod servers;
mod spark_api;
mod steps;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod traces;
mod trail;

pub use build::{VERSION, librdkafka_version};
pub use bus::ListenerBus;
pub use completed::{BatchCounts, BatchOutcome, CommitSettled, CompletedBatch, CountedRange, Totals};
pub use health::{HealthAnswer, STALL_MAX, Status};
pub use job_graph::{GRAPH_NODES_MAX, GraphNode, GraphOutput, GraphStream, JobGraph};
pub use listener::{BatchProgress, InputInfo, OutputOperationInfo, StreamStopped, StreamingListener, StreamingStarted};
pub use log::{LogFormat, LogSettings, init_logs};
pub use metrics::{METRICS, Metric, MetricKind, metrics_reference};
pub(crate) use mirror::{
    ConsumerGroupTarget, Mirror, MirrorEnd, MirrorKind, MirrorTarget, Offsets, Ownership, ZookeeperTarget,
};
pub use partitions::{PARTITION_SERIES_MAX, PartitionPosition};
pub use progress::Progress;
pub use rate_limit::RateLimit;
pub use receivers::ReceiverInfo;
pub use reporter::Reporter;
pub use server::{ReportServer, serve};
pub use steps::{CommitEvent, StepInfo, StepKind, TaskTimes};
pub use terminal::Terminal;
pub use text::printable;
pub(crate) use text::shortened;
pub use traces::{TRACE_LINKS_MAX, TraceParent};
