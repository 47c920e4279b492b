//! Dead letters from outside the job: listed, shown, discarded, replayed.
//!
//! Nobody takes the application over for that. Every change is a transaction that locks the application's row first, as a
//! batch does: it comes before a batch or after it, never in the midst of one, and two commands cannot take the same letter.
//! Offsets and batch numbers stay as they are, so a live owner goes on undisturbed; a page is small, so that its heartbeat
//! waits shortly.
//!
//! A replay writes a letter's rows, deletes the letter, and says so in `dead_letters_settled`, all in one transaction: done
//! or not done, whatever happens on the way, and never twice.

use std::{collections::BTreeSet, time::Duration};

use sqlx::AssertSqlSafe;

use super::{
    inspect::Inspector,
    isolate::{Slices, write_handing_letters_back},
    ledger::unsigned,
    link::{Link, Tables, execute, fetch, no_sql},
    postgres,
    settings::{StoreSettings, TableShape},
    sqlite,
};
use crate::{
    config::StoreUrl,
    error::{Error, Result},
    types::{DeadLetter, Offset, RecordRows, TableSpec, TopicPartition},
};

/// Letters in one transaction, and bytes of their keys and values as long as there is more than one.
const PAGE_LETTERS: u32 = 500;
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// How long a transaction may take: above the server's own limits.
const PAGE_WITHIN: Duration = Duration::from_secs(330);

/// Which letters are meant; all of the application, unless something is named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LetterSelection {
    /// Only this topic.
    pub topic: Option<String>,
    /// Only this partition.
    pub partition: Option<i32>,
    /// Only this offset.
    pub offset: Option<i64>,
    /// Only those refused at this time or later: milliseconds since 1970-01-01 UTC, by the database's clock.
    pub since_ms: Option<i64>,
}

/// A dead letter without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterInfo {
    /// Its number.
    pub id: i64,
    /// The batch that it was refused in.
    pub batch_seq: u64,
    /// Where the record lies in Kafka.
    pub topic_partition: TopicPartition,
    /// Its offset.
    pub offset: Offset,
    /// The step that refused it: `decode`, `convert`, `write` or `window`.
    pub stage: String,
    /// Why.
    pub reason: String,
    /// The table that could not take it.
    pub output: Option<String>,
    /// Bytes of its key; `None` is Kafka's null.
    pub key_bytes: Option<u64>,
    /// Bytes of its value; `None` is Kafka's null.
    pub value_bytes: Option<u64>,
    /// When it was refused, by the database's clock: milliseconds since 1970-01-01 UTC.
    pub refused_at_ms: i64,
}

/// A dead letter, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLetter {
    /// All but the bytes.
    pub info: LetterInfo,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's headers: a JSON array of `[name, base64 or null]`.
    pub headers: String,
    /// The record's timestamp in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: Option<i64>,
}

/// What the records of letters are now.
#[derive(Debug)]
pub struct LetterRows {
    /// Those that have rows.
    pub records: Box<dyn RecordRows>,
    /// Those that are refused again, before the database was asked.
    pub refused: Vec<DeadLetter>,
}

/// What a replay came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Letters whose rows are written, and which are gone.
    pub replayed: u64,
    /// Letters that were refused again, and stay.
    pub refused: u64,
    /// Rows written.
    pub rows: u64,
}

/// The dead letters of an application.
#[derive(Debug)]
pub struct Letters {
    link: Link,
    settings: StoreSettings,
}

type InfoRow = (i64, i64, String, i32, i64, String, String, Option<String>, Option<i64>, Option<i64>, i64);
type BytesRow = (Option<Vec<u8>>, Option<Vec<u8>>, String, Option<i64>);

/// What makes rows of letters, for tables of these shapes.
type Rows<'r> = dyn Fn(&[TableShape], &[StoredLetter]) -> Result<LetterRows> + Sync + 'r;

/// Where a page ends: topic, partition, offset and number of its last letter.
type Place = (String, i32, i64, i64);

