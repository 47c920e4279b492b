//! A store for one test, and what batches are made of.

use std::{path::PathBuf, time::Duration};

use directstream::{
    BatchTime, Offset, OffsetRange, TopicPartition,
    clock::SystemClock,
    commit::{
        Commit, CommitOutcome, Committer, Inspector, Ownership, Recovered, StoreHealth, StoreSettings, StoredPosition,
        TableShape,
    },
    types::{
        BatchCommit, Column, ColumnType, CommittedRange, EncodedRows, Field, Merge, RangeCounts, RowWriter, TableRows,
        TableSpec, Value, WriteMode,
    },
};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::{Database, fresh_database};

/// A fresh store.
pub(crate) struct World {
    kind: Kind,
}

enum Kind {
    Sqlite(TempDir),
    Postgres(Database),
    /// No tables.
    Checkpoint(TempDir),
}

pub(crate) const APPLICATION: &str = "orders";

impl World {
    pub(crate) fn sqlite() -> Self {
        Self { kind: Kind::Sqlite(tempfile::tempdir().unwrap()) }
    }

    pub(crate) fn checkpoint() -> Self {
        Self { kind: Kind::Checkpoint(tempfile::tempdir().unwrap()) }
    }

    /// [`lines`], where there are tables.
    pub(crate) fn lines(&self) -> Vec<TableSpec> {
        if matches!(self.kind, Kind::Checkpoint(_)) { Vec::new() } else { vec![lines()] }
    }

    /// [`line_batch`], without its rows where there are no tables.
    pub(crate) fn line_batch(&self, recovered: &Recovered, batch_seq: u64, from: i64, until: i64) -> BatchCommit {
        match recovered.tables.first() {
            Some(shape) => line_batch(shape, batch_seq, from, until),
            None => batch(batch_seq, vec![moved(0, from, until)], Vec::new()),
        }
    }

    /// How many lines were written, and how many different ones; without tables, the records of the ledger.
    pub(crate) async fn lines_written(&self) -> (i64, i64) {
        if let Kind::Checkpoint(_) = &self.kind {
            let batches = self.inspector().await.batches(u32::MAX).await.unwrap();
            let records = batches.iter().map(|batch| i64::try_from(batch.records).unwrap()).sum();
            return (records, records);
        }
        (self.count("lines").await, self.number("SELECT count(DISTINCT id) FROM lines").await)
    }

    pub(crate) async fn inspector(&self) -> Inspector {
        Inspector::open(&self.url().parse().unwrap(), APPLICATION).await.unwrap()
    }

    /// The application's folder.
    pub(crate) fn folder(&self) -> PathBuf {
        let Kind::Checkpoint(dir) = &self.kind else { panic!("a checkpoint folder only") };
        dir.path().join("store").join(APPLICATION)
    }

    /// The grounds of all take-overs, the oldest first.
    pub(crate) async fn grounds(&self) -> Vec<String> {
        if let Kind::Checkpoint(_) = &self.kind {
            let files = std::fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().path());
            let newest = files.filter(|path| path.extension().is_some_and(|end| end == "snapshot")).max().unwrap();
            let text = std::fs::read_to_string(newest).unwrap();
            let body: serde_json::Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
            let takeovers = body["state"]["takeovers"].as_array().unwrap();
            return takeovers.iter().map(|one| one["grounds"].as_str().unwrap().to_owned()).collect();
        }
        self.texts(&format!("SELECT grounds FROM {} ORDER BY epoch", self.own("takeovers"))).await
    }

    pub(crate) async fn postgres() -> Self {
        Self { kind: Kind::Postgres(fresh_database().await) }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self.kind, Kind::Postgres(_))
    }

    pub(crate) fn url(&self) -> String {
        match &self.kind {
            Kind::Postgres(database) => database.url().to_owned(),
            Kind::Sqlite(dir) => format!("sqlite:{}/orders.db", dir.path().display()),
            Kind::Checkpoint(dir) => format!("checkpoint:{}/store", dir.path().display()),
        }
    }

    /// The store's own table of this name.
    pub(crate) fn own(&self, table: &str) -> String {
        match &self.kind {
            Kind::Sqlite(_) => format!("directstream_{table}"),
            Kind::Postgres(_) => format!("directstream.{table}"),
            Kind::Checkpoint(_) => no_tables(),
        }
    }

    /// Settings that do not wait long.
    pub(crate) fn settings(&self) -> StoreSettings {
        let mut settings = StoreSettings::new(self.url().parse().unwrap(), APPLICATION);
        settings.start_timeout = Duration::from_secs(5);
        settings.unavailable_max = Duration::from_secs(20);
        settings
    }

    /// Starts a committer.
    pub(crate) async fn try_start(&self, settings: StoreSettings) -> directstream::Result<(Committer, Recovered)> {
        let (health, _) = watch::channel(StoreHealth::Waiting);
        Committer::start(settings, SystemClock::shared(), health).await
    }

    /// Starts a committer that writes to these tables.
    pub(crate) async fn start(&self, tables: Vec<TableSpec>) -> (Committer, Recovered) {
        self.try_start(StoreSettings { tables, ..self.settings() }).await.unwrap()
    }

    /// Starts one that takes the application from a live owner.
    pub(crate) async fn take_over(&self, tables: Vec<TableSpec>) -> (Committer, Recovered) {
        let settings = StoreSettings { tables, ownership: Ownership::TakeOver, ..self.settings() };
        self.try_start(settings).await.unwrap()
    }

    /// Runs statements as another client.
    pub(crate) async fn execute(&self, sql: &str) {
        match &self.kind {
            Kind::Sqlite(_) => {
                let mut connection = self.sqlite_client().await;
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
            }
            Kind::Postgres(database) => database.execute(sql).await,
            Kind::Checkpoint(_) => no_tables(),
        }
    }

    /// Runs statements as another client, if the database takes them.
    pub(crate) async fn try_execute(&self, sql: &str) -> sqlx::Result<()> {
        match &self.kind {
            Kind::Sqlite(_) => {
                let mut connection = self.sqlite_client().await;
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.map(drop)
            }
            Kind::Postgres(database) => {
                let mut connection = database.connect().await;
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.map(drop)
            }
            Kind::Checkpoint(_) => no_tables(),
        }
    }

    /// One number, as another client sees it.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        match &self.kind {
            Kind::Sqlite(_) => {
                let mut connection = self.sqlite_client().await;
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap()
            }
            Kind::Postgres(database) => database.one(sql).await,
            Kind::Checkpoint(_) => no_tables(),
        }
    }

    /// One column of texts, as another client sees it.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        match &self.kind {
            Kind::Sqlite(_) => {
                let mut connection = self.sqlite_client().await;
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap()
            }
            Kind::Postgres(database) => {
                let rows: Vec<(String,)> = database.rows(sql).await;
                rows.into_iter().map(|row| row.0).collect()
            }
            Kind::Checkpoint(_) => no_tables(),
        }
    }

    pub(crate) async fn count(&self, from: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM {from}")).await
    }

    async fn sqlite_client(&self) -> SqliteConnection {
        SqliteConnection::connect(&format!("{}?mode=rwc", self.url())).await.unwrap()
    }
}

