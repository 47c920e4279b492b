//! The main job: a Kafka topic into tables, exactly once, by the program itself. After kills the oracle is Kafka's own console
//! consumer; elsewhere it is what was produced.

mod brokers;
mod deadline;
mod demo;
pub(crate) mod job;
mod kills;
mod large;
mod losses;
mod moved_offsets;
mod partitions;
pub(crate) mod process;
pub(crate) mod recount;
pub(crate) mod tables;
