//! Offsets moved by an operator, from outside the job.
//!
//! One transaction, under the lock of the application's row: nobody owns the application, or whoever did is dead; the epoch is
//! raised, so that no batch of an older one can commit any more; the stored offsets are still those that the operator saw;
//! and a row in `moved_offsets` says who moved what. A job that starts meanwhile takes the application over before this
//! transaction, which then finds a live owner, or after it, and then goes on from the moved offsets.
//!
//! Rows of append tables can go in the same transaction, so that records which are read again are there once.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::{
    checkpoint,
    identity::{host, process_id},
    inspect::Inspector,
    ledger::{signed, unsigned},
    link::{Link, execute, fetch, no_sql},
    postgres,
    settings::StoreSettings,
    sqlite,
};
use crate::{
    clock::Clock,
    config::StoreUrl,
    error::{Error, ErrorKind, Result},
    failpoint,
    types::{
        ColumnShape, ColumnSource, ColumnType, Offset, OffsetRange, TableName, TableSpec, TopicId, TopicPartition,
        WriteMode,
    },
};

/// How long the transaction may take: above the server's own limits.
const MOVED_WITHIN: Duration = Duration::from_secs(330);

/// A stored offset that is to be another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetMove {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The offset that is stored now; `None` if there is none yet.
    pub expected: Option<Offset>,
    /// The next offset to read.
    pub until_offset: Offset,
    /// The id of the topic that this offset belongs to, if the broker told one.
    pub topic_id: Option<TopicId>,
}

impl OffsetMove {
    /// The offsets that will be read again, if it goes back.
    #[must_use]
    pub fn read_again(&self) -> Option<OffsetRange> {
        let until = self.expected.filter(|until| self.until_offset < *until)?;
        Some(OffsetRange::new(self.topic_partition.clone(), self.until_offset, until))
    }
}

/// An append table whose rows say which record they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedTable {
    /// The table.
    pub table: TableName,
    /// The column with the topic; `None` where the job reads one topic only.
    pub topic: Option<String>,
    /// The column with the partition.
    pub partition: String,
    /// The column with the offset.
    pub offset: String,
}

/// What is to be moved, and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveRequest {
    /// The offsets.
    pub moves: Vec<OffsetMove>,
    /// The operator's words, for the row in `moved_offsets`.
    pub scenario: String,
    /// The tables whose rows of records that are read again are deleted; `None` leaves all rows as they are.
    pub delete_rows: Option<Vec<TracedTable>>,
    /// The Kafka cluster that the offsets belong to from now on; `None`: the same as before.
    pub cluster_id: Option<String>,
}

/// What a move came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// The epoch that it began.
    pub epoch: u64,
    /// Partitions whose offset is another one now.
    pub partitions: u64,
    /// Rows deleted from output tables.
    pub rows: u64,
    /// Dead letters that were discarded, because their records are read again.
    pub dead_letters: u64,
}

/// An offset that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerMove {
    /// The last batch that was committed before.
    pub batch_seq: u64,
    /// The partition.
    pub topic_partition: TopicPartition,
    /// Where it stood; `None` if nothing was stored.
    pub from_offset: Option<Offset>,
    /// Where it stood then.
    pub until_offset: Offset,
    /// The id of its topic, if known.
    pub topic_id: Option<TopicId>,
    /// Whether the rows of the records that are read again were deleted.
    pub rows_deleted: bool,
}

impl LedgerMove {
    /// The offsets whose rows, written by batches up to [`batch_seq`](Self::batch_seq), were deleted.
    #[must_use]
    pub fn undone(&self) -> Option<OffsetRange> {
        let until = self.from_offset.filter(|from| self.rows_deleted && self.until_offset < *from)?;
        Some(OffsetRange::new(self.topic_partition.clone(), self.until_offset, until))
    }
}

/// Moves stored offsets of an application that nobody runs.
#[derive(Debug)]
pub struct OffsetMover {
    link: Link,
    settings: StoreSettings,
}

