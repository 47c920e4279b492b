//! Looking at a store from outside: offsets, ledger, owner. Plain reads on a connection of their own; a job that runs is not
//! disturbed, and one that is fenced or stopped can be looked at as well.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{
    ledger::unsigned,
    link::{Link, fetch, no_sql},
    moves::LedgerMove,
    postgres, schema_of,
    settings::StoredPosition,
    sqlite,
};
use crate::{
    config::StoreUrl,
    error::{Error, Result},
    types::{BatchTime, Offset, OffsetRange, RangeCounts, TopicId, TopicPartition},
};

/// An application's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationInfo {
    /// The epoch.
    pub epoch: u64,
    /// The last committed batch; 0 if there is none.
    pub batch_seq: u64,
    /// Its time.
    pub last_batch_time: Option<BatchTime>,
    /// The owner, if there is one. Whether it is alive is another question.
    pub owner: Option<Uuid>,
    /// The machine of the last owner.
    pub host: Option<String>,
    /// Its process id.
    pub process_id: Option<i64>,
    /// When it was last seen: milliseconds since 1970-01-01 UTC, by the database's clock.
    pub seen_at_ms: Option<i64>,
    /// Kafka's cluster.
    pub cluster_id: Option<String>,
    /// The program that started last.
    pub build: Option<String>,
    /// The batch interval of the last start.
    pub interval_ms: Option<i64>,
}

/// A committed batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerBatch {
    /// Its number.
    pub batch_seq: u64,
    /// Its time.
    pub batch_time: BatchTime,
    /// The epoch it was committed under.
    pub epoch: u64,
    /// Records read.
    pub records: u64,
    /// Offsets without a record.
    pub gaps: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Rows written to output tables.
    pub rows: u64,
    /// Records refused.
    pub dead_letters: u64,
    /// Ranges skipped because Kafka had lost them.
    pub lost_ranges: u64,
    /// When processing started: milliseconds since 1970-01-01 UTC.
    pub processing_started_ms: i64,
    /// When it was committed, by the database's clock: milliseconds since 1970-01-01 UTC.
    pub committed_at_ms: i64,
    /// The program that committed it.
    pub build: String,
    /// Its ranges that are not empty, in the order of topic and partition.
    pub ranges: Vec<LedgerRange>,
}

/// A range of a committed batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRange {
    /// The range.
    pub range: OffsetRange,
    /// The topic's id, if known.
    pub topic_id: Option<TopicId>,
    /// What reading it found.
    pub counts: RangeCounts,
}

/// Offsets that a committed batch went over because Kafka had lost them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerLoss {
    /// The batch's number.
    pub batch_seq: u64,
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The offset that was committed before.
    pub from_offset: Offset,
    /// Where reading went on; `None` if it is not known how much was lost.
    pub until_offset: Option<Offset>,
}

/// A read-only connection to a store.
#[derive(Debug)]
pub struct Inspector {
    pub(super) connection: Link,
    pub(super) application: String,
}

type ApplicationRow = (
    i64,
    i64,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<i64>,
);
type PositionRow = (String, i32, i64, Option<String>, Option<i32>);
type BatchRow = (i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, String);
type LossRow = (i64, String, i32, i64, Option<i64>);
type MoveRow = (i64, String, i32, Option<i64>, i64, Option<String>, Option<i64>);
type RangeRow = (i64, String, i32, i64, i64, i64, i64, i64, i64, Option<String>, Option<i32>);

impl Inspector {
    /// Connects; changes nothing, and does not migrate.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if the URL cannot be used or the schema is not the one of this program,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the store does not answer.
    pub async fn open(url: &StoreUrl, application: &str) -> Result<Self> {
        Self::on(url, application, Link::connect(url, application)).await
    }

