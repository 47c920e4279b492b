//! What a batch writes into a SQLite file.

use std::sync::Arc;

use sqlx::{
    Arguments, AssertSqlSafe, SqliteConnection,
    sqlite::{SqliteArguments, SqliteQueryResult},
};

use super::{
    super::{
        ledger::{FORGET_EVERY, FORGET_PER_BATCH, Totals, length, offset_gone, signed},
        outbox,
        protocol::Term,
        settings::{StoreSettings, StoredPosition},
    },
    error::{rows_error, sqlite_error},
    signed_term,
    tables::{Table, named},
};
use crate::{
    error::{Error, Result},
    failpoint,
    types::{BatchCommit, DeadLetter, Field, RowReader, SegmentKind, TableRows, TopicId, rows::rfc3339},
};

/// Writes the rows of one table, a hundred to a statement.
pub(in crate::commit) async fn rows(connection: &mut SqliteConnection, table: &Table, rows: &TableRows) -> Result<()> {
    let columns = table.types.len();
    let mut arguments = SqliteArguments::default();
    let mut waiting = 0;
    for chunk in &rows.chunks {
        let mut read = 0;
        for row in RowReader::new(&table.types, chunk) {
            if waiting == 0 {
                arguments.reserve(columns * table.rows_per_statement, 0);
            }
            for field in row {
                bind(&mut arguments, field)?;
            }
            read += 1;
            waiting += 1;
            if waiting == table.rows_per_statement {
                insert(connection, table, std::mem::take(&mut arguments), waiting).await?;
                waiting = 0;
            }
        }
        if read != chunk.rows {
            return Err(Error::internal(format!("encoded rows do not fit their table table={}", table.name)));
        }
    }
    if waiting > 0 {
        insert(connection, table, arguments, waiting).await?;
    }
    Ok(())
}

async fn insert(
    connection: &mut SqliteConnection,
    table: &Table,
    arguments: SqliteArguments,
    rows: usize,
) -> Result<()> {
    // Statements of odd sizes are not kept: they would push the others out of the cache.
    let keep = rows == table.rows_per_statement;
    let query = sqlx::query_with(AssertSqlSafe(table.insert(rows)), arguments).persistent(keep);
    let done = query.execute(connection).await;
    done.map(drop).map_err(|error| named(rows_error("cannot insert", error), &table.name))
}

pub(super) fn bind(arguments: &mut SqliteArguments, field: Field<'_>) -> Result<()> {
    let bound = match field {
        Field::Null => arguments.add(None::<i64>),
        Field::Boolean(value) => arguments.add(i64::from(value)),
        Field::Integer(value) => arguments.add(value),
        Field::Double(value) => arguments.add(value),
        Field::Numeric(value) => arguments.add(value.to_plain_string()),
        Field::Text(text) => arguments.add(text.into_owned()),
        Field::Bytes(bytes) => arguments.add(bytes.into_owned()),
        Field::TimestampMicros(micros) => arguments.add(rfc3339(micros).map_err(|r| Error::transform(r.to_string()))?),
    };
    bound.map_err(|error| Error::internal("cannot bind a value").caused_by(error))
}

fn text_of(id: Option<&TopicId>) -> Option<&str> {
    id.map(TopicId::as_str)
}

fn time(what: &str, ms: i64) -> Result<String> {
    rfc3339(ms.saturating_mul(1000)).map_err(|refusal| Error::internal(format!("{what}: {refusal}")))
}

fn failed(what: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |error| sqlite_error(what, error)
}

