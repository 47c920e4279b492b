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
//! happens before it in `start`, one batch's work in `batch`, and every question to Kafka in `inquiry`.

mod batch;
mod context;
mod direct_stream;
mod driver;
mod inquiry;
mod job;
mod pending;
mod start;

pub use context::{StreamingContext, StreamingContextBuilder, Termination};
pub use direct_stream::DirectStream;
pub use job::context_of;