    /// On a connection that `connecting` makes if there is something to connect to.
    pub(super) async fn on(
        url: &StoreUrl,
        application: &str,
        connecting: impl Future<Output = Result<Link>>,
    ) -> Result<Self> {
        if !Link::is_there(url)? {
            schema_of(url.kind(), &[])?;
        }
        let connection = connecting.await?;
        let mut inspector = Self { connection, application: application.to_owned() };
        if let Link::Checkpoint(_) = &inspector.connection {
            return Ok(inspector);
        }
        let applied = inspector.connection.applied().await?;
        schema_of(url.kind(), &applied)?;
        Ok(inspector)
    }

    /// An expression for milliseconds since 1970-01-01 UTC.
    fn ms(&self, column: &str) -> String {
        self.connection.ms(column)
    }

    /// The connection, for what is more than a look.
    pub(super) fn into_link(self) -> Link {
        self.connection
    }

    /// The application's row; `None` if the store does not know it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn application(&mut self) -> Result<Option<ApplicationInfo>> {
        if let Link::Checkpoint(look) = &self.connection {
            return look.application();
        }
        let sql = format!(
            "SELECT epoch, batch_seq, {}, CAST(owner AS text), host, process_id, {}, cluster_id, build, interval_ms \
             FROM {{}}applications WHERE application = $1",
            self.ms("last_batch_time"),
            self.ms("seen_at")
        );
        let what = "cannot read the application's row";
        let rows = fetch!(&mut self.connection, what, ApplicationRow, sql, &self.application)?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let (epoch, batch_seq, last, owner, host, process_id, seen_at_ms, cluster_id, build, interval_ms) = row;
        let owner = match owner {
            Some(text) => Some(text.parse().map_err(|_| Error::corrupt("the stored owner is no uuid"))?),
            None => None,
        };
        Ok(Some(ApplicationInfo {
            epoch: unsigned("epoch", epoch)?,
            batch_seq: unsigned("batch_seq", batch_seq)?,
            last_batch_time: last.map(BatchTime::from_ms),
            owner,
            host,
            process_id,
            seen_at_ms,
            cluster_id,
            build,
            interval_ms,
        }))
    }

    /// The application's row, of an application that has run.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if it never has; else as [`open`](Self::open).
    pub async fn known(&mut self) -> Result<ApplicationInfo> {
        let name = &self.application;
        let unknown = format!("the store knows no application of this name: has it run yet? application={name}");
        self.application().await?.ok_or_else(|| Error::config(unknown))
    }

    /// The committed positions, in the order of topic and partition.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn offsets(&mut self) -> Result<Vec<StoredPosition>> {
        if let Link::Checkpoint(look) = &self.connection {
            return look.offsets();
        }
        let sql = "SELECT topic, partition, until_offset, topic_id, leader_epoch FROM {}offsets WHERE application = $1";
        let what = "cannot read the stored positions";
        let rows = fetch!(&mut self.connection, what, PositionRow, sql, &self.application)?;
        let mut positions = Vec::with_capacity(rows.len());
        for (topic, partition, until, topic_id, leader_epoch) in rows {
            positions.push(StoredPosition {
                topic_partition: TopicPartition::new(topic, partition),
                topic_id: topic_id.map(TopicId::new),
                until_offset: offset(until)?,
                leader_epoch,
            });
        }
        positions.sort_by(|a, b| a.topic_partition.cmp(&b.topic_partition));
        Ok(positions)
    }

    /// From here on every read sees the store as it was at the first one, whatever a running job commits.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) async fn snapshot(&mut self) -> Result<()> {
        let what = "cannot begin a snapshot of the store";
        match &mut self.connection {
            Link::Postgres(link) => {
                // Kafka is read inside it, which takes as long as it takes.
                let begin = "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0; \
                     BEGIN ISOLATION LEVEL REPEATABLE READ";
                let begun = sqlx::raw_sql(begin).execute(&mut **link).await;
                begun.map(drop).map_err(|error| postgres::postgres_error(what, error))
            }
            Link::Sqlite(link) => {
                let begun = sqlx::raw_sql("BEGIN").execute(&mut **link).await;
                begun.map(drop).map_err(|error| sqlite::sqlite_error(what, error))
            }
            // It is one by itself.
            Link::Checkpoint(_) => Ok(()),
        }
    }

    /// The last batches of the ledger with their ranges, the oldest first.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn batches(&mut self, last: u32) -> Result<Vec<LedgerBatch>> {
        if let Link::Checkpoint(look) = &mut self.connection {
            return look.batches(last);
        }
        let sql = self.batches_sql("ORDER BY batch_seq DESC LIMIT $2");
        let what = "cannot read the ledger";
        let rows = fetch!(&mut self.connection, what, BatchRow, sql, &self.application, i64::from(last))?;
        self.with_ranges(rows.into_iter().rev()).await
    }

    /// The first `limit` batches of the ledger from number `first` on, with their ranges, the oldest first.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn batches_from(&mut self, first: u64, limit: u32) -> Result<Vec<LedgerBatch>> {
        if let Link::Checkpoint(look) = &mut self.connection {
            return look.batches_from(first, limit);
        }
        let sql = self.batches_sql("AND batch_seq >= $2 ORDER BY batch_seq LIMIT $3");
        let (first, limit) = (super::ledger::signed(first), i64::from(limit));
        let what = "cannot read the ledger";
        let rows = fetch!(&mut self.connection, what, BatchRow, sql, &self.application, first, limit)?;
        self.with_ranges(rows.into_iter()).await
    }

    /// The number of the first batch of the ledger with a time after this one, in milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn first_batch_after(&mut self, batch_time_ms: i64) -> Result<Option<u64>> {
        if let Link::Checkpoint(look) = &mut self.connection {
            let batches = look.batches_from(0, u32::MAX)?;
            let first = batches.iter().find(|batch| batch.batch_time.as_ms() > batch_time_ms);
            return Ok(first.map(|batch| batch.batch_seq));
        }
        let sql =
            format!("SELECT MIN(batch_seq) FROM {{}}batches WHERE application = $1 AND {} > $2", self.ms("batch_time"));
        let what = "cannot read the ledger";
        let rows = fetch!(&mut self.connection, what, (Option<i64>,), sql, &self.application, batch_time_ms)?;
        rows.into_iter().find_map(|(first,)| first).map(|first| unsigned("batch_seq", first)).transpose()
    }

    fn batches_sql(&self, rest: &str) -> String {
        format!(
            "SELECT batch_seq, {}, epoch, records, gaps, bytes, rows, dead_letters, lost_ranges, {}, {}, build \
             FROM {{}}batches WHERE application = $1 {rest}",
            self.ms("batch_time"),
            self.ms("processing_started_at"),
            self.ms("committed_at")
        )
    }

    async fn with_ranges(&mut self, rows: impl Iterator<Item = BatchRow>) -> Result<Vec<LedgerBatch>> {
        let mut batches = rows.map(ledger_batch).collect::<Result<Vec<_>>>()?;
        let (Some(first), Some(newest)) = (batches.first(), batches.last()) else { return Ok(batches) };
        // Bounded on both sides: a running job adds batches, and forgets old ones, between the two reads.
        let (from, until) = (super::ledger::signed(first.batch_seq), super::ledger::signed(newest.batch_seq));
        let sql = "SELECT batch_seq, topic, partition, from_offset, until_offset, records, gaps, bytes, checksum, topic_id, \
             leader_epoch FROM {}batch_ranges WHERE application = $1 AND batch_seq BETWEEN $2 AND $3";
        let what = "cannot read the ledger";
        let ranges = fetch!(&mut self.connection, what, RangeRow, sql, &self.application, from, until)?;
        for row in ranges {
            let (batch_seq, range) = ledger_range(row)?;
            if let Ok(index) = batches.binary_search_by_key(&batch_seq, |batch| batch.batch_seq) {
                batches[index].ranges.push(range);
            }
        }
        for batch in &mut batches {
            batch.ranges.sort_by(|a, b| a.range.cmp(&b.range));
        }
        Ok(batches)
    }

    /// The lost ranges with the numbers of their batches, in the order of batches.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn lost_ranges(&mut self) -> Result<Vec<LedgerLoss>> {
        if let Link::Checkpoint(look) = &mut self.connection {
            return look.lost_ranges();
        }
        let sql = "SELECT batch_seq, topic, partition, from_offset, until_offset FROM {}lost_ranges \
             WHERE application = $1 ORDER BY batch_seq, id";
        let what = "cannot read the lost ranges";
        let rows = fetch!(&mut self.connection, what, LossRow, sql, &self.application)?;
        let loss = |(batch_seq, topic, partition, from, until): LossRow| {
            Ok(LedgerLoss {
                batch_seq: unsigned("batch_seq", batch_seq)?,
                topic_partition: TopicPartition::new(topic, partition),
                from_offset: offset(from)?,
                until_offset: until.map(offset).transpose()?,
            })
        };
        rows.into_iter().map(loss).collect()
    }

    /// The offsets that operators moved, in the order in which they did.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn moved_offsets(&mut self) -> Result<Vec<LedgerMove>> {
        if let Link::Checkpoint(look) = &mut self.connection {
            return look.moves();
        }
        let sql = "SELECT batch_seq, topic, partition, from_offset, until_offset, topic_id, rows_deleted FROM {}moved_offsets \
             WHERE application = $1 ORDER BY id";
        let what = "cannot read the moved offsets";
        let rows = fetch!(&mut self.connection, what, MoveRow, sql, &self.application)?;
        let moved = |(batch_seq, topic, partition, from, until, topic_id, rows): MoveRow| {
            Ok(LedgerMove {
                batch_seq: unsigned("batch_seq", batch_seq)?,
                topic_partition: TopicPartition::new(topic, partition),
                from_offset: from.map(offset).transpose()?,
                until_offset: offset(until)?,
                topic_id: topic_id.map(TopicId::new),
                rows_deleted: rows.is_some(),
            })
        };
        rows.into_iter().map(moved).collect()
    }
}