/// The conditions of a selection; `$1` is the application, `$2` to `$5` the selection.
const SELECTED: &str = "application = $1 AND (CAST($2 AS text) IS NULL OR topic = $2) \
     AND (CAST($3 AS integer) IS NULL OR partition = $3) AND (CAST($4 AS bigint) IS NULL OR \"offset\" = $4)";

impl Letters {
    /// Connects; changes nothing, and does not migrate.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if the URL cannot be used, the schema is not the one of this program, or the store does
    /// not know the application; [`Unavailable`](crate::ErrorKind::Unavailable) if the store does not answer.
    pub async fn open(url: &StoreUrl, application: &str) -> Result<Self> {
        Self::on(url, Inspector::open(url, application).await?).await
    }

    /// Connects to replay or to discard: a PostgreSQL session has to be ours alone.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Config`](crate::ErrorKind::Config) also behind a pooler that gives sessions away between
    /// transactions.
    pub async fn open_to_change(url: &StoreUrl, application: &str) -> Result<Self> {
        let connecting = Link::connect_to_write(url, application);
        Self::on(url, Inspector::on(url, application, connecting).await?).await
    }

    async fn on(url: &StoreUrl, mut inspector: Inspector) -> Result<Self> {
        inspector.known().await?;
        let application = inspector.application.clone();
        let mut link = inspector.into_link();
        link.set_limits().await?;
        Ok(Self { link, settings: StoreSettings::new(url.clone(), application) })
    }

    /// How many letters are selected.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the store does not answer.
    pub async fn count(&mut self, selection: &LetterSelection) -> Result<u64> {
        if let Link::Checkpoint(look) = &mut self.link {
            return Ok(look.letters(selection)?.len() as u64);
        }
        let sql = format!("SELECT count(*) FROM {{}}dead_letters WHERE {SELECTED} AND {}", self.since());
        let counted = fetch!(
            &mut self.link,
            "cannot count the dead letters",
            (i64,),
            sql,
            &self.settings.application,
            selection.topic.as_deref(),
            selection.partition,
            selection.offset,
            selection.since_ms
        )?;
        counted.first().map_or(Ok(0), |row| unsigned("dead_letters", row.0))
    }

    fn since(&self) -> String {
        format!("(CAST($5 AS bigint) IS NULL OR {} >= $5)", self.link.ms("refused_at"))
    }

    /// Selected letters in the order of topic, partition and offset.
    ///
    /// # Errors
    /// As [`count`](Self::count).
    pub async fn list(&mut self, selection: &LetterSelection, limit: u32) -> Result<Vec<LetterInfo>> {
        if let Link::Checkpoint(look) = &mut self.link {
            let letters = look.letters(selection)?.into_iter().take(limit as usize);
            return Ok(letters.map(|letter| letter.info).collect());
        }
        self.page(selection, &start(), i64::MAX, limit).await
    }

    /// Letters after `after` with numbers up to `newest`.
    async fn page(
        &mut self,
        selection: &LetterSelection,
        after: &Place,
        newest: i64,
        limit: u32,
    ) -> Result<Vec<LetterInfo>> {
        let sql = format!(
            "SELECT id, batch_seq, topic, partition, \"offset\", stage, reason, output, CAST(length(key) AS bigint), \
             CAST(length(value) AS bigint), {} FROM {{}}dead_letters WHERE {SELECTED} AND {} \
             AND (topic, partition, \"offset\", id) > ($6, $7, $8, $9) AND id <= $10 \
             ORDER BY topic, partition, \"offset\", id LIMIT $11",
            self.link.ms("refused_at"),
            self.since()
        );
        let rows = fetch!(
            &mut self.link,
            "cannot read the dead letters",
            InfoRow,
            sql,
            &self.settings.application,
            selection.topic.as_deref(),
            selection.partition,
            selection.offset,
            selection.since_ms,
            &after.0,
            after.1,
            after.2,
            after.3,
            newest,
            i64::from(limit)
        )?;
        rows.into_iter().map(info).collect()
    }

