//! What a batch writes into a PostgreSQL database.

use sqlx::{AssertSqlSafe, PgConnection};

use super::{
    super::{
        ledger::{FORGET_EVERY, FORGET_PER_BATCH, Totals, length, offset_gone, signed},
        outbox,
        protocol::Term,
        settings::{StoreSettings, StoredPosition},
    },
    error::{answer, long_answer, rows_answer},
    tables::Table,
};
use crate::{
    error::{Error, Result},
    failpoint,
    types::{
        BatchCommit, CommittedRange, DeadLetter, EncodedRows, SegmentKind, StateSegment, TableRows, TopicId,
        TopicPartition, rows::rfc3339,
    },
};

/// The start of a binary COPY: signature, flags, length of the extension. <https://www.postgresql.org/docs/15/sql-copy.html>
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_TRAILER: &[u8] = &(-1_i16).to_be_bytes();
/// How much is handed to the socket at once: the client keeps a copy of that much and no more.
const COPY_PART_BYTES: usize = 256 * 1024;
/// Dead letters per statement, by number and by bytes.
const DEAD_LETTERS_PER_STATEMENT: usize = 1_000;
const DEAD_LETTER_BYTES_PER_STATEMENT: usize = 8 * 1024 * 1024;
/// Segments of state per statement, by bytes.
const STATE_BYTES_PER_STATEMENT: usize = 8 * 1024 * 1024;

/// Writes the rows of one table.
pub(super) async fn rows(connection: &mut PgConnection, table: &Table, rows: &TableRows) -> Result<()> {
    let wanted: u64 = rows.chunks.iter().map(|chunk| chunk.rows).sum();
    if wanted == 0 {
        return Ok(());
    }
    let what = format!("the database refused rows table={}", table.name);
    let copied = copy(connection, &what, &table.copy, &rows.chunks).await?;
    if copied != wanted {
        let text = format!("rows were lost on their way table={} sent={wanted} taken={copied}", table.name);
        return Err(Error::internal(text));
    }
    let Some(upsert) = &table.upsert else { return Ok(()) };
    let merged = sqlx::query(AssertSqlSafe(upsert.merge.as_str())).execute(connection);
    rows_answer(&what, merged).await.map(drop)
}

/// Writes the rows of one table in a transaction that goes on: what an upsert's stage holds is taken out again.
pub(in crate::commit) async fn add_rows(connection: &mut PgConnection, table: &Table, added: &TableRows) -> Result<()> {
    rows(connection, table, added).await?;
    let Some(upsert) = &table.upsert else { return Ok(()) };
    let emptied = sqlx::raw_sql(AssertSqlSafe(upsert.empty_stage.as_str())).execute(connection);
    answer("cannot empty a temporary table", emptied).await.map(drop)
}

/// Streams the chunks as they are: they are rows in the very form that COPY takes.
async fn copy(connection: &mut PgConnection, what: &str, statement: &str, chunks: &[EncodedRows]) -> Result<u64> {
    let mut copy = answer(what, connection.copy_in_raw(statement)).await?;
    answer(what, copy.send(COPY_HEADER)).await?;
    for part in chunks.iter().flat_map(|chunk| chunk.bytes.chunks(COPY_PART_BYTES)) {
        answer(what, copy.send(part)).await?;
    }
    answer(what, copy.send(COPY_TRAILER)).await?;
    rows_answer(what, copy.finish()).await
}

/// Puts the batch's records into the outbox.
pub(super) async fn records(connection: &mut PgConnection, application: &str, batch: &BatchCommit) -> Result<()> {
    if batch.records.is_empty() {
        return Ok(());
    }
    let rows = outbox::encoded(application, batch.batch_seq, &batch.records)?;
    let copied = copy(connection, "cannot write the outbox", outbox::COPY, &rows).await?;
    if signed(copied) == length(batch.records.len()) {
        return Ok(());
    }
    Err(Error::internal(format!("records were lost on their way sent={} taken={copied}", batch.records.len())))
}

fn text_of(id: Option<&TopicId>) -> Option<String> {
    id.map(|id| id.as_str().to_owned())
}

/// Text without the character that PostgreSQL's cannot hold.
fn clean(text: &str) -> String {
    text.replace('\0', "")
}

