//! Kafka as the stages see it. `ffi` is the one module with `unsafe` code; everything else is safe.

mod ffi;

pub use ffi::MessageBatch;
