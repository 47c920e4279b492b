//! A job with real servers, and the program run on it.

use std::{
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Duration,
};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, FromRow, SqliteConnection, postgres::PgRow, sqlite::SqliteRow};

use super::{Ran, run};
use crate::support::{
    Database, JobFile, Kafka, Process, directstream, fresh_database, shared_kafka, unique, wait_until,
};

/// Enough for anything, on a machine that is busy with other tests.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

const OUTPUT: &str = r#"
[[output]]
table = "records"
create = true
columns.id = { from = "value:/id", type = "bigint" }
"#;

/// A job file in a folder of its own, its topic and its store.
pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) kafka: Kafka,
    pub(super) topic: String,
    /// `None`: a SQLite file in the folder.
    pub(super) database: Option<Database>,
}

impl World {
    pub(super) async fn postgres(partitions: i32) -> Self {
        Self::with(Some(fresh_database().await), partitions).await
    }

    /// On a database of the test's own.
    pub(super) async fn on(database: Database, partitions: i32) -> Self {
        Self::with(Some(database), partitions).await
    }

    pub(super) async fn sqlite(partitions: i32) -> Self {
        Self::with(None, partitions).await
    }

    async fn with(database: Option<Database>, partitions: i32) -> Self {
        let kafka = shared_kafka().await;
        let topic = kafka.topic(partitions).await;
        let folder = tempfile::tempdir().unwrap();
        let url = database.as_ref().map_or("sqlite:job.db", Database::url).to_owned();
        let job = JobFile::new(kafka.brokers(), &topic, &url).input("on_error = \"dead_letter\"");
        job.outputs(OUTPUT).write(folder.path());
        Self { folder, kafka, topic, database }
    }

    /// Produces `{"id":n}` for each n to one partition.
    pub(super) async fn produce(&self, partition: i32, ids: std::ops::Range<u32>) {
        let records = ids.map(|id| crate::support::record(format!(r#"{{"id":{id}}}"#)).partition(partition));
        self.kafka.produce(&self.topic, records.collect()).await;
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = directstream(arguments);
        command.current_dir(self.folder.path());
        command
    }

    /// Runs the program in the job's folder to its end.
    pub(super) fn run(&self, arguments: &[&str]) -> Ran {
        run(self.command(arguments))
    }

    /// The same with faults: how it ended, and what it told.
    pub(super) fn under_fire(&self, arguments: &[&str], failpoints: &str) -> (ExitStatus, String) {
        let ran = self.command(arguments).env("FAILPOINTS", failpoints).output().unwrap();
        (ran.status, String::from_utf8(ran.stderr).unwrap())
    }

    /// The JSON document of a command that succeeds.
    pub(super) fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(&[arguments, &["--output", "json"]].concat());
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
    }

    /// Starts the job in the background.
    pub(super) fn start(&self, arguments: &[&str]) -> Process {
        self.spawn(&[&["run", "job.toml"], arguments].concat())
    }

    /// Starts the program in the background.
    pub(super) fn spawn(&self, arguments: &[&str]) -> Process {
        self.spawn_under_fire(arguments, "")
    }

    /// The same with faults: `FAILPOINTS` of the program.
    pub(super) fn spawn_under_fire(&self, arguments: &[&str], failpoints: &str) -> Process {
        let mut command = self.command(arguments);
        command.env("FAILPOINTS", failpoints);
        Process::start(command, self.folder.path().join(unique("stderr")))
    }

    /// One of the program's own tables.
    pub(super) fn own(&self, table: &str) -> String {
        if self.database.is_some() { format!("directstream.{table}") } else { format!("directstream_{table}") }
    }

    pub(super) fn sqlite_file(&self) -> PathBuf {
        self.folder.path().join("job.db")
    }

    /// A number from the store; `None` while its tables are missing.
    pub(super) async fn number(&self, sql: String) -> Option<i64> {
        let row: sqlx::Result<(i64,)> = self.row(sql).await;
        row.ok().map(|row| row.0)
    }

    /// Runs statements as another client.
    pub(super) async fn execute(&self, sql: &str) {
        match &self.database {
            Some(database) => database.execute(sql).await,
            None => {
                let url = format!("sqlite:{}?mode=rwc", self.sqlite_file().display());
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
            }
        }
    }

    /// All rows of a query. Right after a kill a SQLite file wants recovery, which only a writer can do.
    pub(super) async fn rows<T>(&self, sql: &str) -> Vec<T>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow>,
    {
        match &self.database {
            Some(database) => database.rows(sql).await,
            None => {
                let url = format!("sqlite:{}?mode=rw", self.sqlite_file().display());
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap()
            }
        }
    }

    async fn row<T>(&self, sql: String) -> sqlx::Result<T>
    where
        T: Send + Unpin + for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow>,
    {
        let sql = AssertSqlSafe(sql);
        match &self.database {
            Some(database) => sqlx::query_as(sql).fetch_one(&mut database.connect().await).await,
            None => {
                let url = format!("sqlite:{}?mode=ro", self.sqlite_file().display());
                sqlx::query_as(sql).fetch_one(&mut SqliteConnection::connect(&url).await?).await
            }
        }
    }

    /// Rows in the output table, records in the ledger, and committed offsets, each summed: equal in a consistent state of a
    /// topic without gaps.
    pub(super) async fn sums(&self) -> [i64; 3] {
        let sql = format!(
            "SELECT (SELECT count(*) FROM records), \
             (SELECT CAST(coalesce(sum(records), 0) AS bigint) FROM {}), \
             (SELECT CAST(coalesce(sum(until_offset), 0) AS bigint) FROM {})",
            self.own("batches"),
            self.own("offsets")
        );
        let (rows, records, offsets): (i64, i64, i64) = self.row(sql).await.unwrap();
        [rows, records, offsets]
    }

    /// Waits until so many offsets are committed.
    pub(super) async fn committed(&self, count: i64) {
        let sql = format!("SELECT CAST(coalesce(sum(until_offset), 0) AS bigint) FROM {}", self.own("offsets"));
        let enough = async || self.number(sql.clone()).await.is_some_and(|sum| sum >= count);
        wait_until("records are committed", LIMIT, enough).await;
    }
}
