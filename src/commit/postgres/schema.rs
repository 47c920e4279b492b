//! Migrations of a PostgreSQL database.

use sqlx::{PgConnection, Row};

use super::{
    super::migrate::{self, Applied, Migration},
    error::{answer, long_answer, postgres_error},
};
use crate::{
    config::{Migrate, StoreKind},
    error::Result,
};

/// The lock under which the schema changes; of the transaction, so no crash leaves it behind. The number is "directst" in ASCII.
const LOCK: &str = "SELECT pg_catalog.pg_advisory_xact_lock(7235419171653546868)";
const CREATE: &str = "CREATE TABLE IF NOT EXISTS directstream.migrations (version bigint NOT NULL PRIMARY KEY, \
     name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())";

/// The migrations that the database has.
pub(in crate::commit) async fn applied(connection: &mut PgConnection) -> Result<Vec<Applied>> {
    const EXISTS: &str = "SELECT pg_catalog.to_regclass('directstream.migrations') IS NOT NULL";
    const ALL: &str = "SELECT version, name, checksum FROM directstream.migrations ORDER BY version";
    let what = "cannot read the schema's version";
    let exists: bool = answer(what, sqlx::query_scalar(EXISTS).fetch_one(&mut *connection)).await?;
    if !exists {
        return Ok(Vec::new());
    }
    let rows = answer(what, sqlx::query(ALL).fetch_all(connection)).await?;
    let failed = |error| postgres_error(what, error);
    let read = |row: &sqlx::postgres::PgRow| {
        Ok(Applied { version: row.try_get(0)?, name: row.try_get(1)?, checksum: row.try_get(2)? })
    };
    rows.iter().map(|row| read(row).map_err(failed)).collect()
}

/// Brings the schema up to date, or refuses it.
pub(super) async fn bring_up(connection: &mut PgConnection, migrate: Migrate) -> Result<()> {
    let pending = migrate::pending(StoreKind::Postgres, &applied(connection).await?)?;
    if pending.is_empty() {
        return Ok(());
    }
    match migrate {
        Migrate::Off => migrate::refuse_pending(pending),
        Migrate::Auto => up(connection).await.map(drop),
    }
}

async fn run(connection: &mut PgConnection, sql: &'static str) -> Result<()> {
    long_answer("cannot migrate the store", sqlx::raw_sql(sql).execute(connection)).await.map(drop)
}

/// Applies what is missing, in one transaction under a lock. An error leaves the transaction to the end of the session.
pub(in crate::commit) async fn up(connection: &mut PgConnection) -> Result<&'static [Migration]> {
    const HAS_SCHEMA: &str = "SELECT pg_catalog.to_regnamespace('directstream') IS NOT NULL";
    const NOTE: &str = "INSERT INTO directstream.migrations (version, name, checksum) VALUES ($1, $2, $3)";
    let what = "cannot migrate the store";
    run(connection, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
    run(connection, LOCK).await?;
    // Asked first: a role that may not create schemas can still use one that an operator made.
    let has: bool = answer(what, sqlx::query_scalar(HAS_SCHEMA).fetch_one(&mut *connection)).await?;
    if !has {
        run(connection, "CREATE SCHEMA directstream").await?;
    }
    run(connection, CREATE).await?;
    // Read again: another process may have migrated while we waited for the lock.
    let pending = migrate::pending(StoreKind::Postgres, &applied(connection).await?)?;
    for migration in pending {
        run(connection, migration.up).await?;
        let note = sqlx::query(NOTE).bind(migration.version).bind(migration.name).bind(migration.checksum());
        answer(what, note.execute(&mut *connection)).await?;
    }
    run(connection, "COMMIT").await?;
    Ok(pending)
}

/// Refuses to take tables from under a live owner. The lock waits for transactions that are open, so that an owner inside its
/// batch is seen as it is afterwards, and lets nobody become one.
async fn refuse_live_owner(connection: &mut PgConnection) -> Result<()> {
    const LOCK_OWNERS: &str = "LOCK TABLE directstream.applications IN ACCESS EXCLUSIVE MODE";
    // A session that is there counts whatever its age; one that this role may not see, if it was seen lately.
    const LIVE: &str = "SELECT a.application, COALESCE(a.host, '?'), COALESCE(a.process_id, 0) \
         FROM directstream.applications a LEFT JOIN pg_catalog.pg_stat_activity s ON s.pid = a.backend_pid \
         WHERE a.owner IS NOT NULL AND (s.backend_start = a.backend_start OR ((a.backend_pid IS NULL \
         OR s.pid IS NOT NULL AND s.backend_start IS NULL) AND a.seen_at > clock_timestamp() - interval '5 seconds')) \
         ORDER BY a.application LIMIT 1";
    run(connection, LOCK_OWNERS).await?;
    let what = "cannot look for live owners";
    let live = answer(what, sqlx::query_as::<_, (String, String, i64)>(LIVE).fetch_optional(connection)).await?;
    live.map_or(Ok(()), |(application, host, process_id)| Err(migrate::owned(&application, &host, process_id)))
}

/// Takes everything above `target` away, in one transaction under the lock; what was taken away.
pub(in crate::commit) async fn down(connection: &mut PgConnection, target: i64) -> Result<Vec<&'static Migration>> {
    run(connection, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
    run(connection, LOCK).await?;
    let have = applied(connection).await?;
    migrate::pending(StoreKind::Postgres, &have)?;
    let mut gone = Vec::new();
    let going = migrate::to_remove(StoreKind::Postgres, &have, target);
    if !going.is_empty() {
        refuse_live_owner(connection).await?;
    }
    for migration in going {
        run(connection, migration.down).await?;
        let delete = sqlx::query("DELETE FROM directstream.migrations WHERE version = $1").bind(migration.version);
        answer("cannot migrate the store", delete.execute(&mut *connection)).await?;
        gone.push(migration);
    }
    run(connection, "COMMIT").await?;
    Ok(gone)
}
