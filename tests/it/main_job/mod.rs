//! The main job: a Kafka topic into tables, exactly once, by the program itself. The oracle is what was
//! produced; under fire it is Kafka's own console consumer.

mod backpressure;
mod brokers;
mod credentials;
mod deadline;
mod demo;
mod inputs;
pub(crate) mod job;
mod large;
mod lifecycle;
mod losses;
mod moved_offsets;
mod partitions;
pub(crate) mod recount;
mod refused_rows;
mod state_speed;
mod streams;
pub(crate) mod tables;
mod takeover_time;
