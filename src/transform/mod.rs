//! The user's operations: DStreams and RDDs, in Spark's names and with Spark's meaning.
//!
//! A [`DStream`] is a lazy chain of operations; for each batch it gives an [`Rdd`]. Narrow operations (map, filter, ...)
//! fuse into one loop per partition. A shuffle by key (`combine_by_key`, of which the others are cases) combines on the map
//! side first. Outputs of a batch are prepared here, as bytes; the commit stage only moves them.
//!
//! One operation, one file. `scope` is what a batch's RDDs share, `runner` the threads that compute partitions, `shuffle` what
//! map tasks leave for the reduce side.

mod aggregate;
mod aggregate_by_key;
mod aggregator;
mod coalesce;
mod cogroup;
mod collect_as_map;
mod combine_by_key;
mod count;
mod count_by_value;
mod distinct;
mod dstream;
mod element;
mod emit_by_key;
mod event_window;
mod event_window_stream;
mod exchange;
mod file_series;
mod filter;
mod flat_map;
mod flat_map_values;
mod foreach_partition;
mod foreach_rdd;
mod glom;
mod graph;
mod group_by_key;
mod has_offset_ranges;
mod history;
mod into_table;
mod join;
mod json;
mod kept_partition;
mod keyed_state;
mod keys;
mod late;
mod map;
mod map_partitions;
mod map_values;
mod map_with_state;
mod map_with_state_stream;
mod min_max;
mod object_file;
mod parallelize;
mod part_files;
mod partition_by;
mod partitioner;
mod persist;
mod print;
mod queue_stream;
mod rdd;
mod reduce;
mod reduce_by_key;
mod reduce_by_key_and_event_window;
mod remember;
mod repartition;
mod runner;
mod save_as_object_files;
mod save_as_text_files;
mod save_to_kafka;
mod save_to_table;
mod scope;
mod shuffle;
mod sort_by;
mod spill;
mod state_segment;
mod state_spec;
mod storage;
mod subtract;
mod sum;
mod table_rows;
mod text_file;
mod to_tables;
mod top;
mod touched_keys;
mod transform_rdd;
mod transform_with;
mod union;
mod update_state_by_key;
mod watermark;
mod window;
mod window_assigner;
mod window_inverse;
mod with_watermark;
mod zip_with_index;

#[cfg(test)]
mod event_time_tests;
#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod speed_tests;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod window_tests;

pub use crate::{
    config::{InputFormat, OnError},
    kafka::KafkaOutput,
};
pub use cogroup::Groups;
pub use dstream::{DStream, OperatorId};
pub use element::{Element, Key};
pub use emit_by_key::Emit;
pub use event_window::{EventWindow, EventWindows};
pub use event_window_stream::EventWindowDStream;
pub(crate) use graph::Operator;
pub use graph::{Graph, Output, Prepared, SideEffect, ToKafka, TransactionalOutput};
pub(crate) use has_offset_ranges::CommitQueue;
pub use has_offset_ranges::{CanCommitOffsets, DirectKafkaInputDStream, DirectRdd, HasOffsetRanges};
pub use history::Remembers;
pub use into_table::{Append, IntoTable, TableRow, Upsert};
pub use keyed_state::{KeepsState, StateKey, StateValue};
pub use late::{Late, LateReason};
pub use map_with_state_stream::MapWithStateDStream;
pub use partitioner::Partitioner;
pub(crate) use queue_stream::queue_stream;
pub use queue_stream::{Queued, RddQueue};
pub use rdd::Rdd;
pub use remember::RememberedDStream;
pub use runner::{LocalRunner, Runner};
pub(crate) use runner::{panic_text, panicked};
pub use scope::{BatchScope, Input};
pub use state_spec::{State, StateSpec};
pub(crate) use storage::STORAGE_SHARE;
pub use storage::{StorageLevel, StorageMemory};
pub(crate) use text_file::{text_of, without_ending};
pub use to_tables::RecordsToTables;
pub(crate) use to_tables::{headers_json, records_again};
pub use with_watermark::EventTimeDStream;