/// Writes the refused records.
pub(super) async fn dead_letters(
    connection: &mut PgConnection,
    application: &str,
    batch_seq: u64,
    letters: &[DeadLetter],
) -> Result<()> {
    let mut rest = letters;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |letter: &&DeadLetter| {
            bytes += letter.key.as_ref().map_or(0, Vec::len) + letter.value.as_ref().map_or(0, Vec::len);
            bytes <= DEAD_LETTER_BYTES_PER_STATEMENT
        };
        // At least one, however large.
        let count = rest.iter().take(DEAD_LETTERS_PER_STATEMENT).take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        some_dead_letters(connection, application, batch_seq, now).await?;
        rest = later;
    }
    Ok(())
}

async fn some_dead_letters(
    connection: &mut PgConnection,
    application: &str,
    batch_seq: u64,
    letters: &[DeadLetter],
) -> Result<()> {
    const INSERT: &str = "INSERT INTO directstream.dead_letters (application, batch_seq, topic, partition, \"offset\", stage, \
         reason, output, key, value, headers, timestamp, timestamp_ms) \
         SELECT $1, $2, topic, partition, \"offset\", stage, reason, output, key, value, headers::json, \
         timestamptz 'epoch' + time_ms * interval '1 millisecond', ms \
         FROM unnest($3::text[], $4::integer[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::bytea[], $10::bytea[], \
         $11::text[], $12::bigint[], $13::bigint[]) \
         letter(topic, partition, \"offset\", stage, reason, output, key, value, headers, time_ms, ms)";
    // Kafka's timestamps are any number; one that is no time is kept as a number alone.
    let time = |letter: &DeadLetter| letter.timestamp_ms.filter(|ms| rfc3339(ms.saturating_mul(1000)).is_ok());
    let insert = sqlx::query(INSERT)
        .bind(application)
        .bind(signed(batch_seq))
        .bind(letters.iter().map(|letter| letter.topic_partition.topic.to_string()).collect::<Vec<_>>())
        .bind(letters.iter().map(|letter| letter.topic_partition.partition).collect::<Vec<_>>())
        .bind(letters.iter().map(|letter| letter.offset.get()).collect::<Vec<_>>())
        .bind(letters.iter().map(|letter| letter.stage.to_string()).collect::<Vec<_>>())
        .bind(letters.iter().map(|letter| clean(&letter.reason)).collect::<Vec<_>>())
        .bind(letters.iter().map(|letter| letter.output.as_deref().map(clean)).collect::<Vec<_>>())
        .bind(letters.iter().map(|letter| letter.key.clone()).collect::<Vec<_>>())
        .bind(letters.iter().map(|letter| letter.value.clone()).collect::<Vec<_>>())
        .bind(letters.iter().map(|letter| letter.headers.clone()).collect::<Vec<_>>())
        .bind(letters.iter().map(time).collect::<Vec<_>>())
        .bind(letters.iter().map(|letter| letter.timestamp_ms).collect::<Vec<_>>());
    long_answer("cannot write the dead letters", insert.execute(connection)).await.map(drop)
}

/// Writes what the state operators changed, and takes away what a new base stands for.
pub(super) async fn state(connection: &mut PgConnection, application: &str, batch: &BatchCommit) -> Result<()> {
    const FORGET: &str = "DELETE FROM directstream.state stored USING unnest($2::integer[], $3::integer[]) \
         gone(operator, partition) WHERE stored.application = $1 AND stored.operator = gone.operator \
         AND stored.partition = gone.partition";
    let what = "cannot write the state";
    let bases = || batch.state.iter().filter(|segment| segment.kind == SegmentKind::Base);
    if bases().next().is_some() {
        let forget = sqlx::query(FORGET)
            .bind(application)
            .bind(bases().map(|base| number(base.operator)).collect::<Vec<_>>())
            .bind(bases().map(|base| number(base.partition)).collect::<Vec<_>>());
        long_answer(what, forget.execute(&mut *connection)).await?;
    }
    let mut rest = batch.state.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |segment: &&StateSegment| {
            bytes += segment.data.len();
            bytes <= STATE_BYTES_PER_STATEMENT
        };
        // At least one, however large.
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        some_state(connection, application, now).await?;
        rest = later;
    }
    Ok(())
}