    /// A letter with its bytes; `None` if it is gone.
    ///
    /// # Errors
    /// As [`count`](Self::count).
    pub async fn read(&mut self, info: LetterInfo) -> Result<Option<StoredLetter>> {
        if let Link::Checkpoint(look) = &mut self.link {
            let place = LetterSelection {
                topic: Some(info.topic_partition.topic.to_string()),
                partition: Some(info.topic_partition.partition),
                offset: Some(info.offset.get()),
                since_ms: None,
            };
            let there = look.letters(&place)?.into_iter().find(|letter| letter.info.batch_seq == info.batch_seq);
            return Ok(there.map(|letter| StoredLetter { info, ..letter }));
        }
        let sql = format!(
            "SELECT key, value, CAST(headers AS text), COALESCE(timestamp_ms, {}) FROM {{}}dead_letters WHERE application = $1 AND id = $2",
            self.link.ms("timestamp")
        );
        let what = "cannot read a dead letter";
        let rows = fetch!(&mut self.link, what, BytesRow, sql, &self.settings.application, info.id)?;
        let letter = |(key, value, headers, timestamp_ms)| StoredLetter { info, key, value, headers, timestamp_ms };
        Ok(rows.into_iter().next().map(letter))
    }

    /// Deletes the selected letters, some at a time, each time in one transaction with the note that they were discarded. Letters
    /// that come meanwhile stay. How many were discarded.
    ///
    /// # Errors
    /// As [`count`](Self::count); what was discarded before stays so.
    pub async fn discard(&mut self, selection: &LetterSelection) -> Result<u64> {
        let (newest, mut after, mut discarded) = (self.newest().await?, start(), 0);
        while let Some((count, last)) = in_time(self.discard_page(selection, &after, newest)).await? {
            discarded += count;
            after = last;
        }
        Ok(discarded)
    }

    async fn discard_page(
        &mut self,
        selection: &LetterSelection,
        after: &Place,
        newest: i64,
    ) -> Result<Option<(u64, Place)>> {
        self.begin().await?;
        let page = self.page(selection, after, newest, PAGE_LETTERS).await?;
        for letter in &page {
            self.settle(letter.id, "discarded").await?;
        }
        self.simple("COMMIT").await?;
        Ok(page.last().map(|last| (page.len() as u64, place(last))))
    }

    /// Writes the rows of the selected letters into `tables`, some at a time, in the order of topic, partition and offset.
    ///
    /// `rows` makes rows of letters. A letter that is refused again, by it or by the database, stays, with the reason of today.
    ///
    /// # Errors
    /// As [`count`](Self::count); [`Config`](crate::ErrorKind::Config) if a table is missing or has another shape. What was replayed
    /// before stays so.
    pub async fn replay(
        &mut self,
        selection: &LetterSelection,
        specs: &[TableSpec],
        rows: &Rows<'_>,
    ) -> Result<Replayed> {
        // A replay makes no table: the job does, at its start.
        self.settings.tables = specs.iter().map(|spec| TableSpec { create: false, ..spec.clone() }).collect();
        let tables = self.link.tables(&self.settings.tables).await?;
        let (newest, mut after, mut all) = (self.newest().await?, start(), Replayed::default());
        while let Some((done, last)) = in_time(self.replay_page(selection, &tables, (&after, newest), rows)).await? {
            all.replayed += done.replayed;
            all.refused += done.refused;
            all.rows += done.rows;
            after = last;
        }
        Ok(all)
    }

    /// One page, and where it ended; `None` if there was none.
    async fn replay_page(
        &mut self,
        selection: &LetterSelection,
        tables: &Tables,
        (after, newest): (&Place, i64),
        rows: &Rows<'_>,
    ) -> Result<Option<(Replayed, Place)>> {
        self.begin().await?;
        let page = small_page(self.page(selection, after, newest, PAGE_LETTERS).await?);
        let Some(last) = page.last().map(place) else {
            self.simple("ROLLBACK").await?;
            return Ok(None);
        };
        let mut letters = Vec::with_capacity(page.len());
        for info in page {
            letters.extend(self.read(info).await?);
        }
        let LetterRows { records, refused } = rows(&tables.shapes(), &letters)?;
        let (written, refused_by_store) = self.write(tables, &*records).await?;
        let done = self.settle_all(&letters, refused.iter().chain(&refused_by_store)).await?;
        self.simple("COMMIT").await?;
        Ok(Some((Replayed { rows: written, ..done }, last)))
    }

