//! Dead letters beside the ledger: which each batch has, what became of them, and what those that are kept hold.

use std::{collections::BTreeMap, ops::RangeInclusive};

use sqlx::AssertSqlSafe;

use super::{
    inspect::{Inspector, offset},
    ledger::{signed, unsigned},
    link::{Link, fetch, no_sql},
    postgres, sqlite,
};
use crate::{
    error::Result,
    types::{Offset, TopicPartition},
};

/// A dead letter of a batch, kept or settled since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerLetter {
    /// The batch that the record was refused in.
    pub batch_seq: u64,
    /// Where the record lies in Kafka. The topic's id is that of the batch's range.
    pub topic_partition: TopicPartition,
    /// Its offset.
    pub offset: Offset,
    /// The letter's number.
    pub id: i64,
    /// What became of it.
    pub fate: LetterFate,
}

/// What became of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetterFate {
    /// It is there.
    Kept {
        /// The step that refused the record: `decode`, `convert` or `write`.
        stage: String,
        /// Bytes of key, value and headers as they are kept.
        bytes: u64,
    },
    /// Its record has its rows by now.
    Replayed,
    /// It was deleted, and its record has no row.
    Discarded,
}

/// What a dead letter holds of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterContent {
    /// The letter's number.
    pub id: i64,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's headers: a JSON array of `[name, base64 or null]`.
    pub headers: String,
    /// The record's timestamp in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: Option<i64>,
}

type CountRow = (i64, i64);
type LetterRow = (i64, String, i32, i64, i64, String, String, i64);
type ContentRow = (i64, Option<Vec<u8>>, Option<Vec<u8>>, String, Option<i64>);

impl Inspector {
    /// How many dead letters each of these batches has, kept or settled; a batch without any is not among them.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn letter_counts(&mut self, batches: RangeInclusive<u64>) -> Result<BTreeMap<u64, u64>> {
        if let Link::Checkpoint(look) = &mut self.connection {
            let mut counts = BTreeMap::new();
            for letter in look.letters_of(batches)? {
                *counts.entry(letter.batch_seq).or_default() += 1;
            }
            return Ok(counts);
        }
        let sql = "SELECT batch_seq, count(*) FROM (SELECT batch_seq FROM {}dead_letters WHERE application = $1 \
             AND batch_seq BETWEEN $2 AND $3 UNION ALL SELECT batch_seq FROM {}dead_letters_settled \
             WHERE application = $1 AND batch_seq BETWEEN $2 AND $3) AS letters GROUP BY batch_seq";
        let (from, until) = (signed(*batches.start()), signed(*batches.end()));
        let what = "cannot count the dead letters";
        let rows = fetch!(&mut self.connection, what, CountRow, sql, &self.application, from, until)?;
        let count =
            |(batch_seq, count): CountRow| Ok((unsigned("batch_seq", batch_seq)?, unsigned("dead_letters", count)?));
        rows.into_iter().map(count).collect()
    }

    /// The dead letters of these batches, without their bytes, in the order of batch, topic, partition, offset and number.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn letters_of(&mut self, batches: RangeInclusive<u64>) -> Result<Vec<LedgerLetter>> {
        let mut letters = match &mut self.connection {
            Link::Checkpoint(look) => look.letters_of(batches)?,
            link => {
                let sql = "SELECT batch_seq, topic, partition, \"offset\", id, '', stage, CAST(COALESCE(length(key), 0) \
                     + COALESCE(length(value), 0) + length(CAST(headers AS text)) AS bigint) FROM {}dead_letters \
                     WHERE application = $1 AND batch_seq BETWEEN $2 AND $3 \
                     UNION ALL SELECT batch_seq, topic, partition, \"offset\", letter, outcome, stage, CAST(0 AS bigint) \
                     FROM {}dead_letters_settled WHERE application = $1 AND batch_seq BETWEEN $2 AND $3";
                let (from, until) = (signed(*batches.start()), signed(*batches.end()));
                let what = "cannot read the dead letters";
                let rows = fetch!(link, what, LetterRow, sql, &self.application, from, until)?;
                rows.into_iter().map(letter).collect::<Result<Vec<_>>>()?
            }
        };
        letters.sort_by(|a, b| {
            (a.batch_seq, &a.topic_partition, a.offset, a.id).cmp(&(b.batch_seq, &b.topic_partition, b.offset, b.id))
        });
        Ok(letters)
    }

    /// What the letters of these numbers hold, those that are there.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn letter_contents(&mut self, ids: &[i64]) -> Result<Vec<LetterContent>> {
        if let Link::Checkpoint(look) = &mut self.connection {
            return look.letter_contents(ids);
        }
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids = ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT id, key, value, CAST(headers AS text), COALESCE(timestamp_ms, {}) FROM {{}}dead_letters \
             WHERE application = $1 AND id IN ({ids})",
            self.connection.ms("timestamp")
        );
        let what = "cannot read the dead letters";
        let rows = fetch!(&mut self.connection, what, ContentRow, sql, &self.application)?;
        let content = |(id, key, value, headers, timestamp_ms): ContentRow| LetterContent {
            id,
            key,
            value,
            headers,
            timestamp_ms,
        };
        Ok(rows.into_iter().map(content).collect())
    }
}

fn letter(row: LetterRow) -> Result<LedgerLetter> {
    let (batch_seq, topic, partition, at, id, outcome, stage, bytes) = row;
    let fate = match outcome.as_str() {
        "" => LetterFate::Kept { stage, bytes: unsigned("bytes", bytes)? },
        "replayed" => LetterFate::Replayed,
        _ => LetterFate::Discarded,
    };
    let topic_partition = TopicPartition::new(topic, partition);
    Ok(LedgerLetter { batch_seq: unsigned("batch_seq", batch_seq)?, topic_partition, offset: offset(at)?, id, fate })
}
