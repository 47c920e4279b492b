//! What SQLite's errors mean.

use crate::error::{Error, ErrorKind};

/// <https://www.sqlite.org/rescode.html>, the low byte of the extended code.
fn primary(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// Whether another connection holds a lock.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary(error), Some(5 | 6))
}

/// What a trigger of the user's raises: a text of theirs, which may hold values.
fn is_raised(error: &sqlx::Error) -> bool {
    const CONSTRAINT_TRIGGER: &str = "1811";
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == CONSTRAINT_TRIGGER)
}

/// The error for a statement of ours. SQLite's own texts name tables, columns and constraints, never values; what a trigger
/// says is left out.
pub(in crate::commit) fn sqlite_error(what: &str, error: sqlx::Error) -> Error {
    let kind = match primary(&error) {
        // BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL, NOMEM, INTERRUPT
        Some(5 | 6 | 7 | 8 | 9 | 10 | 13 | 14 | 15) => ErrorKind::Unavailable,
        // CORRUPT, NOTADB
        Some(11 | 26) => ErrorKind::Corrupt,
        // TOOBIG, CONSTRAINT, MISMATCH
        Some(18..=20) => ErrorKind::Transform,
        // ERROR: a sum out of range is the record's fault, anything else an object that is not as it should be
        Some(_) if is_overflow(&error) => ErrorKind::Transform,
        Some(_) => ErrorKind::Config,
        None => match &error {
            sqlx::Error::Configuration(_) => ErrorKind::Config,
            // A value that does not decode was put there by somebody else.
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => ErrorKind::Corrupt,
            _ => ErrorKind::Unavailable,
        },
    };
    if is_raised(&error) {
        return Error::new(kind, format!("{what}: a trigger refused a row code=1811"));
    }
    Error::new(kind, what).caused_by(error)
}

/// The error of a statement that writes rows or checks constraints on them: tells whether it is about them.
pub(super) fn rows_error(what: &str, error: sqlx::Error) -> Error {
    // CONSTRAINT, MISMATCH
    let refusal = matches!(primary(&error), Some(19 | 20)) || is_overflow(&error);
    let error = sqlite_error(what, error);
    if refusal { error.about_rows() } else { error }
}

fn is_overflow(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.message().contains("integer overflow"))
}
