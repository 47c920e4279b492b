//! A job tried without servers: Kafka's topics in memory, a clock that the test moves, a store that is gone afterwards.
//!
//! The same function that builds the job on Kafka builds it here: both give it a [`DirectKafkaInputDStream`]. Everything behind
//! that is what runs in production: the driver, the plans, the batch's transaction in a real SQLite file, the ledger, a restart.
//!
//! | Here | Spark's own tests |
//! |---|---|
//! | [`TestContext`]: [`run_batches`](TestContext::run_batches), [`restart`](TestContext::restart) | `TestSuiteBase`: `runStreams` |
//! | [`ManualClock`] | `ManualClock` |
//! | [`MemoryBroker`], [`ProducerRecord`] | `KafkaTestUtils`, `TestInputStream` |
//! | [`RddQueue`] | `queueStream` |
//! | [`Collected`] | `TestOutputStream` |
//! | [`TestStore`] | none |
//!
//! ```
//! use std::time::Duration;
//! use directstream::{
//!     Record, Result,
//!     testing::{MemoryBroker, TestContext},
//!     transform::{DStream, Upsert},
//! };
//!
//! /// The job, as the program has it.
//! fn word_counts(lines: &DStream<Record>) -> Result<()> {
//!     let words = lines.flat_map(|line| line.text().unwrap_or_default().split(' ').map(str::to_owned).collect::<Vec<_>>());
//!     words.map(|word| (word, 1_i64)).reduce_by_key(|a, b| a + b).save_to_table(
//!         Upsert::into("word_counts").key("word").add("count"),
//!     )
//! }
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let broker = MemoryBroker::new();
//! broker.create_topic("lines", 2)?;
//! let context = TestContext::new("word-count", Duration::from_secs(1))?;
//! context.store().execute("CREATE TABLE word_counts (word TEXT PRIMARY KEY, count BIGINT)").await?;
//! let lines = context.memory_stream(&broker, ["lines"])?;
//! word_counts(&lines)?;
//!
//! broker.send(("lines", "to be or"))?;
//! broker.send(("lines", "not to be"))?;
//! context.run_batch().await?;
//! let counts = context.store().rows("SELECT word, count FROM word_counts ORDER BY word").await?;
//! assert_eq!(counts, ["be|2", "not|1", "or|1", "to|2"]);
//!
//! // Stopped and started again: it goes on from the stored offsets.
//! let context = context.restart().await?;
//! let lines = context.memory_stream(&broker, ["lines"])?;
//! word_counts(&lines)?;
//! broker.send(("lines", "be"))?;
//! context.run_batch().await?;
//! assert_eq!(context.store().rows("SELECT count FROM word_counts WHERE word = 'be'").await?, ["3"]);
//! # Ok::<(), directstream::Error>(())
//! # }).unwrap();
//! ```
//!
//! [`DirectKafkaInputDStream`]: crate::transform::DirectKafkaInputDStream

mod broker;
mod collected;
mod context;
mod memory_source;
mod producer_record;
mod store;
#[cfg(test)]
mod tests;

pub use crate::{clock::ManualClock, transform::RddQueue};
pub use broker::MemoryBroker;
pub use collected::Collected;
pub use context::TestContext;
pub use producer_record::ProducerRecord;
pub use store::TestStore;