impl OffsetMover {
    /// Connects; changes nothing, and does not migrate.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the URL cannot be used, the schema is not the one of this program, the store does not
    /// know the application, or a pooler gives the session away between transactions; [`Unavailable`](ErrorKind::Unavailable) if the store does not answer.
    pub async fn open(url: &StoreUrl, application: &str) -> Result<Self> {
        let mut inspector = Inspector::on(url, application, Link::connect_to_write(url, application)).await?;
        inspector.known().await?;
        let mut link = inspector.into_link();
        link.set_limits().await?;
        Ok(Self { link, settings: StoreSettings::new(url.clone(), application) })
    }

    /// Refuses while a live process owns the application.
    ///
    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced) naming it; as [`open`](Self::open).
    pub async fn refuse_live_owner(&mut self) -> Result<()> {
        let application = self.settings.application.clone();
        let live = match &mut self.link {
            Link::Postgres(link) => postgres::live_owner(link, &application).await?,
            Link::Sqlite(link) => sqlite::live_owner(link, &self.settings).await?,
            Link::Checkpoint(look) => look.live_owner()?,
        };
        live.map_or(Ok(()), |told| Err(owned(&application, &told)))
    }

    /// The tables, with the columns that say which record a row comes from. `one_topic`: the job reads one topic only, and
    /// has read no other.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) naming the first table that has no such columns, and why; as [`open`](Self::open).
    pub async fn traced(&mut self, specs: &[TableSpec], one_topic: bool) -> Result<Vec<TracedTable>> {
        let specs: Vec<_> = specs.iter().map(|spec| TableSpec { create: false, ..spec.clone() }).collect();
        let shapes = self.link.columns(&specs).await?;
        specs.iter().zip(shapes).map(|(spec, shape)| traced(spec, &shape, one_topic)).collect()
    }

    /// How many rows of these tables come from records that would be read again.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the ledger cannot tell whose rows they are, or a table cannot be read; as
    /// [`open`](Self::open).
    pub async fn rows_read_again(&mut self, moves: &[OffsetMove], tables: &[TracedTable]) -> Result<u64> {
        let mut rows = 0;
        for range in moves.iter().filter_map(OffsetMove::read_again) {
            let topic_id = moves.iter().find(|one| one.topic_partition == range.topic_partition);
            self.check_ledger(&range, topic_id.and_then(|one| one.topic_id.as_ref())).await?;
            for table in tables {
                rows += self.rows_of(table, &range, "SELECT count(*) FROM").await?;
            }
        }
        Ok(rows)
    }

    /// Moves the offsets, all of them or none.
    ///
    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced) while a live process owns the application; [`Conflict`](ErrorKind::Conflict) if an offset is
    /// not the expected one any more; [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) if the answer to the commit was lost; as
    /// [`rows_read_again`](Self::rows_read_again).
    pub async fn move_offsets(&mut self, request: &MoveRequest, clock: &dyn Clock) -> Result<Moved> {
        self.refuse_live_owner().await?;
        if let Link::Checkpoint(_) = &self.link {
            if request.delete_rows.is_some() {
                return Err(no_sql("cannot delete rows"));
            }
            return checkpoint::move_offsets(&self.settings, request, clock).await;
        }
        let moved = tokio::time::timeout(MOVED_WITHIN, self.in_transaction(request)).await;
        moved.unwrap_or_else(|_| {
            let seconds = MOVED_WITHIN.as_secs();
            Err(Error::new(ErrorKind::OutcomeUnknown, format!("the store does not answer seconds={seconds}")))
        })
    }

    /// An error leaves the transaction to the end of the connection, which rolls it back.
    async fn in_transaction(&mut self, request: &MoveRequest) -> Result<Moved> {
        self.begin().await?;
        // Once more, now that nobody can become the owner any more.
        self.refuse_live_owner().await?;
        let (epoch, batch_seq) = self.raise_epoch(request.cluster_id.as_deref()).await?;
        let mut moved = Moved { epoch: unsigned("epoch", epoch)?, ..Moved::default() };
        for one in &request.moves {
            self.swap(one).await?;
            let deleted = match &request.delete_rows {
                Some(tables) => Some(self.delete(one, tables).await?),
                None => None,
            };
            let (rows, dead_letters) = deleted.unwrap_or_default();
            self.note(one, (epoch, batch_seq), &request.scenario, deleted.map(|(rows, _)| rows)).await?;
            moved.partitions += 1;
            moved.rows += rows;
            moved.dead_letters += dead_letters;
        }
        failpoint::hit("moves::before_commit")?;
        self.simple("COMMIT").await.map_err(|error| match error.kind() {
            ErrorKind::Unavailable => {
                let text = "the answer to the commit was lost: directstream offsets show tells where the offsets stand";
                Error::new(ErrorKind::OutcomeUnknown, text).caused_by(error)
            }
            _ => error,
        })?;
        failpoint::hit("moves::after_commit")?;
        Ok(moved)
    }

    async fn begin(&mut self) -> Result<()> {
        let lock = match &self.link {
            Link::Postgres(_) => {
                self.simple("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
                "SELECT epoch FROM {}applications WHERE application = $1 FOR UPDATE"
            }
            _ => {
                self.simple("BEGIN IMMEDIATE").await?;
                "SELECT epoch FROM {}applications WHERE application = $1"
            }
        };
        let what = "cannot lock the application's row";
        fetch!(&mut self.link, what, (i64,), lock, &self.settings.application).map(drop)
    }

    /// Begins an epoch that has no owner; it, and the last batch.
    async fn raise_epoch(&mut self, cluster_id: Option<&str>) -> Result<(i64, i64)> {
        let session = match &self.link {
            Link::Postgres(_) => ", backend_pid = NULL, backend_start = NULL",
            _ => "",
        };
        let sql = format!(
            "UPDATE {{}}applications SET epoch = epoch + 1, owner = NULL, open_seq = NULL{session}, \
             cluster_id = COALESCE($2, cluster_id) WHERE application = $1 RETURNING epoch, batch_seq"
        );
        let what = "cannot begin an epoch";
        let rows = fetch!(&mut self.link, what, (i64, i64), sql, &self.settings.application, cluster_id)?;
        let application = &self.settings.application;
        let gone = || Error::corrupt(format!("the application's row is gone application={application}"));
        rows.first().copied().ok_or_else(gone)
    }

    /// Compare-and-swaps one offset. Its leader epoch belongs to the offset that was there.
    async fn swap(&mut self, one: &OffsetMove) -> Result<()> {
        const SWAP: &str = "UPDATE {}offsets SET until_offset = $1, topic_id = $2, leader_epoch = NULL WHERE application = $3 \
             AND topic = $4 AND partition = $5 AND until_offset = $6";
        const PUT: &str = "INSERT INTO {}offsets (until_offset, topic_id, application, topic, partition) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        let (tp, application) = (&one.topic_partition, &self.settings.application);
        let (until, id) = (one.until_offset.get(), one.topic_id.as_ref().map(TopicId::as_str));
        let what = "cannot move an offset";
        let changed = match one.expected {
            Some(expected) => {
                execute!(&mut self.link, what, SWAP, until, id, application, &*tp.topic, tp.partition, expected.get())?
            }
            None => execute!(&mut self.link, what, PUT, until, id, application, &*tp.topic, tp.partition)?,
        };
        if changed == 1 { Ok(()) } else { Err(moved_meanwhile(tp)) }
    }

    /// Deletes the rows of the records that are read again, and discards their dead letters; how many of each.
    async fn delete(&mut self, one: &OffsetMove, tables: &[TracedTable]) -> Result<(u64, u64)> {
        const NOTE: &str = "INSERT INTO {}dead_letters_settled (letter, application, batch_seq, topic, partition, \"offset\", \
             stage, output, outcome, build) SELECT id, application, batch_seq, topic, partition, \"offset\", stage, output, \
             'discarded', $1 FROM {}dead_letters WHERE application = $2 AND topic = $3 AND partition = $4 \
             AND \"offset\" >= $5 AND \"offset\" < $6";
        const DISCARD: &str = "DELETE FROM {}dead_letters WHERE application = $1 AND topic = $2 AND partition = $3 \
             AND \"offset\" >= $4 AND \"offset\" < $5";
        let Some(range) = one.read_again() else { return Ok((0, 0)) };
        self.check_ledger(&range, one.topic_id.as_ref()).await?;
        let mut rows = 0;
        for table in tables {
            rows += self.rows_of(table, &range, "DELETE FROM").await?;
        }
        let what = "cannot discard a dead letter";
        let (settings, partition) = (&self.settings, range.partition());
        let (from, until) = (range.from_offset.get(), range.until_offset.get());
        let (build, application) = (&settings.build, &settings.application);
        execute!(&mut self.link, what, NOTE, build, application, range.topic(), partition, from, until)?;
        let letters = execute!(&mut self.link, what, DISCARD, application, range.topic(), partition, from, until)?;
        Ok((rows, letters))
    }

    /// Counts or deletes the rows of a range.
    async fn rows_of(&mut self, table: &TracedTable, range: &OffsetRange, verb: &str) -> Result<u64> {
        let topic = match &table.topic {
            Some(column) => format!("\"{column}\" = $4"),
            // Bound all the same, so that there is one statement.
            None => "CAST($4 AS text) IS NOT NULL".to_owned(),
        };
        let sql = format!(
            "{verb} {} WHERE \"{}\" = $1 AND \"{}\" >= $2 AND \"{}\" < $3 AND {topic}",
            table.table.quoted(),
            table.partition,
            table.offset,
            table.offset
        );
        let what = format!("cannot find the rows of a range table={}", table.table);
        let (partition, from, until) =
            (i64::from(range.partition()), range.from_offset.get(), range.until_offset.get());
        if verb.starts_with("SELECT") {
            let rows = fetch!(&mut self.link, &what, (i64,), sql, partition, from, until, range.topic())?;
            return rows.first().map_or(Ok(0), |row| unsigned("rows", row.0));
        }
        execute!(&mut self.link, &what, sql, partition, from, until, range.topic())
    }

    /// Refuses a range whose rows cannot be told from those of another topic of the same name, or that somebody else's offsets
    /// may have brought: the ledger must reach back to it, and know it under the topic's id of today.
    async fn check_ledger(&mut self, range: &OffsetRange, topic_id: Option<&TopicId>) -> Result<()> {
        const OLDEST: &str = "SELECT COALESCE((SELECT min(batch_seq) FROM {}batches WHERE application = $1), batch_seq + 1) \
             FROM {}applications WHERE application = $1";
        const RANGES: &str = "SELECT min(from_offset), count(CASE WHEN topic_id <> $6 THEN 1 END) FROM {}batch_ranges \
             WHERE application = $1 AND topic = $2 AND partition = $3 AND from_offset < $5 AND until_offset > $4";
        let what = "cannot read the ledger";
        let application = &self.settings.application;
        let (from, until) = (range.from_offset.get(), range.until_offset.get());
        let id = topic_id.map(TopicId::as_str);
        let (topic, partition) = (range.topic(), range.partition());
        let oldest = fetch!(&mut self.link, what, (i64,), OLDEST, application)?;
        let ranges =
            fetch!(&mut self.link, what, (Option<i64>, i64), RANGES, application, topic, partition, from, until, id)?;
        let (first, others) = ranges.first().copied().unwrap_or_default();
        let refuse = |why: &str| Err(Error::config(format!("rows cannot be deleted: {why}")).in_range(range.clone()));
        if others > 0 {
            return refuse("the ledger has these offsets of another topic of the same name too");
        }
        let begins_later = oldest.first().is_some_and(|row| row.0 > 1);
        if begins_later && first.is_none_or(|first| first > from) {
            return refuse("the ledger does not reach back that far, see store.ledger_retention");
        }
        Ok(())
    }

    async fn note(
        &mut self,
        one: &OffsetMove,
        (epoch, batch_seq): (i64, i64),
        scenario: &str,
        rows: Option<u64>,
    ) -> Result<()> {
        const NOTE: &str = "INSERT INTO {}moved_offsets (application, batch_seq, epoch, topic, partition, from_offset, \
             until_offset, topic_id, scenario, rows_deleted, host, process_id, build) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
        let (tp, settings) = (&one.topic_partition, &self.settings);
        execute!(
            &mut self.link,
            "cannot note a moved offset",
            NOTE,
            &settings.application,
            batch_seq,
            epoch,
            &*tp.topic,
            tp.partition,
            one.expected.map(Offset::get),
            one.until_offset.get(),
            one.topic_id.as_ref().map(TopicId::as_str),
            scenario,
            rows.map(signed),
            host(),
            process_id(),
            &settings.build
        )
        .map(drop)
    }

    async fn simple(&mut self, sql: &str) -> Result<()> {
        execute!(&mut self.link, "cannot move the offsets", sql).map(drop)
    }
}

