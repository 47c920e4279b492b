//! Reads the records of a past batch again, exactly those: the ledger says which ranges a batch was made of.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=events DATABASE_URL=sqlite:replay.db cargo run --example replay_offset_ranges
//!
//! First a stream stores the topic in batches. Then each batch of the ledger is read from Kafka again; numbers and checksums
//! of the records are the same as when the batch was committed. So a batch can be looked at, computed anew or compared,
//! as long as Kafka keeps its records.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    Error,
    commit::{Inspector, LedgerBatch},
    read::checksum,
    stream::{DirectStream, StreamingContext, Termination, create_rdd},
    transform::{Append, HasOffsetRanges},
    types::ColumnType,
};

const APPLICATION: &str = "replay";

/// What happened in the past: a stream that stores each record's length.
async fn run_stream(topic: &DirectStream, database: &str) -> directstream::Result<()> {
    let context = StreamingContext::builder(APPLICATION, Duration::from_millis(200))
        .store(database)?
        .max_rate_per_partition(500) // records a second: several small batches instead of one
        .until_latest(true)
        .build()?;
    let records = context.direct_stream(topic.clone())?;
    let length = |bytes: Option<&[u8]>| i64::try_from(bytes.map_or(0, <[u8]>::len)).unwrap_or(i64::MAX);
    records
        .map(move |record| (length(record.value()),))
        .save_to_table(Append::into("lengths").typed_column("bytes", ColumnType::BigInt).create())?;
    context.start().await?;
    assert_eq!(context.await_termination().await?, Termination::ReachedLatest);
    Ok(())
}

/// Reads one batch's ranges again and compares them with what the ledger says of them.
fn replay(topic: &DirectStream, batch: &LedgerBatch) -> directstream::Result<u64> {
    let rdd = create_rdd(topic, batch.ranges.iter().map(|range| range.range.clone()))?;
    // Partition i of the RDD is range i: number and checksum of its records, in one pass.
    let found = rdd
        .map_partitions(|records| {
            let sum = records.iter().fold(0, checksum::extend_by_record);
            [(records.len() as u64, sum)]
        })
        .collect()?;
    for ((range, then), now) in rdd.offset_ranges().iter().zip(&batch.ranges).zip(&found) {
        assert_eq!(*now, (then.counts.records, then.counts.checksum), "{range} holds other records than it did");
    }
    Ok(found.iter().map(|(records, _)| records).sum())
}

#[tokio::main]
async fn main() -> directstream::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let database = setting("DATABASE_URL", "sqlite:replay.db");
    let topic = DirectStream::topics([setting("TOPIC", "events")])
        .bootstrap_servers(setting("BOOTSTRAP_SERVERS", "localhost:9092"));

    run_stream(&topic, &database).await?;

    let mut store = Inspector::open(&database.parse()?, APPLICATION).await?;
    let batches = store.batches(1000).await?;
    let mut records = 0;
    for batch in &batches {
        let again = replay(&topic, batch)?;
        assert_eq!(again, batch.records, "batch {}", batch.batch_seq);
        records += again;
    }
    if batches.is_empty() {
        return Err(Error::config("the topic holds no records: produce some first"));
    }
    println!("{} batches read again: {records} records, the same as then", batches.len());
    Ok(())
}