pub(super) fn offset(stored: i64) -> Result<Offset> {
    Offset::new(stored).ok_or_else(|| Error::corrupt("a stored offset is negative"))
}

fn ledger_batch(row: BatchRow) -> Result<LedgerBatch> {
    let (batch_seq, time, epoch, records, gaps, bytes, rows, dead_letters, lost_ranges, started, committed, build) =
        row;
    Ok(LedgerBatch {
        batch_seq: unsigned("batch_seq", batch_seq)?,
        batch_time: BatchTime::from_ms(time),
        epoch: unsigned("epoch", epoch)?,
        records: unsigned("records", records)?,
        gaps: unsigned("gaps", gaps)?,
        bytes: unsigned("bytes", bytes)?,
        rows: unsigned("rows", rows)?,
        dead_letters: unsigned("dead_letters", dead_letters)?,
        lost_ranges: unsigned("lost_ranges", lost_ranges)?,
        processing_started_ms: started,
        committed_at_ms: committed,
        build,
        ranges: Vec::new(),
    })
}

fn ledger_range(row: RangeRow) -> Result<(u64, LedgerRange)> {
    let (batch_seq, topic, partition, from, until, records, gaps, bytes, checksum, topic_id, leader_epoch) = row;
    let range = LedgerRange {
        range: OffsetRange::new(TopicPartition::new(topic, partition), offset(from)?, offset(until)?),
        topic_id: topic_id.map(TopicId::new),
        counts: RangeCounts {
            records: unsigned("records", records)?,
            gaps: unsigned("gaps", gaps)?,
            bytes: unsigned("bytes", bytes)?,
            checksum: checksum.cast_unsigned(),
            leader_epoch,
            record_epoch: None,
        },
    };
    Ok((unsigned("batch_seq", batch_seq)?, range))
}
