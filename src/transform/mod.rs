//! The user's operations: DStreams and RDDs, in Spark's names and with Spark's meaning.
//!
//! A [`DStream`] is a lazy chain of operations; for each batch it gives an [`Rdd`]. Narrow operations (map, filter, ...)
//! fuse into one loop per partition. A shuffle (`reduce_by_key`) combines on the map side first. Outputs of a batch are
//! prepared here, as bytes; the commit stage only moves them.
//!
//! One operation, one file. `scope` is what a batch's RDDs share, `runner` the threads that compute partitions.

mod count;
mod dstream;
mod emit_by_key;
mod filter;
mod flat_map;
mod foreach_rdd;
mod graph;
mod has_offset_ranges;
mod json;
mod map;
mod map_partitions;
mod parallelize;
mod print;
mod rdd;
mod reduce;
mod reduce_by_key;
mod runner;
mod save_to_table;
mod scope;
mod shuffle;
mod table_rows;
mod to_tables;
mod transform_rdd;
mod union;

#[cfg(test)]
mod speed_tests;
#[cfg(test)]
mod tests;

pub use crate::config::{InputFormat, OnError};
pub use dstream::{DStream, OperatorId};
pub use emit_by_key::Emit;
pub use graph::{Graph, Output, Prepared, SideEffect, TransactionalOutput};
pub use has_offset_ranges::{DirectKafkaInputDStream, DirectRdd, HasOffsetRanges};
pub use rdd::Rdd;
pub use runner::{LocalRunner, Runner};
pub(crate) use runner::{panic_text, panicked};
pub use save_to_table::{Append, IntoTable, TableRow, Upsert};
pub use scope::{BatchScope, Input};
pub use to_tables::RecordsToTables;
pub(crate) use to_tables::{headers_json, records_again};
