//! The job file: read, checked as a whole, and explained.
//!
//! Values come in layers: defaults, then the file, then the environment (`DIRECTSTREAM__STREAM__BATCH_INTERVAL`), then
//! `--set` on the command line; a higher layer wins. Everything that is wrong is reported at once, each with its place,
//! and nothing is connected to before that. This is the only place that reads the environment.
//!
//! ```
//! use directstream::config::{LoadOptions, parse};
//!
//! let loaded = parse(
//!     "job.toml",
//!     r#"
//!     name = "orders"
//!     [kafka]
//!     bootstrap_servers = "localhost:9092"
//!     topics = ["orders"]
//!     [store]
//!     url = "sqlite:orders.db"
//!     [[output]]
//!     table = "orders"
//!     create = true
//!     columns.body.from = "value"
//!     "#,
//!     &LoadOptions::default(),
//! )?;
//! assert_eq!(loaded.job.name, "orders");
//! # Ok::<(), directstream::config::Faults>(())
//! ```

mod effective;
mod fill;
mod finding;
mod job;
mod kafka;
mod load;
mod output;
mod properties;
mod read;
mod reference;
mod report;
mod secret;
mod store;
mod stream;
#[cfg(test)]
mod tests;
mod traces;
mod tree;
mod values;

pub use effective::{EffectiveValue, effective};
pub use finding::{Faults, Finding, Origin, Origins};
pub use job::{
    BATCH_DEADLINE_DEFAULT, BATCH_INTERVAL_DEFAULT, BackpressureConfig, CompatibleNames, ConsumerGroupMirror,
    FAILURES_VALIDITY_INTERVAL_DEFAULT, InputConfig, InputFormat, IsolationLevel, Job, KafkaConfig,
    LEDGER_RETENTION_DEFAULT, LISTEN_PORT_DEFAULT, MAX_FAILURES_DEFAULT, MEMORY_MAX_DEFAULT,
    MIN_RATE_PER_PARTITION_DEFAULT, Migrate, OnDataLoss, OnError, RETAINED_BATCHES_DEFAULT, ReportConfig,
    START_TIMEOUT_DEFAULT, StartPolicy, StoreConfig, StreamConfig, Subscription, UNAVAILABLE_MAX_DEFAULT,
    ZookeeperMirror,
};
pub use load::{Environment, LoadOptions, Loaded, load, parse};
pub use properties::is_printable;
pub use reference::{KEYS, Key, KeyDefault, markdown};
pub use secret::{Secret, StoreKind, StoreUrl};
pub use traces::TracesConfig;
