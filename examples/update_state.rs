//! How often each word was seen so far: a state per word, told whole with every batch, and exact across restarts.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=lines cargo run --example update_state
//!
//! It ends when it has read what was in the topic at its start; start it again, and it goes on from the counts that it
//! committed. Records are lines of text.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    stream::{DirectStream, StreamingContext},
    transform::Upsert,
    types::ColumnType,
};

const BATCH_INTERVAL: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> directstream::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let servers = setting("BOOTSTRAP_SERVERS", "localhost:9092");
    let topic = setting("TOPIC", "lines");
    let context = StreamingContext::builder("update-state", BATCH_INTERVAL)
        .store(&setting("DATABASE_URL", "sqlite:update_state.db"))?
        .until_latest(true)
        .build()?;

    let lines = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(servers))?;
    let words = lines.flat_map(|line| {
        let text = line.text().unwrap_or_default();
        text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>()
    });
    let counts = words
        .map(|word| (word, 1_i64))
        .reduce_by_key(|a, b| a + b)
        // Called for every word that is known, also without a new count.
        .update_state_by_key(|_word, counts, seen: Option<i64>| Some(seen.unwrap_or(0) + counts.iter().sum::<i64>()));
    counts.save_to_table(
        Upsert::into("word_counts")
            .key("word")
            .of_type(ColumnType::Text)
            .last("seen")
            .of_type(ColumnType::BigInt)
            .create(),
    )?;

    context.start().await?;
    context.await_termination().await?;
    println!("{} lines read; see the table word_counts", context.reporter().totals().records);
    Ok(())
}