/// Writes the refused records.
pub(super) async fn dead_letters(
    connection: &mut SqliteConnection,
    application: &str,
    batch_seq: u64,
    letters: &[DeadLetter],
) -> Result<()> {
    const INSERT: &str = "INSERT INTO directstream_dead_letters (application, batch_seq, topic, partition, \"offset\", stage, \
         reason, output, key, value, headers, timestamp, timestamp_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    for letter in letters {
        // Kafka's timestamps are any number; one that is no time is kept as a number alone.
        let timestamp = letter.timestamp_ms.and_then(|ms| rfc3339(ms.saturating_mul(1000)).ok());
        sqlx::query(INSERT)
            .bind(application)
            .bind(signed(batch_seq))
            .bind(&*letter.topic_partition.topic)
            .bind(letter.topic_partition.partition)
            .bind(letter.offset.get())
            .bind(letter.stage.to_string())
            .bind(&letter.reason)
            .bind(&letter.output)
            .bind(letter.key.as_deref())
            .bind(letter.value.as_deref())
            .bind(&letter.headers)
            .bind(timestamp)
            .bind(letter.timestamp_ms)
            .execute(&mut *connection)
            .await
            .map_err(failed("cannot write the dead letters"))?;
    }
    Ok(())
}

/// Puts the batch's records into the outbox.
pub(super) async fn records(connection: &mut SqliteConnection, application: &str, batch: &BatchCommit) -> Result<()> {
    for (number, record) in batch.records.iter().enumerate() {
        sqlx::query(outbox::INSERT)
            .bind(application)
            .bind(signed(batch.batch_seq))
            .bind(length(number))
            .bind(record.topic())
            .bind(record.partition())
            .bind(record.key_bytes())
            .bind(record.value_bytes())
            .bind(outbox::headers_text(record))
            .bind(record.timestamp_ms())
            .bind(length(record.bytes()))
            .execute(&mut *connection)
            .await
            .map_err(failed("cannot write the outbox"))?;
    }
    Ok(())
}

/// Writes what the state operators changed, and takes away what a new base stands for.
pub(super) async fn state(connection: &mut SqliteConnection, application: &str, batch: &BatchCommit) -> Result<()> {
    const FORGET: &str = "DELETE FROM directstream_state WHERE application = $1 AND operator = $2 AND partition = $3";
    const INSERT: &str = "INSERT INTO directstream_state (application, operator, partition, batch_seq, kind, keys, data) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let write = failed("cannot write the state");
    for segment in &batch.state {
        if segment.kind == SegmentKind::Base {
            let forget = sqlx::query(FORGET).bind(application).bind(segment.operator).bind(segment.partition);
            forget.execute(&mut *connection).await.map_err(&write)?;
        }
        sqlx::query(INSERT)
            .bind(application)
            .bind(segment.operator)
            .bind(segment.partition)
            .bind(signed(segment.batch_seq))
            .bind(segment.kind.name())
            .bind(signed(segment.keys))
            .bind(segment.data.as_slice())
            .execute(&mut *connection)
            .await
            .map_err(&write)?;
    }
    Ok(())
}

/// Writes the skipped offsets.
pub(super) async fn lost_ranges(
    connection: &mut SqliteConnection,
    application: &str,
    batch: &BatchCommit,
) -> Result<()> {
    const INSERT: &str = "INSERT INTO directstream_lost_ranges (application, batch_seq, topic, partition, from_offset, \
         until_offset, reason, topic_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    for lost in &batch.lost_ranges {
        sqlx::query(INSERT)
            .bind(application)
            .bind(signed(batch.batch_seq))
            .bind(&*lost.topic_partition.topic)
            .bind(lost.topic_partition.partition)
            .bind(lost.from_offset.get())
            .bind(lost.until_offset.map(i64::from))
            .bind(lost.reason.to_string())
            .bind(text_of(lost.topic_id.as_ref()))
            .execute(&mut *connection)
            .await
            .map_err(failed("cannot write the lost ranges"))?;
    }
    Ok(())
}

