//! A connection pooler that stands between this program and the server.
//!
//! The program needs a session of its own: for settings, temporary tables and prepared statements, and so that others can tell
//! whether it is there. A pooler that leaves the server's session to a client for as long as the client stays gives that. One
//! that gives it to others between two transactions does not, and is refused by whoever writes.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, postgres::PgConnectOptions};
use uuid::Uuid;

use super::error::{ANSWER_WITHIN, postgres_error, within};
use crate::error::{Error, Result};

/// The setting by which a session is recognised.
const NAME: &str = "directstream.session";
/// How long the pooler may take to give a second session.
const SECOND_WITHIN: Duration = Duration::from_secs(5);
/// A pooler with several free sessions may give the same one again by chance.
const LOOKS: u32 = 3;

/// A connection, and the server's process id of its session. `running`: the pooler was good at start.
pub(super) async fn connect(
    options: &PgConnectOptions,
    session: &str,
    limit: Duration,
    what: &str,
    running: bool,
) -> Result<(PgConnection, i32)> {
    // The server tells it back: a pooler refuses to pass it on, or keeps it to itself.
    let named = options.clone().options([(NAME, session)]);
    let mut connection = match within(limit, what, PgConnection::connect_with(&named)).await {
        Err(error) if error.to_string().contains("startup parameter") => {
            within(limit, what, PgConnection::connect_with(options)).await?
        }
        connected => connected?,
    };
    let (pid, told) = backend(&mut connection, limit, "cannot ask which session this is").await?;
    if told.as_deref() != Some(session) && !running {
        check_alone(options, &mut connection, pid).await?;
    }
    Ok((connection, pid))
}

/// A connection for whoever is not the committer and writes: a session of its own, or an error.
pub(in crate::commit) async fn connect_alone(options: &PgConnectOptions, what: &str) -> Result<PgConnection> {
    let session = Uuid::new_v4().to_string();
    connect(options, &session, ANSWER_WITHIN, what, false).await.map(|(connection, _)| connection)
}

/// The server's process id, and what it knows of the session's name. By the simple protocol: a prepared statement belongs to a
/// session, and whose this one is is the question.
async fn backend(connection: &mut PgConnection, limit: Duration, what: &str) -> Result<(i32, Option<String>)> {
    let sql = format!("SELECT pg_catalog.pg_backend_pid(), current_setting('{NAME}', true)");
    let row = within(limit, what, sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(connection)).await?;
    let read = |error| postgres_error(what, error);
    Ok((row.try_get(0).map_err(read)?, row.try_get(1).map_err(read)?))
}

/// Refuses a pooler that gives the session away while it is idle: another client must never get it, and ours must stay the same
/// while another client is inside a transaction.
async fn check_alone(options: &PgConnectOptions, connection: &mut PgConnection, pid: i32) -> Result<()> {
    let what = "cannot get a second session from the connection pooler";
    let mut other = within(SECOND_WITHIN, what, PgConnection::connect_with(options)).await?;
    for _ in 0..LOOKS {
        let mut alone = backend(&mut other, SECOND_WITHIN, what).await?.0 != pid;
        if alone {
            within(SECOND_WITHIN, what, sqlx::raw_sql("BEGIN").execute(&mut other)).await?;
            alone = backend(&mut other, SECOND_WITHIN, what).await?.0 != pid
                && backend(connection, SECOND_WITHIN, what).await?.0 == pid;
            within(SECOND_WITHIN, what, sqlx::raw_sql("ROLLBACK").execute(&mut other)).await?;
        }
        if !alone {
            return Err(Error::config(
                "a connection pooler stands between this program and the server and gives its session to other clients \
                 between two transactions: set pool_mode = session for this database or user, or connect to the server directly",
            ));
        }
    }
    Ok(())
}
