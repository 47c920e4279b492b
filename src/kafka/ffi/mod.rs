//! librdkafka behind a safe face: the only `unsafe` code of the crate.
//!
//! What keeps it sound:
//!
//! 1. A [`Client`] is shared by `Arc`. Every queue and every message batch holds that `Arc`, so the C client is destroyed
//!    after the last of its messages and queues, on whatever thread drops it.
//! 2. A message is owned by exactly one block of pointers and destroyed when that block is dropped, on any thread:
//!    librdkafka counts the references to what messages share with atomics.
//! 3. Messages are shared between threads for reading only. The one thing that librdkafka does lazily on reading, parsing
//!    the headers, is done before a batch leaves this module.
//! 4. Error codes come from the broker and may be newer than the C enum, which in Rust must not hold an unknown value.
//!    They are read as plain integers, from memory and from functions.

#![allow(unsafe_code, reason = "librdkafka is a C library; everything outside this module stays safe")]
#![deny(clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn)]

mod admin;
mod batch;
mod client;
mod code;
mod group;
mod last_words;
mod list;
mod memory;
mod queue;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use admin::{CallError, ListedOffset, OFFSET_EARLIEST, OFFSET_LATEST, TopicPartitions};
pub use batch::MessageBatch;
pub(crate) use batch::MessageView;
pub(crate) use client::{Client, ClientEvent, CreateError, set_credentials_of};
pub use code::Code;
pub(crate) use group::GroupOffset;
pub(crate) use last_words::LastWords;
pub(crate) use list::Place;
pub(crate) use memory::give_large_blocks_back;
pub(crate) use queue::{Entry, PartitionQueue};

use std::{
    ffi::{CStr, c_char, c_int},
    time::Duration,
};

/// The text at `text`, copied; empty if there is none.
///
/// # Safety
/// `text` is null or a C string that lives during the call.
unsafe fn copied(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and a C string as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A duration in librdkafka's milliseconds.
fn millis(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX)
}
