//! The store's own tables: numbered, reversible, embedded in the program.

use xxhash_rust::xxh3::xxh3_64;

use crate::{
    config::StoreKind,
    error::{Error, Result},
};

/// One step of the schema.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Migration {
    /// Its number, from 1, without holes.
    pub(crate) version: i64,
    /// What it is about.
    pub(crate) name: &'static str,
    /// Makes it.
    pub(crate) up: &'static str,
    /// Takes it away.
    pub(crate) down: &'static str,
}

impl Migration {
    /// Over the text that makes it: a schema made by another text is another schema.
    pub(crate) fn checksum(&self) -> String {
        format!("{:016x}", xxh3_64(self.up.as_bytes()))
    }
}

macro_rules! migrations {
    ($store:literal: $($version:literal $name:literal $file:literal,)*) => {
        &[$(Migration {
            version: $version,
            name: $name,
            up: include_str!(concat!("../../migrations/", $store, "/", $file, ".up.sql")),
            down: include_str!(concat!("../../migrations/", $store, "/", $file, ".down.sql")),
        }),*]
    };
}

const POSTGRES: &[Migration] = migrations! { "postgres":
    1 "ledger" "0001_ledger",
    2 "dead_letters" "0002_dead_letters",
    3 "dead_letters_settled" "0003_dead_letters_settled",
    4 "dead_letters_timestamp_ms" "0004_dead_letters_timestamp_ms",
    5 "moved_offsets" "0005_moved_offsets",
    6 "state" "0006_state",
    7 "dead_letters_window" "0007_dead_letters_window",
    8 "outbox" "0008_outbox",
};
const SQLITE: &[Migration] = migrations! { "sqlite":
    1 "ledger" "0001_ledger",
    2 "dead_letters" "0002_dead_letters",
    3 "dead_letters_settled" "0003_dead_letters_settled",
    4 "dead_letters_timestamp_ms" "0004_dead_letters_timestamp_ms",
    5 "moved_offsets" "0005_moved_offsets",
    6 "state" "0006_state",
    7 "dead_letters_window" "0007_dead_letters_window",
    8 "outbox" "0008_outbox",
};

/// The migrations of this program.
pub(crate) fn embedded(kind: StoreKind) -> &'static [Migration] {
    match kind {
        StoreKind::Postgres => POSTGRES,
        StoreKind::Sqlite => SQLITE,
        StoreKind::Checkpoint | StoreKind::Kafka => &[],
    }
}

/// A migration that a database has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) version: i64,
    pub(crate) name: String,
    pub(crate) checksum: String,
}

/// What a database lacks, in order.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config): the database is newer than this program, or was made by other texts.
pub(crate) fn pending(kind: StoreKind, applied: &[Applied]) -> Result<&'static [Migration]> {
    let known = embedded(kind);
    let newest = known.len();
    if let Some(newer) = applied.iter().find(|have| usize::try_from(have.version).is_ok_and(|v| v > newest)) {
        return Err(Error::config(format!(
            "the store's schema is newer than this program: start the newer program, or migrate down with it first \
             schema={} program={newest}",
            applied.iter().map(|have| have.version).max().unwrap_or(newer.version)
        )));
    }
    for (have, want) in applied.iter().zip(known) {
        if have.version != want.version || have.checksum != want.checksum() {
            return Err(Error::config(format!(
                "the store's schema was made by another version of this migration version={} name={}",
                have.version, have.name
            )));
        }
    }
    Ok(&known[applied.len().min(newest)..])
}

/// For `store.migrate = "off"`: the schema must be there.
pub(crate) fn refuse_pending(pending: &[Migration]) -> Result<()> {
    let Some(first) = pending.first() else { return Ok(()) };
    Err(Error::config(format!(
        "the store's schema is older than this program and store.migrate is off: run `directstream migrate up` \
         missing_version={} missing_name={}",
        first.version, first.name
    )))
}

/// A live process owns an application: its tables must not go.
pub(crate) fn owned(application: &str, host: &str, process_id: i64) -> Error {
    Error::fenced(format!(
        "a live process owns an application of this store: stop it before its tables are removed application={application} \
         host={host} process_id={process_id}"
    ))
}

/// What has to go, the newest first, so that nothing above `target` is left.
pub(crate) fn to_remove(kind: StoreKind, applied: &[Applied], target: i64) -> Vec<&'static Migration> {
    let there = |migration: &&Migration| {
        migration.version > target && applied.iter().any(|have| have.version == migration.version)
    };
    embedded(kind).iter().rev().filter(there).collect()
}