async fn some_state(connection: &mut PgConnection, application: &str, segments: &[StateSegment]) -> Result<()> {
    const INSERT: &str = "INSERT INTO directstream.state (application, operator, partition, batch_seq, kind, keys, data) \
         SELECT $1, * FROM unnest($2::integer[], $3::integer[], $4::bigint[], $5::text[], $6::bigint[], $7::bytea[])";
    let insert = sqlx::query(INSERT)
        .bind(application)
        .bind(segments.iter().map(|segment| number(segment.operator)).collect::<Vec<_>>())
        .bind(segments.iter().map(|segment| number(segment.partition)).collect::<Vec<_>>())
        .bind(segments.iter().map(|segment| signed(segment.batch_seq)).collect::<Vec<_>>())
        .bind(segments.iter().map(|segment| segment.kind.name()).collect::<Vec<_>>())
        .bind(segments.iter().map(|segment| signed(segment.keys)).collect::<Vec<_>>())
        .bind(segments.iter().map(|segment| segment.data.as_slice()).collect::<Vec<_>>());
    long_answer("cannot write the state", insert.execute(connection)).await.map(drop)
}

/// The number of an operator or a partition as the database's signed 32 bits.
fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Writes the skipped offsets.
pub(super) async fn lost_ranges(connection: &mut PgConnection, application: &str, batch: &BatchCommit) -> Result<()> {
    const INSERT: &str = "INSERT INTO directstream.lost_ranges (application, batch_seq, topic, partition, from_offset, \
         until_offset, reason, topic_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    for lost in &batch.lost_ranges {
        let insert = sqlx::query(INSERT)
            .bind(application)
            .bind(signed(batch.batch_seq))
            .bind(&*lost.topic_partition.topic)
            .bind(lost.topic_partition.partition)
            .bind(lost.from_offset.get())
            .bind(lost.until_offset.map(i64::from))
            .bind(lost.reason.to_string())
            .bind(text_of(lost.topic_id.as_ref()));
        answer("cannot write the lost ranges", insert.execute(&mut *connection)).await?;
    }
    Ok(())
}

/// The compare-and-swap on offsets: the one statement that keeps a record from being counted twice (I4). A number of
/// statements that does not grow with the number of partitions.
pub(super) async fn move_offsets(
    connection: &mut PgConnection,
    application: &str,
    batch: &BatchCommit,
) -> Result<bool> {
    let (known, new): (Vec<&CommittedRange>, Vec<_>) = batch.ranges.iter().partition(|moved| moved.expected.is_some());
    Ok(move_known(connection, application, &known).await? && insert_new(connection, application, &new).await?)
}

async fn move_known(connection: &mut PgConnection, application: &str, ranges: &[&CommittedRange]) -> Result<bool> {
    const MOVE: &str = "UPDATE directstream.offsets stored SET until_offset = moved.until_offset, topic_id = moved.topic_id, \
         leader_epoch = moved.leader_epoch \
         FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::text[], $6::bigint[], $7::text[], $8::integer[]) \
         moved(topic, partition, expected, expected_id, until_offset, topic_id, leader_epoch) \
         WHERE stored.application = $1 AND stored.topic = moved.topic AND stored.partition = moved.partition \
         AND stored.until_offset = moved.expected AND stored.topic_id IS NOT DISTINCT FROM moved.expected_id";
    if ranges.is_empty() {
        return Ok(true);
    }
    let checked = "AND stored.until_offset = moved.expected";
    let update = sqlx::query(failpoint::statement(MOVE, "no_offset_check", (checked, "")))
        .bind(application)
        .bind(ranges.iter().map(|moved| moved.range.topic().to_owned()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| moved.range.partition()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| moved.expected.map(i64::from)).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| text_of(moved.expected_topic_id.as_ref())).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| moved.range.until_offset.get()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| text_of(moved.topic_id.as_ref())).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| moved.counts.leader_epoch).collect::<Vec<_>>());
    let done = answer("cannot move the offsets", update.execute(connection)).await?;
    Ok(signed(done.rows_affected()) == length(ranges.len()))
}

