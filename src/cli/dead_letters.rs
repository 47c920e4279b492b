//! `directstream dead-letters`: the records that were refused, listed, shown, replayed or discarded.

use std::{fmt::Write as _, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::{
    CommandEnd, Console, Table,
    args::{DeadLettersChangeArgs, DeadLettersFilter, DeadLettersListArgs, DeadLettersShowArgs, RecordPlace},
    bytes::{Bytes, Header},
    console::time,
    job::load_job,
};
use crate::{
    commit::{LetterInfo, LetterRows, LetterSelection, Letters, StoredLetter, TableShape},
    config::Job,
    error::{Error, Result, Stage},
    report::printable,
    stream::in_time,
    transform::records_again,
    types::{BatchTime, Chunk, ColumnShape, Headers, MemoryChunk, MemoryRecord, Record},
};

/// Letters of one place that `show` shows: a topic that was made anew has its offsets again.
const SHOWN_MAX: u32 = 10;

#[derive(Debug, Serialize)]
struct Listed {
    letter: i64,
    topic: String,
    partition: i32,
    offset: i64,
    batch: u64,
    stage: String,
    /// The table that could not take it; null if none was asked.
    output: Option<String>,
    reason: String,
    /// Null is Kafka's null.
    key_bytes: Option<u64>,
    value_bytes: Option<u64>,
    /// RFC 3339 in UTC.
    refused_at: String,
}

#[derive(Debug, Serialize)]
struct Listing {
    /// How many are selected; `letters` may hold fewer.
    total: u64,
    letters: Vec<Listed>,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    listed: Listed,
    /// RFC 3339 in UTC; null if the record had none.
    timestamp: Option<String>,
    headers: Vec<Header>,
    key: Option<Bytes>,
    value: Option<Bytes>,
}

/// What `replay` and `discard` did, or would do.
#[derive(Debug, Serialize)]
struct Changed {
    executed: bool,
    selected: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_again: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discarded: Option<u64>,
}

/// `dead-letters list`.
pub(super) async fn list(args: DeadLettersListArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(&args.job)?;
    let selection = selected(&args.filter);
    let listing = async {
        let mut letters = open(&job).await?;
        let total = letters.count(&selection).await?;
        let listed = letters.list(&selection, args.limit).await?;
        Ok(Listing { total, letters: listed.into_iter().map(Listed::of).collect() })
    };
    let listing = in_time(&job, listing).await?;
    console.print(&listing, list_text)?;
    Ok(CommandEnd::Done)
}

/// `dead-letters show`.
pub(super) async fn show(args: DeadLettersShowArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(&args.job)?;
    let found = async {
        let mut letters = open(&job).await?;
        let mut found = Vec::new();
        for info in letters.list(&at(&args.place), SHOWN_MAX).await? {
            found.extend(letters.read(info).await?);
        }
        Ok(found)
    };
    let found = in_time(&job, found).await?;
    if found.is_empty() {
        return Err(no_letter(&args.place));
    }
    let shown = found.into_iter().map(|letter| Shown::of(letter, args.bytes)).collect::<Result<Vec<_>>>()?;
    console.print(&shown, |shown| shown.iter().map(show_text).collect::<Vec<_>>().join("\n\n"))?;
    Ok(CommandEnd::Done)
}

/// `dead-letters discard`.
pub(super) async fn discard(args: DeadLettersChangeArgs, console: &Console) -> Result<CommandEnd> {
    let (_, mut letters, selections, selected) = begin(&args).await?;
    let mut discarded = 0;
    if args.execute {
        for selection in &selections {
            discarded += letters.discard(selection).await.map_err(|error| error.at(Stage::Commit))?;
        }
    }
    let discarded = args.execute.then_some(discarded);
    let changed =
        Changed { executed: args.execute, selected, replayed: None, refused_again: None, rows: None, discarded };
    console.print(&changed, |changed| match changed.discarded {
        Some(discarded) => format!("discarded: {discarded}"),
        None => format!("would discard: {}\nAdd --execute to do it.", changed.selected),
    })?;
    Ok(CommandEnd::Done)
}

/// `dead-letters replay`.
pub(super) async fn replay(args: DeadLettersChangeArgs, console: &Console) -> Result<CommandEnd> {
    let (job, mut letters, selections, selected) = begin(&args).await?;
    let (mut replayed, mut refused, mut rows) = (0, 0, 0);
    if args.execute {
        let now = BatchTime::from_ms(console.clock().now_ms());
        let rows_of = |shapes: &[TableShape], letters: &[StoredLetter]| rows_again(&job, now, shapes, letters);
        for selection in &selections {
            let done = letters.replay(selection, &job.outputs, &rows_of).await;
            let done = done.map_err(|error| error.at(Stage::Commit))?;
            replayed += done.replayed;
            refused += done.refused;
            rows += done.rows;
        }
    }
    let told = |count: u64| args.execute.then_some(count);
    let changed = Changed {
        executed: args.execute,
        selected,
        replayed: told(replayed),
        refused_again: told(refused),
        rows: told(rows),
        discarded: None,
    };
    console.print(&changed, |changed| match (changed.replayed, changed.refused_again, changed.rows) {
        (Some(replayed), Some(refused), Some(rows)) => {
            format!("replayed: {replayed}\nrefused again: {refused}\nrows: {rows}")
        }
        _ => format!("would replay: {}\nAdd --execute to do it.", changed.selected),
    })?;
    Ok(CommandEnd::Done)
}

/// What both changes begin with: the job, its letters, which of them are meant, and how many.
async fn begin(args: &DeadLettersChangeArgs) -> Result<(Job, Letters, Vec<LetterSelection>, u64)> {
    let job = load_job(&args.job)?;
    let selections: Vec<LetterSelection> =
        if args.places.is_empty() { vec![selected(&args.filter)] } else { args.places.iter().map(at).collect() };
    let opened = async {
        let mut letters = Letters::open_to_change(&job.store.url, &job.name).await?;
        let mut total = 0;
        for (index, selection) in selections.iter().enumerate() {
            let count = letters.count(selection).await?;
            if let (0, Some(place)) = (count, args.places.get(index)) {
                return Err(no_letter(place));
            }
            total += count;
        }
        Ok((letters, total))
    };
    let (letters, total) = in_time(&job, opened).await?;
    Ok((job, letters, selections, total))
}

async fn open(job: &Job) -> Result<Letters> {
    Letters::open(&job.store.url, &job.name).await
}

fn selected(filter: &DeadLettersFilter) -> LetterSelection {
    LetterSelection { topic: filter.topic.clone(), partition: filter.partition, offset: None, since_ms: filter.since }
}

fn at(place: &RecordPlace) -> LetterSelection {
    LetterSelection {
        topic: Some(place.topic.clone()),
        partition: Some(place.partition),
        offset: Some(place.offset),
        since_ms: None,
    }
}

fn no_letter(place: &RecordPlace) -> Error {
    Error::config(format!(
        "there is no dead letter of this record topic={} partition={} offset={}",
        printable(&place.topic),
        place.partition,
        place.offset
    ))
}

/// The records of letters, as the job's tables take them now.
fn rows_again(job: &Job, now: BatchTime, shapes: &[TableShape], letters: &[StoredLetter]) -> Result<LetterRows> {
    let columns: Vec<Vec<ColumnShape>> = shapes.iter().map(|shape| shape.columns.clone()).collect();
    let records = letters.iter().map(record).collect::<Result<Vec<Record>>>()?;
    let (records, refused) = records_again(job.input.format, now, &job.outputs, &columns, records.into_iter())?;
    Ok(LetterRows { records, refused })
}

fn record(letter: &StoredLetter) -> Result<Record> {
    let record = MemoryRecord {
        offset: letter.info.offset,
        key: letter.key.clone(),
        value: letter.value.clone(),
        headers: headers(letter)?,
        timestamp_ms: letter.timestamp_ms,
    };
    let topic_partition = letter.info.topic_partition.clone();
    let chunk = Arc::new(Chunk::Memory(MemoryChunk { topic_partition, records: vec![record] }));
    let record = chunk.records().next();
    record.ok_or_else(|| Error::internal("a chunk of one record has none"))
}

fn headers(letter: &StoredLetter) -> Result<Headers> {
    let corrupt = || Error::corrupt(format!("the headers of a dead letter cannot be read letter={}", letter.info.id));
    let pairs: Vec<(String, Option<String>)> = serde_json::from_str(&letter.headers).map_err(|_| corrupt())?;
    let decode = |(name, value): (String, Option<String>)| {
        let value = value.map(|text| BASE64_STANDARD.decode(text).map_err(|_| corrupt())).transpose()?;
        Ok((name, value))
    };
    pairs.into_iter().map(decode).collect()
}

impl Listed {
    fn of(info: LetterInfo) -> Self {
        Self {
            letter: info.id,
            topic: info.topic_partition.topic.to_string(),
            partition: info.topic_partition.partition,
            offset: info.offset.get(),
            batch: info.batch_seq,
            stage: info.stage,
            output: info.output,
            reason: info.reason,
            key_bytes: info.key_bytes,
            value_bytes: info.value_bytes,
            refused_at: time(info.refused_at_ms),
        }
    }
}

impl Shown {
    fn of(letter: StoredLetter, limit: usize) -> Result<Self> {
        let shown = |bytes: &Vec<u8>| Bytes::of(bytes, limit);
        let header = |(name, value): (String, Option<Vec<u8>>)| Header { name, value: value.as_ref().map(shown) };
        Ok(Self {
            timestamp: letter.timestamp_ms.map(time),
            headers: headers(&letter)?.into_iter().map(header).collect(),
            key: letter.key.as_ref().map(shown),
            value: letter.value.as_ref().map(shown),
            listed: Listed::of(letter.info),
        })
    }
}

fn list_text(listing: &Listing) -> String {
    let headings = ["TOPIC", "PARTITION", "OFFSET", "BATCH", "STAGE", "OUTPUT", "BYTES", "REFUSED-AT", "REASON"];
    let mut table = Table::new(headings).right([1, 2, 3, 6]);
    for letter in &listing.letters {
        table.row([
            letter.topic.clone(),
            letter.partition.to_string(),
            letter.offset.to_string(),
            letter.batch.to_string(),
            letter.stage.clone(),
            letter.output.clone().unwrap_or_default(),
            (letter.key_bytes.unwrap_or(0) + letter.value_bytes.unwrap_or(0)).to_string(),
            letter.refused_at.clone(),
            letter.reason.clone(),
        ]);
    }
    let shown = listing.letters.len() as u64;
    let more = if shown < listing.total { format!("\n{shown} of {}", listing.total) } else { String::new() };
    table.render() + &more
}

fn show_text(shown: &Shown) -> String {
    let listed = &shown.listed;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<11}{}", printable(value));
    };
    line("record", &format!("{}:{}:{}", listed.topic, listed.partition, listed.offset));
    line("timestamp", shown.timestamp.as_deref().unwrap_or("-"));
    line("refused at", &listed.refused_at);
    line("batch", &listed.batch.to_string());
    line("stage", &listed.stage);
    line("output", listed.output.as_deref().unwrap_or("-"));
    line("reason", &listed.reason);
    let bytes = |bytes: &Option<Bytes>| bytes.as_ref().map_or_else(|| "null".to_owned(), Bytes::shown);
    for header in &shown.headers {
        line("header", &format!("{}: {}", header.name, bytes(&header.value)));
    }
    line("key", &bytes(&shown.key));
    line("value", &bytes(&shown.value));
    text
}
