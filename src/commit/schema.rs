//! The store's own tables for whoever is not the committer, as the migrate command: up, down and status.

use super::{
    link::Link,
    migrate::{self, Applied, Migration},
    postgres, sqlite,
};
use crate::{
    config::{StoreKind, StoreUrl},
    error::{Error, Result},
};

/// A migration of this program, and whether the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its number.
    pub version: i64,
    /// What it is about.
    pub name: String,
    /// Whether the store has it.
    pub applied: bool,
}

/// Which migrations there are, and which of them the store has.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) if the store is newer than this program or was made by other texts,
/// [`Unavailable`](crate::ErrorKind::Unavailable) if it does not answer.
pub async fn migration_status(url: &StoreUrl) -> Result<Vec<MigrationStatus>> {
    let applied = if Link::is_there(url)? { connect(url).await?.applied().await? } else { Vec::new() };
    migrate::pending(url.kind(), &applied)?;
    let status = |known: &Migration| MigrationStatus {
        version: known.version,
        name: known.name.to_owned(),
        applied: applied.iter().any(|have| have.version == known.version),
    };
    Ok(migrate::embedded(url.kind()).iter().map(status).collect())
}

/// Brings the store's own tables up to date, in one transaction under a lock; the numbers of what was applied.
///
/// # Errors
/// As [`migration_status`]; [`Config`](crate::ErrorKind::Config) also behind a pooler that gives sessions away between
/// transactions.
pub async fn migrate_up(url: &StoreUrl) -> Result<Vec<i64>> {
    let done: Vec<&Migration> = match &mut connect_to_write(url).await? {
        Link::Postgres(link) => postgres::up(link).await?.iter().collect(),
        Link::Sqlite(link) => sqlite::up(link).await?,
        Link::Checkpoint(_) => return Err(nothing_to_migrate()),
    };
    Ok(done.iter().map(|migration| migration.version).collect())
}

/// Takes away every migration above `target`, the newest first, in one transaction under a lock: what its tables hold is
/// lost. The numbers of what was taken away.
///
/// # Errors
/// As [`migrate_up`]; [`Fenced`](crate::ErrorKind::Fenced) while a live process owns an application of this store.
pub async fn migrate_down(url: &StoreUrl, target: i64) -> Result<Vec<i64>> {
    if !Link::is_there(url)? {
        return Ok(Vec::new());
    }
    let done = match &mut connect_to_write(url).await? {
        Link::Postgres(link) => postgres::down(link, target).await?,
        Link::Sqlite(link) => sqlite::down(link, url, target).await?,
        Link::Checkpoint(_) => return Err(nothing_to_migrate()),
    };
    Ok(done.iter().map(|migration| migration.version).collect())
}

/// What the session is called on the server.
const SESSION: &str = "migrate";

async fn connect(url: &StoreUrl) -> Result<Link> {
    if url.kind() == StoreKind::Checkpoint {
        return Err(nothing_to_migrate());
    }
    Link::connect(url, SESSION).await
}

async fn connect_to_write(url: &StoreUrl) -> Result<Link> {
    if url.kind() == StoreKind::Checkpoint {
        return Err(nothing_to_migrate());
    }
    Link::connect_to_write(url, SESSION).await
}

fn nothing_to_migrate() -> Error {
    Error::config("a checkpoint folder has no tables to migrate")
}

/// Refuses a store that cannot be read with this program's statements.
pub(super) fn schema_of(kind: StoreKind, applied: &[Applied]) -> Result<()> {
    if applied.is_empty() {
        return Err(Error::config(
            "the store has no tables of ours yet: run the job once, or `directstream migrate up`",
        ));
    }
    migrate::refuse_pending(migrate::pending(kind, applied)?)
}