    async fn write(&mut self, tables: &Tables, records: &dyn RecordRows) -> Result<(u64, Vec<DeadLetter>)> {
        let write = async |slices: &mut dyn Slices| write_handing_letters_back(records, slices).await;
        let (isolated, refused) = match (&mut self.link, tables) {
            (Link::Postgres(link), Tables::Postgres(tables)) => {
                write(&mut postgres::slices(link, &self.settings, tables)).await?
            }
            (Link::Sqlite(link), Tables::Sqlite(tables)) => {
                write(&mut sqlite::slices(link, &self.settings, tables).await?).await?
            }
            _ => return Err(Error::internal("the tables are another store's")),
        };
        Ok((isolated.rows, refused))
    }

    /// Deletes the letters that were taken, and notes for the others why they are refused now.
    async fn settle_all<'l>(
        &mut self,
        letters: &[StoredLetter],
        refused: impl Iterator<Item = &'l DeadLetter>,
    ) -> Result<Replayed> {
        const REFUSED: &str = "UPDATE {}dead_letters SET stage = $1, reason = $2, output = $3 WHERE id = $4";
        let mut done = Replayed::default();
        let mut stay = BTreeSet::new();
        for letter in refused {
            // In a page no place comes twice.
            let same = |stored: &&StoredLetter| {
                stored.info.topic_partition == letter.topic_partition && stored.info.offset == letter.offset
            };
            let stored = letters.iter().find(same);
            let id = stored.ok_or_else(|| Error::internal("a record that was not replayed is refused"))?.info.id;
            let (stage, reason) = (letter.stage.to_string(), letter.reason.replace('\0', ""));
            let output = letter.output.as_deref();
            execute!(&mut self.link, "cannot note a refused letter", REFUSED, &stage, &reason, output, id)?;
            stay.insert(id);
            done.refused += 1;
        }
        for letter in letters.iter().filter(|letter| !stay.contains(&letter.info.id)) {
            self.settle(letter.info.id, "replayed").await?;
            done.replayed += 1;
        }
        Ok(done)
    }

    /// Deletes a letter, and notes what became of it.
    async fn settle(&mut self, id: i64, outcome: &str) -> Result<()> {
        const NOTE: &str = "INSERT INTO {}dead_letters_settled (letter, application, batch_seq, topic, partition, \"offset\", \
             stage, output, outcome, build) SELECT id, application, batch_seq, topic, partition, \"offset\", stage, output, $1, \
             $2 FROM {}dead_letters WHERE id = $3";
        let what = "cannot settle a dead letter";
        let noted = execute!(&mut self.link, what, NOTE, outcome, &self.settings.build, id)?;
        let deleted = execute!(&mut self.link, what, "DELETE FROM {}dead_letters WHERE id = $1", id)?;
        if (noted, deleted) != (1, 1) {
            return Err(Error::internal(format!("a dead letter is gone although it is locked letter={id}")));
        }
        Ok(())
    }

    /// The newest letter's number: letters that come later are none of this command's.
    async fn newest(&mut self) -> Result<i64> {
        let sql = "SELECT COALESCE(max(id), 0) FROM {}dead_letters WHERE application = $1";
        let rows = fetch!(&mut self.link, "cannot read the dead letters", (i64,), sql, &self.settings.application)?;
        Ok(rows.first().map_or(0, |row| row.0))
    }

    /// Begins a transaction under the application's lock. An error leaves it to the end of the connection, which rolls back.
    async fn begin(&mut self) -> Result<()> {
        let lock = match &self.link {
            Link::Postgres(_) => {
                self.simple("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
                "SELECT epoch FROM {}applications WHERE application = $1 FOR UPDATE"
            }
            Link::Sqlite(_) => {
                self.simple("BEGIN IMMEDIATE").await?;
                "SELECT epoch FROM {}applications WHERE application = $1"
            }
            Link::Checkpoint(_) => return Err(no_sql("cannot discard a dead letter")),
        };
        let locked =
            fetch!(&mut self.link, "cannot lock the application's row", (i64,), lock, &self.settings.application)?;
        if locked.is_empty() {
            let application = &self.settings.application;
            return Err(Error::config(format!("the application's row is gone application={application}")));
        }
        Ok(())
    }

    async fn simple(&mut self, sql: &str) -> Result<()> {
        execute!(&mut self.link, "cannot change the dead letters", sql).map(drop)
    }
}

