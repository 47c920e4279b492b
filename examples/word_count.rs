//! Counts the words of a topic into a table, each exactly once: the first program of every streaming engine.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=lines cargo run --example word_count
//!
//! It ends when it has counted what was in the topic at its start. Run it again: it goes on from the stored offsets, and
//! counts only what came since. Kill it at any moment: no word is lost or counted twice.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    stream::{DirectStream, StreamingContext, Termination},
    transform::Upsert,
    types::ColumnType,
};

#[tokio::main]
async fn main() -> directstream::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let servers = setting("BOOTSTRAP_SERVERS", "localhost:9092");
    let topic = setting("TOPIC", "lines");
    // Or a PostgreSQL: postgres://user:password@host/database
    let database = setting("DATABASE_URL", "sqlite:word_count.db");

    // The name is the application's identity: its offsets are kept under it, in the same database as its results.
    let context = StreamingContext::builder("word-count", Duration::from_millis(200))
        .store(&database)?
        .until_latest(true) // without this it runs until it is stopped
        .build()?;

    let lines = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(servers))?;
    let words = lines.flat_map(|line| {
        let text = line.text().unwrap_or_default();
        text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>()
    });
    // One batch's counts, added to those of the batches before: in the transaction that also stores the offsets.
    words.map(|word| (word, 1_i64)).reduce_by_key(|a, b| a + b).save_to_table(
        Upsert::into("word_counts")
            .key("word")
            .of_type(ColumnType::Text)
            .add("count")
            .of_type(ColumnType::BigInt)
            .create(),
    )?;

    context.start().await?;
    let ended = context.await_termination().await?;
    assert_eq!(ended, Termination::ReachedLatest, "it ends when everything is counted, and in no other way");
    let totals = context.reporter().totals();
    println!("{} records counted in {} batches; see the table word_counts", totals.records, totals.batches);
    Ok(())
}
