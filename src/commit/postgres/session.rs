//! The one session: how it is opened, and what the server must be.

use std::str::FromStr;

use sqlx::{PgConnection, Row, postgres::PgConnectOptions};

use super::{
    super::{protocol::Mark, settings::StoreSettings},
    error::{ANSWER_WITHIN, answer},
    pooler,
};
use crate::error::{Error, ErrorKind, Result};

/// `pg_stat_progress_copy` came with it, and `client_connection_check_interval`.
const SERVER_VERSION_MIN: u32 = 140_000;

/// What the session asks of the server, each only where the server has it. A client cannot end a statement safely, so the
/// server does:
///
/// * a lock that somebody holds for too long is an error that says so;
/// * a process that is stopped inside its transaction does not hold the application's row for ever;
/// * a client that is gone is noticed, also while the server works for it.
const SETTINGS: &str = "SELECT set_config(name, value, false) FROM (VALUES ('lock_timeout', '10s'), \
     ('statement_timeout', '300s'), ('idle_in_transaction_session_timeout', '10s'), ('tcp_user_timeout', '10s'), \
     ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '2'), ('tcp_keepalives_count', '3'), \
     ('client_connection_check_interval', '2s'), ('idle_session_timeout', '0')) wanted(name, value) \
     WHERE EXISTS (SELECT FROM pg_catalog.pg_settings s WHERE s.name = wanted.name)";

/// An open session.
pub(super) struct Session {
    pub(super) connection: PgConnection,
    pub(super) mark: Option<Mark>,
    pub(super) pid: i32,
}

/// How to connect.
///
/// # Errors
/// [`ErrorKind::Config`] without any part of the URL that may be secret, and as [`StoreUrl::read_again`](crate::config::StoreUrl::read_again).
pub(in crate::commit) fn options(settings: &StoreSettings) -> Result<PgConnectOptions> {
    let url = settings.url.read_again()?;
    let options = PgConnectOptions::from_str(url.expose()).map_err(|error| {
        Error::config(format!("the store's url cannot be read url={}", settings.url)).caused_by(error)
    })?;
    // Seen in `pg_stat_activity`; the server cuts it at 63 bytes. The client's other parameter is the server's own default by
    // now, and a pooler would refuse it.
    Ok(options.application_name(&format!("directstream {}", settings.application)).extra_float_digits(None))
}

/// Opens the session. `running`: a server that cannot be written to may be one that is being promoted; at start it is a
/// configuration that names the wrong server.
pub(super) async fn open(options: &PgConnectOptions, settings: &StoreSettings, running: bool) -> Result<Session> {
    let session = settings.owner.to_string();
    let what = format!("cannot connect to the store url={}", settings.url);
    // At start nothing is in doubt, so a server that takes the connection and then says nothing is not waited for longer.
    let limit = if running { ANSWER_WITHIN } else { settings.start_timeout.min(ANSWER_WITHIN) };
    let (mut connection, pid) = pooler::connect(options, &session, limit, &what, running).await?;
    let version = connection.server_version_num().unwrap_or(0);
    if version != 0 && version < SERVER_VERSION_MIN {
        return Err(Error::config(format!("the store needs PostgreSQL 14 or newer server_version_num={version}")));
    }
    check(&mut connection, running).await?;
    answer("cannot set up the session", sqlx::query(SETTINGS).execute(&mut connection)).await?;
    let mark = mark(&mut connection).await?;
    Ok(Session { connection, mark, pid })
}

/// Refuses a server that would not keep what it commits, or that cannot be written to.
async fn check(connection: &mut PgConnection, running: bool) -> Result<()> {
    const CHECK: &str = "SELECT pg_catalog.pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', \
         current_setting('synchronous_commit'), current_setting('fsync')";
    let what = "cannot check the server";
    let row = answer(what, sqlx::query(CHECK).fetch_one(connection)).await?;
    let read = |error| super::error::postgres_error(what, error);
    let refused = if running { ErrorKind::Unavailable } else { ErrorKind::Config };
    if row.try_get(0).map_err(read)? {
        return Err(Error::new(refused, "the store is a standby: name the primary"));
    }
    if row.try_get(1).map_err(read)? {
        return Err(Error::new(refused, "the store is read-only default_transaction_read_only=on"));
    }
    let synchronous: String = row.try_get(2).map_err(read)?;
    let fsync: String = row.try_get(3).map_err(read)?;
    if synchronous == "off" || fsync == "off" {
        return Err(Error::config(format!(
            "the server forgets commits that it answered when it crashes: turn both on synchronous_commit={synchronous} \
             fsync={fsync}"
        )));
    }
    Ok(())
}

/// Which database and timeline this is, where the role may know.
async fn mark(connection: &mut PgConnection) -> Result<Option<Mark>> {
    const MAY: &str = "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'execute') \
         AND has_function_privilege('pg_catalog.pg_walfile_name(pg_lsn)', 'execute')";
    // The first eight digits of a WAL file's name; the control file tells a new timeline only after a checkpoint.
    const MARK: &str = "SELECT system_identifier, ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), \
         1, 8))::bit(32)::bigint FROM pg_catalog.pg_control_system()";
    let what = "cannot read the server's identity";
    let may: bool = answer(what, sqlx::query_scalar(MAY).fetch_one(&mut *connection)).await?;
    if !may {
        return Ok(None);
    }
    let row = answer(what, sqlx::query(MARK).fetch_one(connection)).await?;
    let read = |error| super::error::postgres_error(what, error);
    Ok(Some(Mark { system: row.try_get(0).map_err(read)?, timeline: row.try_get(1).map_err(read)? }))
}
