//! Real servers and small helpers for the tests.
//!
//! Which server a test gets, in this order:
//! 1. `TEST_KAFKA=host:port`, `TEST_POSTGRES=host:port`: a server of yours (Kafka's command-line tools must then be in the
//!    `PATH`; PostgreSQL: user, password and database `postgres`);
//! 2. a container of `TEST_KAFKA_IMAGE`, `TEST_POSTGRES_IMAGE`, by default of the official image.
//!
//! ZooKeeper is always a container, of `TEST_ZOOKEEPER_IMAGE` or the official image.
//!
//! There is no third way and no skipping: without a Docker engine a test fails and says how to get one. Tests that break
//! a server always start one of their own.

mod browser;
mod console;
mod cutter;
mod example;
mod http;
mod image;
mod job_file;
pub(crate) mod kafka;
pub(crate) mod postgres;
mod process;
mod reaper;
pub(crate) mod server;
mod sweep;
mod wait;
mod zookeeper;

pub(crate) use browser::Browser;
pub(crate) use console::Seen;
pub(crate) use cutter::{Cutter, Fault};
pub(crate) use example::{example_names, example_program, run_example};
pub(crate) use http::{get, query};
pub(crate) use image::{Image, PROMETHEUS_PORT, ZOOKEEPER_PORT, kafka, postgres, program, prometheus, zookeeper};
pub(crate) use job_file::JobFile;
pub(crate) use kafka::{End, Kafka, Record, record, shared_kafka};
pub(crate) use postgres::{Database, fresh_database};
pub(crate) use process::{Process, death, directstream};
pub(crate) use server::{Server, free_port};
pub(crate) use wait::{wait_for, wait_until, wait_until_stopped};
pub(crate) use zookeeper::shared_zookeeper;

use std::sync::atomic::{AtomicU32, Ordering};

/// A name that no other test of this machine uses now.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
