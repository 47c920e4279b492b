//! Exactly the records of the planned ranges.
//!
//! [`DirectReader`] reads a range on the calling thread and gives its records in chunks, in offset order, each record
//! once. When a range is complete is decided by the state machine in `frontier`; what was found is told in
//! [`RangeCounts`](crate::types::RangeCounts), whose checksum is defined in [`checksum`]. [`KafkaRdd`] is the RDD over
//! the ranges of one batch.
//!
//! Inside: a `slot` is one Kafka client, a `lane` is one partition as it is kept from batch to batch. `turns` says
//! who is assigned where memory has no room for all, `stall` finds out why a range does not end, `errors` what a partition's error means;
//! `rehearsal` finds the record batch that the process before died of.

pub mod checksum;
mod errors;
mod frontier;
mod lane;
mod rdd;
mod reader;
mod rehearsal;
mod slot;
#[cfg(test)]
mod speed_tests;
mod stall;
mod turns;

pub use rdd::KafkaRdd;
pub use reader::{DirectReader, ReadRanges, ReaderSettings};
pub use rehearsal::Rehearsed;
