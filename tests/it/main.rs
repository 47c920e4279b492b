//! The integration tests: one binary, so that all tests share one Kafka and one PostgreSQL.
//!
//! They need real servers: `scripts/test` gets them and runs everything; see [`support`] for how a server is chosen.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says what it saw, and waits by the real clock"
)]

mod cli;
mod examples;
mod fire;
mod main_job;
mod mirrors;
mod reader;
mod servers;
mod store;
mod support;
mod tidy;
mod watch;
mod web_page;
