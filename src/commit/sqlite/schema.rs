//! Start checks and migrations of a SQLite file.

use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::{
    super::{
        migrate::{self, Applied, Migration},
        owner_file,
        protocol::Session,
        settings::StoreSettings,
    },
    error::sqlite_error,
};
use crate::{
    config::{Migrate, StoreKind, StoreUrl},
    error::{Error, Result},
};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS directstream_migrations (version INTEGER NOT NULL PRIMARY KEY, \
     name TEXT NOT NULL, checksum TEXT NOT NULL, \
     applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))";

/// Refuses a file that would not keep what was committed to it.
pub(super) async fn check_durability(connection: &mut SqliteConnection) -> Result<()> {
    let failed = |error| sqlite_error("cannot read the store's settings", error);
    let synchronous: i64 =
        sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *connection).await.map_err(failed)?;
    let journal: String =
        sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await.map_err(failed)?;
    let keys: i64 = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(&mut *connection).await.map_err(failed)?;
    if synchronous < 2 || journal != "wal" || keys != 1 {
        return Err(Error::config(format!(
            "the store's file cannot be opened as exactly-once needs it: synchronous=2 or 3, journal_mode=wal, foreign_keys=1; \
             found synchronous={synchronous} journal_mode={journal} foreign_keys={keys}"
        )));
    }
    Ok(())
}

/// The migrations that the file has.
pub(in crate::commit) async fn applied(connection: &mut SqliteConnection) -> Result<Vec<Applied>> {
    const EXISTS: &str = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'directstream_migrations'";
    const ALL: &str = "SELECT version, name, checksum FROM directstream_migrations ORDER BY version";
    let failed = |error| sqlite_error("cannot read the schema's version", error);
    let exists: i64 = sqlx::query_scalar(EXISTS).fetch_one(&mut *connection).await.map_err(failed)?;
    if exists == 0 {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(ALL).fetch_all(connection).await.map_err(failed)?;
    rows.iter()
        .map(|row| {
            Ok(Applied {
                version: row.try_get(0).map_err(failed)?,
                name: row.try_get(1).map_err(failed)?,
                checksum: row.try_get(2).map_err(failed)?,
            })
        })
        .collect()
}

/// Brings the schema up to date, or refuses it.
pub(super) async fn bring_up(connection: &mut SqliteConnection, migrate: Migrate) -> Result<()> {
    let pending = migrate::pending(StoreKind::Sqlite, &applied(connection).await?)?;
    if pending.is_empty() {
        return Ok(());
    }
    match migrate {
        Migrate::Off => migrate::refuse_pending(pending),
        Migrate::Auto => up(connection).await.map(drop),
    }
}

/// Applies what is missing, in one transaction under the file's lock; the names of what was applied.
pub(in crate::commit) async fn up(connection: &mut SqliteConnection) -> Result<Vec<&'static Migration>> {
    begin(connection).await?;
    let done = up_locked(connection).await;
    end(connection, done).await
}

async fn up_locked(connection: &mut SqliteConnection) -> Result<Vec<&'static Migration>> {
    let failed = |error| sqlite_error("cannot migrate the store", error);
    sqlx::query(CREATE).execute(&mut *connection).await.map_err(failed)?;
    // Read again: another process may have migrated while we waited for the lock.
    let pending = migrate::pending(StoreKind::Sqlite, &applied(connection).await?)?;
    for migration in pending {
        sqlx::raw_sql(migration.up).execute(&mut *connection).await.map_err(failed)?;
        sqlx::query("INSERT INTO directstream_migrations (version, name, checksum) VALUES ($1, $2, $3)")
            .bind(migration.version)
            .bind(migration.name)
            .bind(migration.checksum())
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
    }
    Ok(pending.iter().collect())
}

/// Takes everything above `target` away, in one transaction; the names of what was taken away.
pub(in crate::commit) async fn down(
    connection: &mut SqliteConnection,
    url: &StoreUrl,
    target: i64,
) -> Result<Vec<&'static Migration>> {
    begin(connection).await?;
    let done = down_locked(connection, url, target).await;
    end(connection, done).await
}

/// Refuses to take tables from under a live owner. The file's lock is held: nobody becomes one meanwhile.
async fn refuse_live_owner(connection: &mut SqliteConnection, url: &StoreUrl) -> Result<()> {
    const OWNERS: &str = "SELECT application, owner, COALESCE(host, '?'), COALESCE(process_id, 0) \
         FROM directstream_applications WHERE owner IS NOT NULL ORDER BY application";
    let failed = |error| sqlite_error("cannot look for live owners", error);
    let file = super::file_of(&super::options(&StoreSettings::new(url.clone(), "migrate"))?);
    let owners: Vec<(String, String, String, i64)> =
        sqlx::query_as(OWNERS).fetch_all(connection).await.map_err(failed)?;
    for (application, owner, host, process_id) in owners {
        let owner = owner.parse().map_err(|_| Error::corrupt("the stored owner is no uuid"))?;
        if owner_file::look(&file, owner) != Session::Gone {
            return Err(migrate::owned(&application, &host, process_id));
        }
    }
    Ok(())
}

async fn down_locked(
    connection: &mut SqliteConnection,
    url: &StoreUrl,
    target: i64,
) -> Result<Vec<&'static Migration>> {
    let failed = |error| sqlite_error("cannot migrate the store down", error);
    let have = applied(connection).await?;
    migrate::pending(StoreKind::Sqlite, &have)?;
    let mut gone = Vec::new();
    let going = migrate::to_remove(StoreKind::Sqlite, &have, target);
    if !going.is_empty() {
        refuse_live_owner(connection, url).await?;
    }
    for migration in going {
        sqlx::raw_sql(migration.down).execute(&mut *connection).await.map_err(failed)?;
        let delete = "DELETE FROM directstream_migrations WHERE version = $1";
        sqlx::query(delete).bind(migration.version).execute(&mut *connection).await.map_err(failed)?;
        gone.push(migration);
    }
    Ok(gone)
}

async fn begin(connection: &mut SqliteConnection) -> Result<()> {
    let begun = sqlx::query("BEGIN IMMEDIATE").execute(connection).await;
    begun.map(drop).map_err(|error| sqlite_error("cannot lock the store to migrate it", error))
}

async fn end<T>(connection: &mut SqliteConnection, done: Result<T>) -> Result<T> {
    let word = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = sqlx::query(AssertSqlSafe(word)).execute(connection).await;
    let done = done?;
    ended.map_err(|error| sqlite_error("cannot commit the migration", error))?;
    Ok(done)
}