/// Waits for a page, but not for ever. What became of it is then known only to the store: all of it was done, or nothing.
async fn in_time<T>(page: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(PAGE_WITHIN, page).await {
        Ok(done) => done,
        Err(_) => Err(Error::unavailable(format!("the store does not answer seconds={}", PAGE_WITHIN.as_secs()))),
    }
}

/// Before every letter.
fn start() -> Place {
    (String::new(), -1, -1, -1)
}

fn place(letter: &LetterInfo) -> Place {
    let TopicPartition { topic, partition } = &letter.topic_partition;
    (topic.to_string(), *partition, letter.offset.get(), letter.id)
}

/// The beginning of a page that is not too large, and has no place twice: a topic that was made anew has its offsets again.
fn small_page(page: Vec<LetterInfo>) -> Vec<LetterInfo> {
    let mut bytes = 0;
    let mut small: Vec<LetterInfo> = Vec::new();
    for letter in page {
        bytes += letter.key_bytes.unwrap_or(0) + letter.value_bytes.unwrap_or(0);
        let again = small
            .last()
            .is_some_and(|last| last.topic_partition == letter.topic_partition && last.offset == letter.offset);
        if again || (!small.is_empty() && bytes > PAGE_BYTES) {
            break;
        }
        small.push(letter);
    }
    small
}

fn info(row: InfoRow) -> Result<LetterInfo> {
    let (id, batch_seq, topic, partition, offset, stage, reason, output, key, value, refused_at_ms) = row;
    let bytes = |bytes: Option<i64>| bytes.map(|bytes| unsigned("bytes", bytes)).transpose();
    Ok(LetterInfo {
        id,
        batch_seq: unsigned("batch_seq", batch_seq)?,
        topic_partition: TopicPartition::new(topic, partition),
        offset: Offset::new(offset).ok_or_else(|| Error::corrupt("a dead letter's offset is negative"))?,
        stage,
        reason,
        output,
        key_bytes: bytes(key)?,
        value_bytes: bytes(value)?,
        refused_at_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(offset: i64, value_bytes: u64) -> LetterInfo {
        LetterInfo {
            id: offset,
            batch_seq: 1,
            topic_partition: TopicPartition::new("t", 0),
            offset: Offset::clamped(offset),
            stage: "write".to_owned(),
            reason: String::new(),
            output: None,
            key_bytes: None,
            value_bytes: Some(value_bytes),
            refused_at_ms: 0,
        }
    }

    #[test]
    fn a_page_ends_before_it_is_too_large_and_before_a_place_comes_again() {
        let lengths = |letters: Vec<LetterInfo>| small_page(letters).len();
        assert_eq!(lengths(vec![letter(1, PAGE_BYTES / 2), letter(2, PAGE_BYTES / 2), letter(3, 1)]), 2);
        assert_eq!(lengths(vec![letter(1, PAGE_BYTES * 2), letter(2, 1)]), 1);
        assert_eq!(lengths(vec![letter(1, 1), letter(2, 1), letter(2, 1), letter(3, 1)]), 2);
        assert_eq!(lengths(Vec::new()), 0);
    }
}