fn no_tables() -> ! {
    panic!("a checkpoint folder has no tables")
}

pub(crate) fn column(name: &str, column_type: ColumnType) -> Column {
    Column { name: name.into(), source: None, column_type: Some(column_type), merge: Merge::Last }
}

pub(crate) fn merged(name: &str, column_type: ColumnType, merge: Merge) -> Column {
    Column { merge, ..column(name, column_type) }
}

/// A table that is made if it is missing.
pub(crate) fn append(table: &str, columns: Vec<Column>) -> TableSpec {
    TableSpec { table: table.parse().unwrap(), mode: WriteMode::Append, key: Vec::new(), create: true, columns }
}

pub(crate) fn upsert(table: &str, key: &[&str], columns: Vec<Column>) -> TableSpec {
    let key = key.iter().map(|name| (*name).to_owned()).collect();
    TableSpec { mode: WriteMode::Upsert, key, ..append(table, columns) }
}

/// `id bigint, name text`, appended.
pub(crate) fn lines() -> TableSpec {
    append("lines", vec![column("id", ColumnType::BigInt), column("name", ColumnType::Text)])
}

pub(crate) fn encode(shape: &TableShape, rows: &[Vec<Value<'_>>]) -> EncodedRows {
    let types = shape.types();
    let mut writer = RowWriter::new(types.clone());
    for row in rows {
        writer.start_row();
        for (index, value) in row.iter().enumerate() {
            writer.field(index, &Field::convert(types[index], value.clone()).unwrap()).unwrap();
        }
    }
    writer.finish()
}

pub(crate) fn at(offset: i64) -> Offset {
    Offset::new(offset).unwrap()
}

pub(crate) fn position(partition: i32, until: i64) -> StoredPosition {
    StoredPosition {
        topic_partition: TopicPartition::new("orders", partition),
        topic_id: None,
        until_offset: at(until),
        leader_epoch: None,
    }
}

pub(crate) fn moved(partition: i32, from: i64, until: i64) -> CommittedRange {
    CommittedRange {
        range: OffsetRange::new(TopicPartition::new("orders", partition), at(from), at(until)),
        expected: Some(at(from)),
        expected_topic_id: None,
        topic_id: None,
        counts: RangeCounts {
            records: u64::try_from(until - from).unwrap(),
            checksum: u64::MAX - 5,
            ..RangeCounts::default()
        },
    }
}

pub(crate) fn batch(batch_seq: u64, ranges: Vec<CommittedRange>, chunks: Vec<EncodedRows>) -> BatchCommit {
    let time = 1_700_000_000_000 + i64::try_from(batch_seq).unwrap();
    BatchCommit {
        batch_seq,
        batch_time: BatchTime::from_ms(time),
        ranges,
        tables: if chunks.is_empty() { Vec::new() } else { vec![TableRows { table: 0, chunks }] },
        records: Vec::new(),
        isolating: None,
        dead_letters: Vec::new(),
        lost_ranges: Vec::new(),
        state: Vec::new(),
        user_code: Vec::new(),
        processing_started_ms: time,
    }
}

/// Rows `[from, until)` of [`lines`].
pub(crate) fn line_rows(shape: &TableShape, from: i64, until: i64) -> EncodedRows {
    let rows: Vec<Vec<Value<'_>>> = (from..until).map(|id| vec![Value::Int(id), format!("line {id}").into()]).collect();
    encode(shape, &rows)
}

/// A batch of [`lines`] that moves partition 0 of the topic.
pub(crate) fn line_batch(shape: &TableShape, batch_seq: u64, from: i64, until: i64) -> BatchCommit {
    batch(batch_seq, vec![moved(0, from, until)], vec![line_rows(shape, from, until)])
}

/// What must be committed.
#[track_caller]
pub(crate) fn committed(outcome: CommitOutcome) -> Commit {
    match outcome {
        CommitOutcome::Committed(commit) => commit,
        other => panic!("not committed: {other:?}"),
    }
}

/// What must not be committed; why.
#[track_caller]
pub(crate) fn refused(outcome: CommitOutcome) -> directstream::Error {
    match outcome {
        CommitOutcome::NotCommitted { error, .. } => error,
        other => panic!("not a refusal: {other:?}"),
    }
}