async fn insert_new(connection: &mut PgConnection, application: &str, ranges: &[&CommittedRange]) -> Result<bool> {
    // A key that is there already is a conflict: somebody else inserted it.
    const INSERT: &str = "INSERT INTO directstream.offsets (application, topic, partition, until_offset, topic_id, \
         leader_epoch) SELECT $1, * FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::text[], $6::integer[]) \
         ON CONFLICT DO NOTHING";
    // The ledger knows the partition and its offset is gone: it is not new, and reading it from its beginning would double.
    const GONE: &str = "SELECT known.topic, known.partition FROM directstream.batch_ranges known \
         JOIN unnest($2::text[], $3::integer[]) joining(topic, partition) USING (topic, partition) \
         WHERE known.application = $1 AND NOT EXISTS (SELECT FROM directstream.offsets stored WHERE \
         stored.application = $1 AND stored.topic = known.topic AND stored.partition = known.partition) LIMIT 1";
    if ranges.is_empty() {
        return Ok(true);
    }
    let gone = sqlx::query_as::<_, (String, i32)>(GONE)
        .bind(application)
        .bind(ranges.iter().map(|moved| moved.range.topic().to_owned()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| moved.range.partition()).collect::<Vec<_>>());
    let gone = answer("cannot look new partitions up in the ledger", gone.fetch_optional(&mut *connection)).await?;
    if let Some((topic, partition)) = gone {
        return Err(offset_gone(TopicPartition::new(topic, partition)));
    }
    let insert = sqlx::query(INSERT)
        .bind(application)
        .bind(ranges.iter().map(|moved| moved.range.topic().to_owned()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| moved.range.partition()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| moved.range.until_offset.get()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| text_of(moved.topic_id.as_ref())).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| moved.counts.leader_epoch).collect::<Vec<_>>());
    let done = answer("cannot insert the offsets of new partitions", insert.execute(connection)).await?;
    Ok(signed(done.rows_affected()) == length(ranges.len()))
}

/// Inserts the first positions; equal ones that are there already are as good.
pub(super) async fn first_positions(
    connection: &mut PgConnection,
    application: &str,
    positions: &[StoredPosition],
) -> Result<bool> {
    const INSERT: &str = "WITH wanted AS (SELECT * FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::text[], \
         $6::integer[]) wanted(topic, partition, until_offset, topic_id, leader_epoch)), \
         added AS (INSERT INTO directstream.offsets (application, topic, partition, until_offset, topic_id, leader_epoch) \
         SELECT $1, * FROM wanted ON CONFLICT DO NOTHING RETURNING 1) \
         SELECT (SELECT count(*) FROM added) + (SELECT count(*) FROM directstream.offsets o JOIN wanted w \
         USING (topic, partition, until_offset) WHERE o.application = $1 AND o.topic_id IS NOT DISTINCT FROM w.topic_id)";
    let insert = sqlx::query_scalar(INSERT)
        .bind(application)
        .bind(positions.iter().map(|position| position.topic_partition.topic.to_string()).collect::<Vec<_>>())
        .bind(positions.iter().map(|position| position.topic_partition.partition).collect::<Vec<_>>())
        .bind(positions.iter().map(|position| position.until_offset.get()).collect::<Vec<_>>())
        .bind(positions.iter().map(|position| text_of(position.topic_id.as_ref())).collect::<Vec<_>>())
        .bind(positions.iter().map(|position| position.leader_epoch).collect::<Vec<_>>());
    // Those that were there, as the statement saw them at its start, and those that it added.
    let same: i64 = answer("cannot write the first positions", insert.fetch_one(connection)).await?;
    Ok(same == length(positions.len()))
}

/// Writes the ledger row and its ranges, and forgets a few old ones.
pub(super) async fn ledger(
    connection: &mut PgConnection,
    settings: &StoreSettings,
    term: Term,
    batch: &BatchCommit,
) -> Result<()> {
    const BATCH: &str = "INSERT INTO directstream.batches (application, batch_seq, batch_time, epoch, records, gaps, bytes, \
         rows, dead_letters, lost_ranges, processing_started_at, committed_at, build) \
         VALUES ($1, $2, timestamptz 'epoch' + $3 * interval '1 millisecond', $4, $5, $6, $7, $8, $9, $10, \
         timestamptz 'epoch' + $11 * interval '1 millisecond', clock_timestamp(), $12)";
    let totals = Totals::of(batch);
    let what = "cannot write the ledger";
    let insert = sqlx::query(BATCH)
        .bind(&settings.application)
        .bind(signed(batch.batch_seq))
        .bind(batch.batch_time.as_ms())
        .bind(signed(term.epoch))
        .bind(totals.records)
        .bind(totals.gaps)
        .bind(totals.bytes)
        .bind(totals.rows)
        .bind(totals.dead_letters)
        .bind(totals.lost_ranges)
        .bind(batch.processing_started_ms)
        .bind(&settings.build);
    answer(what, insert.execute(&mut *connection)).await?;
    ledger_ranges(connection, &settings.application, batch).await?;
    if batch.batch_seq.is_multiple_of(FORGET_EVERY) { forget(connection, settings, batch).await } else { Ok(()) }
}

