//! What to read next: from what is committed and what the broker just answered, the range of every partition.
//!
//! Everything here is arithmetic over plain values. Nothing asks a broker, a store or a clock, so every rule can be
//! tried at its edges. An interval goes like this:
//!
//! 1. [`review`] compares what is tracked with what the broker says: new partitions join, lost offsets are found.
//! 2. [`plan_batch`] gives every partition its range, within the [`Limits`].
//! 3. [`Timing`] says when that is, and what the batch is called.
//!
//! Where the job keeps to a rate that follows its speed, [`RateController`] says which.
//!
//! At the first start [`start_lookups`] and [`resolve_start`] fix the positions; [`reset_offset`] says where an operator moves
//! them.

mod backpressure;
mod partitions;
mod planner;
mod problem;
mod rate;
mod record_size;
mod reset;
mod start;
mod timing;

pub use backpressure::{BatchSpeed, PidRateEstimator, RateController};
pub use partitions::{Answers, Problem, ProblemKind, Review, Silence, TopicFilter, Tracked, review};
pub use planner::{Cut, Limits, Plan, PlannedRange, Position, plan_batch, reached};
pub use rate::{Rates, rate_limits};
pub use record_size::{RECORD_BYTES_ASSUMED, RecordSize};
pub use reset::{Adjusted, PartitionOffsets, ResetOffset, ResetTo, reset_offset};
pub use start::{StartAnswers, StartLookups, StartPositions, resolve_start, start_lookups};
pub use timing::Timing;