/// The compare-and-swap on offsets: the one statement that keeps a record from being counted twice (I4).
pub(super) async fn move_offsets(
    connection: &mut SqliteConnection,
    application: &str,
    batch: &BatchCommit,
) -> Result<bool> {
    const MOVE: &str = "UPDATE directstream_offsets SET until_offset = $1, topic_id = $2, \
         leader_epoch = $3 \
         WHERE application = $4 AND topic = $5 AND partition = $6 AND until_offset = $7 AND topic_id IS $8";
    // A key that is there already is a conflict: somebody else inserted it.
    const INSERT: &str = "INSERT OR IGNORE INTO directstream_offsets (until_offset, topic_id, leader_epoch, application, \
         topic, partition) VALUES ($1, $2, $3, $4, $5, $6)";
    // The ledger knows the partition and its offset is gone: it is not new, and reading it from its beginning would double.
    const GONE: &str = "SELECT 1 FROM directstream_batch_ranges WHERE application = $1 AND topic = $2 AND partition = $3 \
         AND NOT EXISTS (SELECT 1 FROM directstream_offsets WHERE application = $1 AND topic = $2 AND partition = $3) LIMIT 1";
    for moved in batch.ranges.iter().filter(|moved| moved.expected.is_none()) {
        let gone = sqlx::query(GONE).bind(application).bind(moved.range.topic()).bind(moved.range.partition());
        let gone = gone.fetch_optional(&mut *connection).await;
        if gone.map_err(failed("cannot look a new partition up in the ledger"))?.is_some() {
            return Err(offset_gone(moved.range.topic_partition.clone()));
        }
    }
    for moved in &batch.ranges {
        let checked = "AND until_offset = $7";
        let statement = if moved.expected.is_some() { MOVE } else { INSERT };
        let query = sqlx::query(failpoint::statement(statement, "no_offset_check", (checked, "")))
            .bind(moved.range.until_offset.get())
            .bind(text_of(moved.topic_id.as_ref()))
            .bind(moved.counts.leader_epoch)
            .bind(application)
            .bind(moved.range.topic())
            .bind(moved.range.partition());
        let query = match moved.expected {
            Some(expected) => query.bind(expected.get()).bind(text_of(moved.expected_topic_id.as_ref())),
            None => query,
        };
        let done: SqliteQueryResult =
            query.execute(&mut *connection).await.map_err(failed("cannot move the offsets"))?;
        if done.rows_affected() != 1 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the ledger row and its ranges, and forgets a few old ones.
pub(super) async fn ledger(
    connection: &mut SqliteConnection,
    settings: &StoreSettings,
    term: Term,
    batch: &BatchCommit,
) -> Result<()> {
    const BATCH: &str = "INSERT INTO directstream_batches (application, batch_seq, batch_time, epoch, records, gaps, bytes, \
         rows, dead_letters, lost_ranges, processing_started_at, committed_at, build) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), $12)";
    const RANGE: &str = "INSERT INTO directstream_batch_ranges (application, batch_seq, topic, partition, from_offset, \
         until_offset, records, gaps, bytes, checksum, topic_id, leader_epoch) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    let totals = Totals::of(batch);
    let write = failed("cannot write the ledger");
    sqlx::query(BATCH)
        .bind(&settings.application)
        .bind(signed(batch.batch_seq))
        .bind(time("batch_time", batch.batch_time.as_ms())?)
        .bind(signed(term.epoch))
        .bind(totals.records)
        .bind(totals.gaps)
        .bind(totals.bytes)
        .bind(totals.rows)
        .bind(totals.dead_letters)
        .bind(totals.lost_ranges)
        .bind(time("processing_started", batch.processing_started_ms)?)
        .bind(&settings.build)
        .execute(&mut *connection)
        .await
        .map_err(&write)?;
    for moved in batch.ranges.iter().filter(|moved| !moved.range.is_empty()) {
        sqlx::query(RANGE)
            .bind(&settings.application)
            .bind(signed(batch.batch_seq))
            .bind(moved.range.topic())
            .bind(moved.range.partition())
            .bind(moved.range.from_offset.get())
            .bind(moved.range.until_offset.get())
            .bind(signed(moved.counts.records))
            .bind(signed(moved.counts.gaps))
            .bind(signed(moved.counts.bytes))
            .bind(moved.counts.checksum.cast_signed())
            .bind(text_of(moved.topic_id.as_ref()))
            .bind(moved.counts.leader_epoch)
            .execute(&mut *connection)
            .await
            .map_err(&write)?;
    }
    if batch.batch_seq.is_multiple_of(FORGET_EVERY) { forget(connection, settings, batch).await } else { Ok(()) }
}

/// Takes batches out of the ledger that are older than the retention, the oldest first, a few at a time.
async fn forget(connection: &mut SqliteConnection, settings: &StoreSettings, batch: &BatchCommit) -> Result<()> {
    const FORGET: &str = "DELETE FROM directstream_batches WHERE application = $1 AND batch_seq IN (SELECT batch_seq FROM \
         directstream_batches WHERE application = $1 AND batch_seq <= $2 ORDER BY batch_seq LIMIT $3) \
         AND committed_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', $4)";
    let keep = batch.batch_seq.saturating_sub(settings.ledger_batches_min);
    let age = format!("-{} seconds", settings.ledger_retention.as_secs());
    sqlx::query(FORGET)
        .bind(&settings.application)
        .bind(signed(keep))
        .bind(FORGET_PER_BATCH)
        .bind(age)
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed("cannot shorten the ledger"))
}

/// The compare-and-swap on the batch number: the last statement before COMMIT (I3, I5).
pub(super) async fn advance(
    connection: &mut SqliteConnection,
    settings: &StoreSettings,
    term: Term,
    batch: &BatchCommit,
) -> Result<bool> {
    const ADVANCE: &str = "UPDATE directstream_applications SET batch_seq = $1, last_batch_time = $2, open_seq = NULL, \
         seen_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') \
         WHERE application = $3 AND epoch = $4 AND owner = $5 AND batch_seq = $6 AND open_seq IS $7";
    let (epoch, batch_seq) = signed_term(term);
    let guarded = !batch.user_code.is_empty() && !failpoint::mutant("no_open_seq");
    let open = guarded.then(|| signed(batch.batch_seq));
    let unfenced = ("epoch = $4 AND owner = $5 AND batch_seq = $6", "epoch >= $4 AND $5 <> '' AND $6 >= 0");
    let done = sqlx::query(failpoint::statement(ADVANCE, "epoch_before_transaction", unfenced))
        .bind(signed(batch.batch_seq))
        .bind(time("batch_time", batch.batch_time.as_ms())?)
        .bind(&settings.application)
        .bind(epoch)
        .bind(settings.owner.to_string())
        .bind(batch_seq)
        .bind(open)
        .execute(connection)
        .await;
    done.map(|done| done.rows_affected() == 1).map_err(failed("cannot advance the batch number"))
}

/// Inserts the first positions; equal ones that are there already are as good.
pub(super) async fn first_positions(
    connection: &mut SqliteConnection,
    application: &str,
    positions: &[StoredPosition],
) -> Result<bool> {
    const INSERT: &str = "INSERT OR IGNORE INTO directstream_offsets (application, topic, partition, until_offset, topic_id, \
         leader_epoch) VALUES ($1, $2, $3, $4, $5, $6)";
    const SAME: &str = "SELECT count(*) FROM directstream_offsets WHERE application = $1 AND topic = $2 AND partition = $3 \
         AND until_offset = $4 AND topic_id IS $5";
    let write = failed("cannot write the first positions");
    for position in positions {
        let (topic, partition) = (Arc::clone(&position.topic_partition.topic), position.topic_partition.partition);
        sqlx::query(INSERT)
            .bind(application)
            .bind(&*topic)
            .bind(partition)
            .bind(position.until_offset.get())
            .bind(text_of(position.topic_id.as_ref()))
            .bind(position.leader_epoch)
            .execute(&mut *connection)
            .await
            .map_err(&write)?;
        let same: i64 = sqlx::query_scalar(SAME)
            .bind(application)
            .bind(&*topic)
            .bind(partition)
            .bind(position.until_offset.get())
            .bind(text_of(position.topic_id.as_ref()))
            .fetch_one(&mut *connection)
            .await
            .map_err(&write)?;
        if same != 1 {
            return Ok(false);
        }
    }
    Ok(true)
}
