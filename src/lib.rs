//! Kafka into your database, exactly once: Spark Streaming's receiverless direct stream, rebuilt.
//!
//! ```text
//! plan  ->  read  ->  transform  ->  commit  ->  report
//! what      exactly   the user's     results     metrics, lag, logs:
//! ranges    those     DStream        + offsets   copies for others
//! are next  records   operations     atomically  to look at
//! ```
//!
//! Each batch interval the driver ([`stream`]) asks Kafka for the latest offsets, plans one [`OffsetRange`] per
//! topic-partition, reads exactly those ranges, runs the user's operations on them, and commits results and offsets in
//! one transaction of the user's own database.

#[doc(hidden)]
pub mod cli;
pub mod clock;
pub mod commit;
pub mod config;
mod error;
mod failpoint;
pub mod kafka;
pub mod plan;
pub mod read;
pub mod report;
pub mod stream;
pub mod testing;
pub mod transform;
pub mod types;

pub use error::{Error, ErrorKind, Result, Stage};
pub use types::{BatchInfo, BatchTime, Offset, OffsetRange, Record, Timestamp, TopicPartition};

/// The program of the README is a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So are those of the page on testing a job.
#[cfg(doctest)]
#[doc = include_str!("../docs/testing-a-job.md")]
struct TestingAJob;
