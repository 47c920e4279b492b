//! One function, two lives: the same job over the batches of a stream, and over all of its records at once.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=lines SQLITE_FILE=lines.db cargo run --example batch_and_stream
//!
//! A stream counts words, batch by batch, and adds each batch's counts to a table. Then everything that it has ever read is
//! read once more, as one RDD, and counted by the same function: both tell the same. So a job can be tried on a piece of a
//! topic before it runs as a stream, and a table can be computed anew after the job was changed.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{
    collections::{BTreeMap, HashMap},
    env,
    time::Duration,
};

use directstream::{
    Error, Offset, OffsetRange, Record, TopicPartition,
    commit::{Inspector, LedgerBatch},
    stream::{DirectStream, StreamingContext, Termination, create_rdd},
    transform::{Rdd, Upsert},
    types::ColumnType,
};
use sqlx::{Connection, SqliteConnection};

const APPLICATION: &str = "batch-and-stream";

/// The job: how often each word is there.
fn word_counts(lines: &Rdd<Record>) -> Rdd<(String, i64)> {
    lines
        .flat_map(|line| line.text().unwrap_or_default().split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
        .map(|word| (word, 1))
        .reduce_by_key(|a, b| a + b)
}

/// The job as a stream: everything up to what is in the topic now.
async fn run_stream(topic: &DirectStream, store: &str) -> directstream::Result<()> {
    let context = StreamingContext::builder(APPLICATION, Duration::from_millis(200))
        .store(store)?
        .max_rate_per_partition(500) // records a second: several small batches instead of one
        .until_latest(true)
        .build()?;
    let lines = context.direct_stream(topic.clone())?;
    lines.transform(|batch| Ok(word_counts(&batch))).save_to_table(
        Upsert::into("word_counts")
            .key("word")
            .of_type(ColumnType::Text)
            .add("count")
            .of_type(ColumnType::BigInt)
            .create(),
    )?;
    context.start().await?;
    assert_eq!(context.await_termination().await?, Termination::ReachedLatest);
    Ok(())
}

/// One range per partition, from the first offset that a batch read to the last: the ledger's ranges have no holes.
fn all_ranges(batches: &[LedgerBatch]) -> impl Iterator<Item = OffsetRange> {
    let mut all = BTreeMap::<TopicPartition, (Offset, Offset)>::new();
    for range in batches.iter().flat_map(|batch| &batch.ranges).map(|range| &range.range) {
        let (from, until) = all.entry(range.topic_partition.clone()).or_insert((range.from_offset, range.until_offset));
        (*from, *until) = ((*from).min(range.from_offset), (*until).max(range.until_offset));
    }
    all.into_iter().map(|(topic_partition, (from, until))| OffsetRange::new(topic_partition, from, until))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let store = format!("sqlite:{}", setting("SQLITE_FILE", "lines.db"));
    let topic = DirectStream::topics([setting("TOPIC", "lines")])
        .bootstrap_servers(setting("BOOTSTRAP_SERVERS", "localhost:9092"));

    run_stream(&topic, &store).await?;
    let mut file = SqliteConnection::connect(&store).await?;
    let streamed: Vec<(String, i64)> =
        sqlx::query_as("SELECT word, count FROM word_counts").fetch_all(&mut file).await?;

    let batches = Inspector::open(&store.parse()?, APPLICATION).await?.batches(1_000_000).await?;
    if batches.is_empty() {
        return Err(Error::config("the topic holds no records: produce some first").into());
    }
    let lines = create_rdd(&topic, all_ranges(&batches))?;
    let at_once = word_counts(&lines).collect_as_map()?;

    assert_eq!(streamed.into_iter().collect::<HashMap<_, _>>(), at_once, "the stream and the batch job agree");
    println!("{} words in {} batches, and as many at once", at_once.values().sum::<i64>(), batches.len());
    Ok(())
}
