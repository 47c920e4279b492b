//! Kafka as the stages see it: `lookup` asks about topics and offsets, `params` holds the clients' settings, `producer` sends, `group` commits offsets for others to look at,
//! `credentials` reads passwords again, `client_errors` sums up what goes wrong with a client as a whole. `ffi` is the one module with `unsafe` code; everything
//! else is safe.

mod client_errors;
mod credentials;
mod ffi;
mod group;
mod lookup;
mod output;
mod params;
mod producer;

pub(crate) use client_errors::ClientErrors;
pub use client_errors::{ClientError, ClientErrorClass};
pub(crate) use credentials::value_in;
pub(crate) use ffi::{
    CallError, Client, Entry, GroupOffset, LastWords, MessageView, PartitionQueue, Place, give_large_blocks_back,
};
pub use ffi::{Code, MessageBatch};
pub(crate) use group::GroupCommitter;
pub use lookup::{OffsetLookup, OffsetOutcome, PartitionOffset, TopicAnswer};
pub use output::KafkaOutput;
pub use params::{IsolationLevel, KafkaProperties, PropertyFault, QueueLimits};
pub(crate) use producer::{Delivered, Producer, TransactionalProducer};

#[cfg(test)]
pub(crate) use ffi::tests::take_raw;
