//! The tables of a job in either store, read by another connection.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use sqlx::{
    AssertSqlSafe, Connection, FromRow, SqliteConnection,
    postgres::PgRow,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use tempfile::TempDir;

use crate::support::{Database, fresh_database};

/// A store and what is in it.
pub(crate) enum Tables {
    Postgres(Database),
    Sqlite(TempDir),
}

/// A row of the append table: partition, offset, id, user, amount.
pub(crate) type Event = (i64, i64, i64, String, i64);

impl Tables {
    pub(crate) async fn postgres() -> Self {
        Self::Postgres(fresh_database().await)
    }

    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    fn file(folder: &TempDir) -> PathBuf {
        folder.path().join("tables.db")
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Postgres(database) => database.url().to_owned(),
            Self::Sqlite(folder) => format!("sqlite:{}", Self::file(folder).display()),
        }
    }

    /// One of the program's own tables.
    pub(crate) fn own(&self, table: &str) -> String {
        match self {
            Self::Postgres(_) => format!("directstream.{table}"),
            Self::Sqlite(_) => format!("directstream_{table}"),
        }
    }

    pub(crate) async fn rows<T>(&self, sql: String) -> sqlx::Result<Vec<T>>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow>,
    {
        match self {
            Self::Postgres(database) => {
                sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut database.connect().await).await
            }
            Self::Sqlite(folder) => {
                // Right after a kill the file wants recovery, which a reader cannot do: it must not wait for that by itself.
                let options = SqliteConnectOptions::new().filename(Self::file(folder)).read_only(true);
                let options = options.busy_timeout(Duration::from_millis(50));
                let mut connection = SqliteConnection::connect_with(&options).await?;
                sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut connection).await
            }
        }
    }

    /// Offsets below the committed ones, summed; `None` if there was no look at them: the program has not made its tables yet,
    /// or a SQLite file is held by its writer.
    pub(crate) async fn committed(&self) -> Option<i64> {
        let sql = format!("SELECT CAST(coalesce(sum(until_offset), 0) AS bigint) FROM {}", self.own("offsets"));
        let rows: sqlx::Result<Vec<(i64,)>> = self.rows(sql).await;
        rows.ok().map(|rows| rows[0].0)
    }

    /// How many rows one of the user's tables has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.rows::<(i64,)>(format!("SELECT count(*) FROM {table}")).await.unwrap()[0].0
    }

    /// The append table, sorted.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let sql = "SELECT part, off, id, usr, amount FROM events ORDER BY part, off";
        self.rows(sql.to_owned()).await.unwrap()
    }

    /// The running sums: user, total, number of records.
    pub(crate) async fn totals(&self) -> BTreeMap<String, (i64, i64)> {
        let rows: Vec<(String, i64, i64)> = self.rows("SELECT usr, total, n FROM totals".to_owned()).await.unwrap();
        rows.into_iter().map(|(user, total, n)| (user, (total, n))).collect()
    }

    /// The upsert table: user and the id seen last.
    pub(crate) async fn latest(&self) -> BTreeMap<String, i64> {
        let rows: Vec<(String, i64)> = self.rows("SELECT usr, id FROM latest".to_owned()).await.unwrap();
        rows.into_iter().collect()
    }

    /// Runs a statement; in a SQLite file that nobody uses.
    pub(crate) async fn execute(&self, sql: &str) {
        match self {
            Self::Postgres(database) => database.execute(sql).await,
            Self::Sqlite(folder) => {
                let options = SqliteConnectOptions::new().filename(Self::file(folder)).create_if_missing(true);
                let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// Puts the stored offset of a partition somewhere else.
    pub(crate) async fn move_offset(&self, partition: i32, until: i64) {
        let offsets = self.own("offsets");
        self.execute(&format!("UPDATE {offsets} SET until_offset = {until} WHERE partition = {partition}")).await;
        assert_eq!(self.offsets().await.get(&i64::from(partition)), Some(&until));
    }

    /// The epoch of the last take-over.
    pub(crate) async fn epoch(&self) -> i64 {
        self.rows::<(i64,)>(format!("SELECT epoch FROM {}", self.own("applications"))).await.unwrap()[0].0
    }

    /// Whether a statement of somebody sleeps in PostgreSQL.
    pub(crate) async fn sleeps(&self) -> bool {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        self.rows::<(i64,)>(sql.to_owned()).await.unwrap()[0].0 > 0
    }

    /// The leader epoch that is stored with the offset of partition 0.
    pub(crate) async fn leader_epoch(&self) -> Option<i64> {
        let sql = format!("SELECT CAST(leader_epoch AS bigint) FROM {} WHERE partition = 0", self.own("offsets"));
        let rows: Vec<(Option<i64>,)> = self.rows(sql).await.unwrap();
        rows[0].0
    }

    /// Lost ranges in the order of batches: partition, from, until if known, reason.
    pub(crate) async fn lost_ranges(&self) -> Vec<(i64, i64, Option<i64>, String)> {
        let columns = "CAST(partition AS bigint), from_offset, until_offset, reason";
        let sql = format!("SELECT {columns} FROM {} ORDER BY batch_seq, partition", self.own("lost_ranges"));
        self.rows(sql).await.unwrap()
    }

    /// Partition and offset of every row of the append table, sorted.
    pub(crate) async fn places(&self) -> Vec<(i64, i64)> {
        self.rows("SELECT part, off FROM events ORDER BY part, off".to_owned()).await.unwrap()
    }

    /// Rows of the table `counts`: partition and number.
    pub(crate) async fn counts(&self) -> BTreeMap<i64, i64> {
        let rows: Vec<(i64, i64)> = self.rows("SELECT part, n FROM counts".to_owned()).await.unwrap();
        rows.into_iter().collect()
    }

    /// The ledger's ranges in the order of batches: batch, partition, from, until, records, gaps.
    pub(crate) async fn ranges(&self) -> Vec<(i64, i64, i64, i64, i64, i64)> {
        let wide = |column: &str| format!("CAST({column} AS bigint)");
        let columns = ["batch_seq", "partition", "from_offset", "until_offset", "records", "gaps"].map(wide).join(", ");
        let table = self.own("batch_ranges");
        self.rows(format!("SELECT {columns} FROM {table} ORDER BY batch_seq, partition")).await.unwrap()
    }

    /// Partition and offset of every dead letter, sorted.
    pub(crate) async fn dead_letters(&self) -> Vec<(i64, i64)> {
        let table = self.own("dead_letters");
        let sql = format!("SELECT CAST(partition AS bigint), \"offset\" FROM {table} ORDER BY partition, \"offset\"");
        self.rows(sql).await.unwrap()
    }

    /// Records that the process which had the application last has committed. It may have found nothing left to do: then its
    /// epoch has no batch.
    pub(crate) async fn committed_last(&self) -> i64 {
        let (batches, applications) = (self.own("batches"), self.own("applications"));
        let sql = format!(
            "SELECT CAST(coalesce(sum(records), 0) AS bigint) FROM {batches} WHERE epoch = (SELECT epoch FROM {applications})"
        );
        self.rows::<(i64,)>(sql).await.unwrap()[0].0
    }

    /// The stored offsets by partition.
    pub(crate) async fn offsets(&self) -> BTreeMap<i64, i64> {
        let sql = format!("SELECT CAST(partition AS bigint), until_offset FROM {}", self.own("offsets"));
        let rows: Vec<(i64, i64)> = self.rows(sql).await.unwrap();
        rows.into_iter().collect()
    }
}
