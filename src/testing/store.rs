//! A SQLite file that is gone afterwards, and what is in it.

use sqlx::{
    AssertSqlSafe, Column, Connection, Executor, Row, SqliteConnection, TypeInfo, ValueRef,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use tempfile::TempDir;

use crate::error::{Error, Result};

/// A store for one test: a SQLite file in a folder of its own, which is removed with it.
///
/// ```
/// use directstream::testing::TestStore;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let store = TestStore::new()?;
/// store.execute("CREATE TABLE orders (customer TEXT, total REAL)").await?;
/// store.execute("INSERT INTO orders VALUES ('ann', 12.5), (NULL, 3)").await?;
/// assert_eq!(store.rows("SELECT * FROM orders ORDER BY total DESC").await?, ["ann|12.5", "NULL|3"]);
/// # Ok::<(), directstream::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct TestStore {
    folder: TempDir,
}

impl TestStore {
    /// A store without tables.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no room for a temporary folder.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir();
        let folder = folder.map_err(|error| Error::config("cannot make a temporary folder").caused_by(error))?;
        Ok(Self { folder })
    }

    /// Its URL, for [`store`](crate::stream::StreamingContextBuilder::store).
    #[must_use]
    pub fn url(&self) -> String {
        format!("sqlite:{}", self.folder.path().join("test.db").display())
    }

    async fn connect(&self) -> Result<SqliteConnection> {
        let options = SqliteConnectOptions::new().filename(self.folder.path().join("test.db")).create_if_missing(true);
        SqliteConnection::connect_with(&options).await.map_err(|error| failed("cannot open the test's store", error))
    }

    /// Runs SQL, one statement or several: tables that the job's outputs write to, rows that are there before.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with what SQLite says.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        let mut connection = self.connect().await?;
        let done = connection.execute(AssertSqlSafe(sql.to_owned())).await;
        done.map(drop).map_err(|error| failed("cannot run the test's SQL", error))
    }

    /// The rows of a query, each as one text: its values with `|` between them, as SQLite's own shell prints them. A null is
    /// `NULL`, bytes are in hexadecimal.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with what SQLite says.
    pub async fn rows(&self, sql: &str) -> Result<Vec<String>> {
        let mut connection = self.connect().await?;
        let rows = connection.fetch_all(AssertSqlSafe(sql.to_owned())).await;
        let rows = rows.map_err(|error| failed("cannot run the test's query", error))?;
        rows.iter().map(text_of).collect()
    }
}

fn failed(what: &str, error: sqlx::Error) -> Error {
    Error::config(what).caused_by(error)
}

fn text_of(row: &SqliteRow) -> Result<String> {
    let values = row.columns().iter().map(|column| value_text(row, column.ordinal()));
    let values: Result<Vec<_>, sqlx::Error> = values.collect();
    values.map(|values| values.join("|")).map_err(|error| failed("cannot read a row of the test's query", error))
}

fn value_text(row: &SqliteRow, index: usize) -> Result<String, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok("NULL".to_owned());
    }
    let stored_as = raw.type_info().name().to_owned();
    // By what is stored, not by what the column was declared as: SQLite's columns hold anything.
    Ok(match stored_as.as_str() {
        "INTEGER" => row.try_get_unchecked::<i64, _>(index)?.to_string(),
        "REAL" => row.try_get_unchecked::<f64, _>(index)?.to_string(),
        "BLOB" => row.try_get_unchecked::<Vec<u8>, _>(index)?.iter().map(|byte| format!("{byte:02x}")).collect(),
        _ => row.try_get_unchecked::<String, _>(index)?,
    })
}