async fn ledger_ranges(connection: &mut PgConnection, application: &str, batch: &BatchCommit) -> Result<()> {
    const RANGES: &str = "INSERT INTO directstream.batch_ranges (application, batch_seq, topic, partition, from_offset, \
         until_offset, records, gaps, bytes, checksum, topic_id, leader_epoch) SELECT $1, $2, * FROM unnest($3::text[], \
         $4::integer[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], \
         $12::integer[])";
    let ranges: Vec<&CommittedRange> = batch.ranges.iter().filter(|moved| !moved.range.is_empty()).collect();
    if ranges.is_empty() {
        return Ok(());
    }
    let insert = sqlx::query(RANGES)
        .bind(application)
        .bind(signed(batch.batch_seq))
        .bind(ranges.iter().map(|moved| moved.range.topic().to_owned()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| moved.range.partition()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| moved.range.from_offset.get()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| moved.range.until_offset.get()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| signed(moved.counts.records)).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| signed(moved.counts.gaps)).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| signed(moved.counts.bytes)).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| moved.counts.checksum.cast_signed()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| text_of(moved.topic_id.as_ref())).collect::<Vec<_>>())
        .bind(ranges.iter().map(|moved| moved.counts.leader_epoch).collect::<Vec<_>>());
    answer("cannot write the ledger's ranges", insert.execute(connection)).await.map(drop)
}

/// Takes batches out of the ledger that are older than the retention, the oldest first, a few at a time.
async fn forget(connection: &mut PgConnection, settings: &StoreSettings, batch: &BatchCommit) -> Result<()> {
    const FORGET: &str = "DELETE FROM directstream.batches WHERE application = $1 AND batch_seq IN (SELECT batch_seq FROM \
         directstream.batches WHERE application = $1 AND batch_seq <= $2 ORDER BY batch_seq LIMIT $3) \
         AND committed_at < clock_timestamp() - $4 * interval '1 second'";
    let keep = batch.batch_seq.saturating_sub(settings.ledger_batches_min);
    let delete = sqlx::query(FORGET)
        .bind(&settings.application)
        .bind(signed(keep))
        .bind(FORGET_PER_BATCH)
        .bind(signed(settings.ledger_retention.as_secs()));
    answer("cannot shorten the ledger", delete.execute(connection)).await.map(drop)
}

/// The compare-and-swap on the batch number (I3, I5), then the constraints that wait for COMMIT: checked now, so that a row
/// which breaks one is refused here and does not become a doubt. Both fail in a transaction that has failed before, which
/// COMMIT would not: it answers ROLLBACK, and sqlx takes that for success.
pub(super) async fn advance(
    connection: &mut PgConnection,
    settings: &StoreSettings,
    term: Term,
    batch: &BatchCommit,
) -> Result<bool> {
    const ADVANCE: &str = "UPDATE directstream.applications SET batch_seq = $4, \
         last_batch_time = timestamptz 'epoch' + $5 * interval '1 millisecond', open_seq = NULL, \
         seen_at = clock_timestamp() WHERE application = $1 AND epoch = $2 AND owner = $3::uuid AND batch_seq = $6 \
         AND open_seq IS NOT DISTINCT FROM $7";
    let guarded = !batch.user_code.is_empty() && !failpoint::mutant("no_open_seq");
    let open = guarded.then(|| signed(batch.batch_seq));
    let unfenced = ("epoch = $2 AND owner = $3::uuid AND batch_seq = $6", "epoch >= $2 AND $3 <> '' AND $6 >= 0");
    let update = sqlx::query(failpoint::statement(ADVANCE, "epoch_before_transaction", unfenced))
        .bind(&settings.application)
        .bind(signed(term.epoch))
        .bind(settings.owner.to_string())
        .bind(signed(batch.batch_seq))
        .bind(batch.batch_time.as_ms())
        .bind(signed(term.batch_seq))
        .bind(open);
    let done = answer("cannot advance the batch number", update.execute(&mut *connection)).await?;
    let constraints = sqlx::raw_sql("SET CONSTRAINTS ALL IMMEDIATE").execute(connection);
    rows_answer("the database refused the batch", constraints).await?;
    Ok(done.rows_affected() == 1)
}
