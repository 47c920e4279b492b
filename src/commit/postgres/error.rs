//! What PostgreSQL's errors mean.

use std::time::Duration;

use sqlx::postgres::PgDatabaseError;

use crate::error::{Error, ErrorKind, Result};

/// How long an answer may take to a statement that has little to do: above the server's `lock_timeout`, so that a lock is
/// told as one.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The same for COMMIT. An answer that is late is no harm: the batch is settled then by a write that waits for the row's lock, and
/// so for the end of a COMMIT that the server is still at.
pub(super) const COMMIT_WITHIN: Duration = Duration::from_secs(10);
/// The same for statements that move rows or run user code: above the server's `statement_timeout`.
const LONG_ANSWER_WITHIN: Duration = Duration::from_secs(330);

/// Waits for an answer, but not for ever: a network can fall silent, and the server's own time-outs are then told to nobody.
///
/// This does not cancel a transaction. The future is dropped together with the connection that it took, which closes the
/// socket; from `BEGIN` on, `COMMIT` included, that is a doubt like any other lost answer, and is settled as one: if the server
/// is merely slow, the settling write waits for it.
pub(super) async fn answer<T>(what: &str, future: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T> {
    within(ANSWER_WITHIN, what, future).await
}

/// [`answer`] for statements that may have much to do.
pub(super) async fn long_answer<T>(what: &str, future: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T> {
    within(LONG_ANSWER_WITHIN, what, future).await
}

/// [`answer`] within another limit.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T> {
    told(limit, what, future, postgres_error).await
}

/// [`long_answer`] to a statement that writes rows or checks constraints on them: an error tells whether it is about them.
pub(super) async fn rows_answer<T>(what: &str, future: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T> {
    let rows_error = |what: &str, error| {
        let refusal = state(&error).is_some_and(|state| is_refusal(&state));
        let error = postgres_error(what, error);
        if refusal { error.about_rows() } else { error }
    };
    told(LONG_ANSWER_WITHIN, what, future, rows_error).await
}

async fn told<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = Result<T, sqlx::Error>>,
    error: impl Fn(&str, sqlx::Error) -> Error,
) -> Result<T> {
    match tokio::time::timeout(limit, future).await {
        Ok(done) => done.map_err(|failed| error(what, failed)),
        Err(_) => Err(Error::unavailable(format!("{what}: the server did not answer seconds={}", limit.as_secs()))),
    }
}

/// The SQLSTATE of a server's error.
fn state(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}

/// Whether the error is a lock that was not to be had in time.
pub(super) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    state(error).as_deref() == Some("55P03")
}

/// Whether a row is refused for what it holds: data exceptions and broken constraints.
///
/// Not so the binary form itself (22P03, 22P04): if that is refused, a column has another type than at start, and every
/// record would become a dead letter.
fn is_refusal(state: &str) -> bool {
    matches!(state.get(..2), Some("22" | "23")) && !matches!(state, "22P03" | "22P04")
}

/// <https://www.postgresql.org/docs/15/errcodes-appendix.html>
fn kind_of(state: &str) -> ErrorKind {
    match (state.get(..2).unwrap_or(""), state) {
        (_, "42501") => ErrorKind::Config,
        // The transaction had failed before, and the error was swallowed.
        (_, "25P02") => ErrorKind::Transform,
        // No transaction, or no savepoint: user code ended it.
        (_, "25P01") | ("2D" | "3B", _) => ErrorKind::Transform,
        (_, "XX001" | "XX002") => ErrorKind::Corrupt,
        // Cardinality, data, integrity, limits of a row, and what triggers raise: the row is refused.
        ("21" | "22" | "23" | "27" | "38" | "39" | "44" | "54" | "P0", _) => ErrorKind::Transform,
        // Undefined and wrong objects, no such database or schema, what this server cannot do.
        ("0A" | "3D" | "3F" | "42", _) => ErrorKind::Config,
        // Connection, credentials, read-only or aborted transactions, rivals, resources, an operator's hand, the system.
        ("08" | "25" | "28" | "40" | "53" | "55" | "57" | "58" | "XX", _) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

/// The error for a statement of ours. No payload: a server's DETAIL and the message of a data error hold values, so neither
/// is kept.
pub(in crate::commit) fn postgres_error(what: &str, error: sqlx::Error) -> Error {
    let Some(state) = state(&error) else {
        let kind = match &error {
            sqlx::Error::Configuration(_) => ErrorKind::Config,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => ErrorKind::Corrupt,
            _ => ErrorKind::Unavailable,
        };
        return Error::new(kind, what).caused_by(error);
    };
    let mut kind = kind_of(&state);
    let mut text = format!("{what} sqlstate={state}");
    if let Some(server) = error.as_database_error() {
        let details = server.try_downcast_ref::<PgDatabaseError>();
        if kind != ErrorKind::Transform || matches!(state.as_str(), "25P01" | "25P02") {
            text = format!("{what}: {} sqlstate={state}", server.message());
        }
        // A pooler that does not know how to pass a parameter on: see `pooler`.
        if server.message().contains("startup parameter") {
            kind = ErrorKind::Config;
        }
        let named = [
            ("table", server.table()),
            ("constraint", server.constraint()),
            ("column", details.and_then(PgDatabaseError::column)),
        ];
        for (key, value) in named.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            text.push_str(&format!(" {key}={value}"));
        }
    }
    Error::new(kind, text)
}
