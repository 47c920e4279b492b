//! Each batch as a folder of text files and one of object files, each record in exactly one of them.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=orders OUTPUT=orders.out DATABASE_URL=sqlite:orders.db \
//!         cargo run --example save_as_files
//!
//! The database has nothing but offsets and ledger; the results are the folders `lines-TIME.txt` and `objects-TIME` in `OUTPUT`. A
//! program that is killed before a commit leaves a folder; the batch that makes up for it has another time, and removes that folder.
//! Kill this program as often as you like and start it again. `RUN_ON` makes it go on instead of ending with what is in the topic now.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    Record,
    stream::{DirectStream, StreamingContext},
};

/// Partition, offset and value: the element type of the object files, and so what `Rdd::object_file` reads back.
type Place = (i32, i64, String);

fn place(record: &Record) -> Place {
    (record.partition(), record.offset().get(), record.text().unwrap_or_default().to_owned())
}

#[tokio::main]
async fn main() -> directstream::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let servers = setting("BOOTSTRAP_SERVERS", "localhost:9092");
    let (topic, output) = (setting("TOPIC", "orders"), setting("OUTPUT", "orders.out"));
    let context = StreamingContext::builder("save-as-files", Duration::from_millis(50))
        .store(&setting("DATABASE_URL", "sqlite:save_as_files.db"))?
        // Many small batches, so that there is something to look at.
        .max_rate_per_partition(1_000)
        .until_latest(setting("RUN_ON", "").is_empty())
        .build()?;

    let records = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(servers))?;
    let places = records.map(|record| place(&record));
    let lines = places.map(|(partition, offset, value)| format!("{partition} {offset} {value}"));
    lines.save_as_text_files(&format!("{output}/lines"), "txt")?;
    places.save_as_object_files(&format!("{output}/objects"), "")?;

    context.start().await?;
    context.await_termination().await?;
    let totals = context.reporter().totals();
    println!("{} records in {} batches", totals.records, totals.batches);
    Ok(())
}