/// The columns of a table that say which record a row comes from.
fn traced(spec: &TableSpec, shape: &[ColumnShape], one_topic: bool) -> Result<TracedTable> {
    let refuse = |why: &str| Err(Error::config(format!("rows cannot be deleted: {why} table={}", spec.table)));
    if spec.mode != WriteMode::Append {
        return refuse("an upsert merges the rows of many records, and they cannot be taken apart again");
    }
    let column = |source: &ColumnSource, types: &[ColumnType]| {
        let found = spec
            .columns
            .iter()
            .zip(shape)
            .find(|(column, shape)| column.source.as_ref() == Some(source) && types.contains(&shape.column_type));
        found.map(|(column, _)| column.name.clone())
    };
    let integers = [ColumnType::SmallInt, ColumnType::Integer, ColumnType::BigInt];
    let (partition, offset) = (column(&ColumnSource::Partition, &integers), column(&ColumnSource::Offset, &integers));
    let topic = column(&ColumnSource::Topic, &[ColumnType::Text]);
    match (partition, offset) {
        (Some(partition), Some(offset)) if one_topic || topic.is_some() => {
            Ok(TracedTable { table: spec.table.clone(), topic, partition, offset })
        }
        (Some(_), Some(_)) => refuse("the job reads more than one topic, and the table has no text column from topic"),
        _ => refuse("the table has no integer columns from partition and from offset"),
    }
}

