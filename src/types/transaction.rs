//! The batch's transaction, as it is lent to the user's code.

use std::fmt;

use async_trait::async_trait;

use super::{BatchInfo, Value};
use crate::error::Result;

/// A value that came out of the database.
pub type Cell = Value<'static>;

/// SQL inside the batch's transaction; each store has its own.
#[async_trait]
pub trait TransactionSql: Send {
    /// Runs one statement with bound parameters; gives the number of rows it changed.
    async fn execute(&mut self, sql: &str, parameters: &[Value<'_>]) -> Result<u64>;

    /// Runs one query with bound parameters; gives its rows.
    async fn fetch(&mut self, sql: &str, parameters: &[Value<'_>]) -> Result<Vec<Vec<Cell>>>;
}

/// The batch's own transaction, lent to the user's code. What it writes is committed with the batch's results and
/// offsets, or not at all. It cannot commit or roll back: SQL that controls the transaction is refused before the database sees
/// it (`BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT` and their like; `PRAGMA`, `ATTACH` and `DETACH` on SQLite), and so is the batch.
pub struct BatchTransaction<'a> {
    sql: &'a mut dyn TransactionSql,
    batch: &'a BatchInfo,
}

impl<'a> BatchTransaction<'a> {
    pub(crate) fn new(sql: &'a mut dyn TransactionSql, batch: &'a BatchInfo) -> Self {
        Self { sql, batch }
    }

    /// The batch, with all its ranges.
    #[must_use]
    pub fn batch(&self) -> &BatchInfo {
        self.batch
    }

    /// Runs one statement. Parameters are `$1`, `$2`, ... on both stores.
    ///
    /// # Errors
    /// What the database says; the batch is then rolled back and the stream ends with exit code 6, or retries if the
    /// database was unavailable.
    pub async fn execute(&mut self, sql: &str, parameters: &[Value<'_>]) -> Result<u64> {
        self.sql.execute(sql, parameters).await
    }

    /// Runs one query and gives its rows.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn fetch(&mut self, sql: &str, parameters: &[Value<'_>]) -> Result<Vec<Vec<Cell>>> {
        self.sql.fetch(sql, parameters).await
    }
}

impl fmt::Debug for BatchTransaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchTransaction").field("batch", self.batch).finish_non_exhaustive()
    }
}

/// The user's code that runs in the batch's transaction.
#[async_trait]
pub trait TransactionCode: Send + Sync + fmt::Debug {
    /// Runs once per attempt to commit the batch: it must be ready to run again after a rollback.
    async fn run(&self, transaction: &mut BatchTransaction<'_>) -> Result<()>;
}
