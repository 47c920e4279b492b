//! The user's own SQL in the batch's transaction.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use sqlx::{
    Arguments, AssertSqlSafe, Column as _, Row, SqliteConnection, TypeInfo, ValueRef,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::{
    super::{ledger::signed, settings::StoreSettings, statements::refuse_transaction_control, user_code},
    error::sqlite_error,
};
use crate::{
    config::StoreKind,
    error::{Error, ErrorKind, Result},
    failpoint,
    types::{BatchCommit, Cell, TransactionSql, Value, rows::rfc3339},
};

const GUARD: &str = "cannot guard the transaction";

/// Runs all user code of a batch between SAVEPOINT and RELEASE.
///
/// That alone would not stop code that commits: its rows and the tables' would stay, without offsets. So `open_seq` names,
/// from here on, a ledger row that is written last: a COMMIT before it breaks a foreign key, and fails.
pub(super) async fn run(
    connection: &mut SqliteConnection,
    settings: &StoreSettings,
    batch: &BatchCommit,
) -> Result<()> {
    const OPEN: &str = "UPDATE directstream_applications SET open_seq = $1 WHERE application = $2";
    if batch.user_code.is_empty() {
        return Ok(());
    }
    if !failpoint::mutant("no_open_seq") {
        let open = sqlx::query(OPEN).bind(signed(batch.batch_seq)).bind(&settings.application);
        open.execute(&mut *connection).await.map_err(|error| sqlite_error(GUARD, error))?;
    }
    let _interrupt = Interrupt::arm(connection).await?;
    let info = user_code::info_of(batch);
    let all = async {
        for code in &batch.user_code {
            execute(connection, "SAVEPOINT directstream_user_code").await?;
            let mut sql = UserSql { connection, failure: None };
            user_code::run(Arc::clone(code), info.clone(), &mut sql).await?;
            // An error that the code swallowed: PostgreSQL would have given the transaction up, so it is given up here as well.
            if let Some(error) = sql.failure {
                return Err(error);
            }
            execute(connection, "RELEASE directstream_user_code").await?;
        }
        Ok(())
    };
    user_code::in_time(settings.batch_deadline, &info, all).await?;
    Interrupt::disarm(connection).await
}

/// Ends the statement that the connection's thread is at when it is dropped, unless the handler was taken away before: SQLite
/// itself sees no deadline, and whoever closes the connection waits for its thread.
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    async fn arm(connection: &mut SqliteConnection) -> Result<Self> {
        /// Steps of SQLite's machine from one look to the next: some ten thousandths of a second.
        const LOOK_EVERY: i32 = 10_000;
        let over = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&over);
        let mut handle = connection.lock_handle().await.map_err(|error| sqlite_error(GUARD, error))?;
        handle.set_progress_handler(LOOK_EVERY, move || !asked.load(Ordering::Relaxed));
        Ok(Self(over))
    }

    async fn disarm(connection: &mut SqliteConnection) -> Result<()> {
        let mut handle = connection.lock_handle().await.map_err(|error| sqlite_error(GUARD, error))?;
        handle.remove_progress_handler();
        Ok(())
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Result<()> {
    let done = sqlx::query(sql).execute(connection).await;
    done.map(drop).map_err(|error| user_error("user code broke the batch's transaction", error))
}

/// Any failure that is not the store's is the user's.
fn user_error(what: &str, error: sqlx::Error) -> Error {
    let error = sqlite_error(what, error);
    if error.kind() == ErrorKind::Config { Error::transform(what).caused_by(error) } else { error }
}

struct UserSql<'c> {
    connection: &'c mut SqliteConnection,
    /// The first error, as a copy: the code got the error itself.
    failure: Option<Error>,
}

impl UserSql<'_> {
    fn note(&mut self, error: Error) -> Error {
        self.failure.get_or_insert_with(|| Error::new(error.kind(), error.chain()));
        error
    }

    /// The parameters of a statement that user code may run.
    fn bind(&mut self, sql: &str, parameters: &[Value<'_>]) -> Result<SqliteArguments> {
        let bound = refuse_transaction_control(StoreKind::Sqlite, sql).and_then(|()| bind(parameters));
        bound.map_err(|error| self.note(error))
    }
}

#[async_trait]
impl TransactionSql for UserSql<'_> {
    async fn execute(&mut self, sql: &str, parameters: &[Value<'_>]) -> Result<u64> {
        let arguments = self.bind(sql, parameters)?;
        let done = sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut *self.connection).await;
        done.map(|done| done.rows_affected())
            .map_err(|error| self.note(user_error("user code's statement failed", error)))
    }

    async fn fetch(&mut self, sql: &str, parameters: &[Value<'_>]) -> Result<Vec<Vec<Cell>>> {
        let arguments = self.bind(sql, parameters)?;
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments).fetch_all(&mut *self.connection).await;
        let cells = rows.and_then(|rows| rows.iter().map(cells).collect());
        cells.map_err(|error| self.note(user_error("user code's query failed", error)))
    }
}

fn bind(parameters: &[Value<'_>]) -> Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    for parameter in parameters {
        let bound = match parameter {
            Value::Null => arguments.add(None::<i64>),
            Value::Bool(value) => arguments.add(i64::from(*value)),
            Value::Int(value) => arguments.add(*value),
            Value::Double(value) => arguments.add(*value),
            Value::Number(text) | Value::Text(text) | Value::Json(text) => arguments.add(text.to_string()),
            Value::Bytes(bytes) => arguments.add(bytes.to_vec()),
            Value::TimestampMicros(micros) => {
                arguments.add(rfc3339(*micros).map_err(|refusal| Error::transform(refusal.to_string()))?)
            }
        };
        bound.map_err(|error| Error::transform("cannot bind a parameter").caused_by(error))?;
    }
    Ok(arguments)
}

fn cells(row: &SqliteRow) -> Result<Vec<Cell>, sqlx::Error> {
    let cell = |index: usize| {
        let raw = row.try_get_raw(index)?;
        if raw.is_null() {
            return Ok(Value::Null);
        }
        // What the value is, not what its column was declared as.
        Ok(match raw.type_info().name() {
            "INTEGER" | "BOOLEAN" => Value::Int(row.try_get_unchecked(index)?),
            "REAL" => Value::Double(row.try_get_unchecked(index)?),
            "BLOB" => Value::Bytes(row.try_get_unchecked::<Vec<u8>, _>(index)?.into()),
            _ => Value::Text(row.try_get_unchecked::<String, _>(index)?.into()),
        })
    };
    row.columns().iter().map(|column| cell(column.ordinal())).collect()
}