/// A live process owns the application: its offsets are its own.
pub(super) fn owned(application: &str, owner: &str) -> Error {
    Error::fenced(format!(
        "a live process owns the application: stop it before its offsets are moved application={application} {owner}"
    ))
}

/// An offset is not the one that the operator saw.
pub(super) fn moved_meanwhile(topic_partition: &TopicPartition) -> Error {
    let text = "the stored offset is another one than a moment ago: look again, and do it again";
    Error::new(ErrorKind::Conflict, text).on(topic_partition.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Column, Merge};

    fn table(mode: WriteMode, columns: &[(&str, &str, ColumnType)]) -> (TableSpec, Vec<ColumnShape>) {
        let source = |from: &str| match from {
            "topic" => ColumnSource::Topic,
            "partition" => ColumnSource::Partition,
            "offset" => ColumnSource::Offset,
            _ => ColumnSource::Value,
        };
        let column = |(name, from, column_type): &(&str, &str, ColumnType)| Column {
            name: (*name).to_owned(),
            source: Some(source(from)),
            column_type: Some(*column_type),
            merge: Merge::Last,
        };
        let columns_of = columns.iter().map(column).collect();
        let spec =
            TableSpec { table: "events".parse().unwrap(), mode, key: Vec::new(), create: false, columns: columns_of };
        let shape = |(_, _, column_type): &_| ColumnShape { column_type: *column_type, not_null: false };
        (spec, columns.iter().map(shape).collect())
    }

    fn told(mode: WriteMode, columns: &[(&str, &str, ColumnType)], one_topic: bool) -> String {
        let (spec, shape) = table(mode, columns);
        match traced(&spec, &shape, one_topic) {
            Ok(TracedTable { topic, partition, offset, .. }) => {
                [topic.unwrap_or_default(), partition, offset].join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn rows_are_deleted_only_where_they_say_which_record_they_come_from() {
        let (part, off) = (("p", "partition", ColumnType::Integer), ("o", "offset", ColumnType::BigInt));
        let (topic, body) = (("t", "topic", ColumnType::Text), ("b", "value", ColumnType::Text));
        assert_eq!(told(WriteMode::Append, &[body, part, off], true), " p o");
        assert_eq!(told(WriteMode::Append, &[off, topic, part], false), "t p o");
        for (mode, columns, one_topic, why) in [
            (WriteMode::Upsert, vec![part, off], true, "an upsert merges"),
            (WriteMode::Append, vec![body, off], true, "no integer columns"),
            (WriteMode::Append, vec![part, body], true, "no integer columns"),
            // Text is compared letter by letter.
            (WriteMode::Append, vec![part, ("o", "offset", ColumnType::Text)], true, "no integer columns"),
            (WriteMode::Append, vec![part, off], false, "more than one topic"),
        ] {
            let told = told(mode, &columns, one_topic);
            assert!(told.contains(why) && told.ends_with("table=events"), "{told}");
        }
    }
}
