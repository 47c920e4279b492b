//! A job with real servers, and the program run on it.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, FromRow, SqliteConnection, postgres::PgRow, sqlite::SqliteRow};

use super::{Ran, directstream, run};
use crate::support::{Database, Kafka, fresh_database, shared_kafka, wait_for, wait_until};

/// Enough for anything, on a machine that is busy with other tests.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

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
        let url = database.as_ref().map_or("sqlite:job.db", Database::url);
        let job = format!(
            r#"name = "job"
[kafka]
bootstrap_servers = "{}"
topics = ["{topic}"]
[stream]
batch_interval = "50ms"
[input]
on_error = "dead_letter"
[store]
url = "{url}"
[report]
listen = "off"
[[output]]
table = "records"
create = true
columns.id = {{ from = "value:/id", type = "bigint" }}
"#,
            kafka.brokers()
        );
        fs::write(folder.path().join("job.toml"), job).unwrap();
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
    pub(super) fn start(&self, arguments: &[&str]) -> Running {
        self.spawn(&[&["run", "job.toml"], arguments].concat())
    }

    /// Starts the program in the background.
    pub(super) fn spawn(&self, arguments: &[&str]) -> Running {
        self.spawn_under_fire(arguments, "")
    }

    /// The same with faults: `FAILPOINTS` of the program.
    pub(super) fn spawn_under_fire(&self, arguments: &[&str], failpoints: &str) -> Running {
        let stderr = self.folder.path().join(crate::support::unique("stderr"));
        let mut command = self.command(arguments);
        command.env("FAILPOINTS", failpoints);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&stderr).unwrap());
        Running { child: command.spawn().unwrap(), stderr }
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

/// A process of `directstream run`. Dropped, it is killed.
pub(super) struct Running {
    child: Child,
    stderr: PathBuf,
}

impl Running {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends a signal, by its name without SIG. By the shell: a small system has no program for it.
    pub(super) fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.id())]).status().unwrap();
        assert!(sent.success());
    }

    /// What it told so far.
    pub(super) fn told(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    /// Kills it; whether that is what it died of.
    pub(super) fn kill(mut self) -> bool {
        let lived = self.child.try_wait().unwrap().is_none();
        self.child.kill().unwrap();
        lived && self.child.wait().unwrap().signal() == Some(9)
    }

    /// Waits for its end: its exit code and what it told.
    pub(super) async fn ended(mut self) -> (Option<i32>, String) {
        let status = wait_for("the program ends", LIMIT, async || self.child.try_wait().unwrap()).await;
        (status.code(), fs::read_to_string(&self.stderr).unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
