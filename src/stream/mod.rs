//! The driver: the only place that knows all five stages.
//!
//! ```text
//!            +-- plan ------- read + transform ------ side effects --+
//!  interval -+   inquiry,     batch: outputs         after n-1 has   +-> commit, while the next
//!            |   plan::*      prepared as bytes      committed       |   batch is read
//!            +-------------------------------------------------------+
//! ```
//!
//! [`StreamingContext`] is what a program holds. [`DirectStream`] says what to read. The loop itself is in `driver`, what
//! happens before it in `start`, one batch's work in `batch`, its size in `measured` and its deadlines in `in_hand`, its commit in `pending`; `place` is where a partition stands,
//! `mirrors` copies what is committed for others to look at,
//! `remember` what windows know of committed batches,
//! and every question to Kafka is in `inquiry`. What is read that is not Kafka is in `source`, and `inputs` is how a program asks for it. `job` makes a job file a stream, and `job_graph` shows what it is made of. `create_rdd`, `latest`, `reset` and `verify` work
//! outside of any stream.

mod active;
mod batch;
mod context;
mod create_rdd;
mod direct_stream;
mod driver;
mod failing;
mod fitting;
mod in_hand;
mod inputs;
mod inquiry;
mod job;
mod job_graph;
mod latest;
mod life;
mod measured;
mod mirrors;
mod parents;
mod pending;
mod place;
mod planning;
mod queue_stream;
mod remember;
mod reset;
mod restore;
mod source;
mod sources;
mod start;
mod steps;
mod verify;
mod work;

/// Waits until a stop is asked for.
async fn asked_to_stop(stop: &mut tokio::sync::watch::Receiver<bool>) {
    // A context that is gone cannot ask any more, and nobody else can: that is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

pub use context::{StreamingContext, StreamingContextBuilder};
pub use create_rdd::create_rdd;
pub use direct_stream::DirectStream;
pub use job::context_of;
pub(crate) use job::in_time;
pub use latest::{LatestLookup, LatestOffsets, log_ends};
pub(crate) use life::Resting;
pub use life::{StreamingContextState, Termination};
pub(crate) use mirrors::mirror_once;
pub use reset::{PlannedReset, PlannedResets, ResetScope, TopicScope, plan_reset};
pub(crate) use source::{Chunks, Source};
pub use source::{Receiver, ReceiverLog, ReceiverSupervisor, TextFiles};
pub use verify::{FINDINGS_MAX, Finding, Verification, verify};
