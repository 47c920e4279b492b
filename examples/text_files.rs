//! Lines of files that are moved into a folder, each in a table once, however often the program is killed.
//!
//!     FOLDER=incoming SQLITE_FILE=lines.db cargo run --example text_files
//!
//! Move files into the folder whole, under names that were never used: `mv draft.txt incoming/monday.txt`, from the same disk. The
//! program ends when the files that are there at its start are read; with `FOLLOW=1` it waits for more until Ctrl-C. No
//! Kafka is needed.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    stream::{StreamingContext, TextFiles},
    transform::Append,
    types::ColumnType,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let store = format!("sqlite:{}", setting("SQLITE_FILE", "lines.db"));
    let follow = setting("FOLLOW", "0") == "1";
    let mut files = TextFiles::in_folder(setting("FOLDER", "incoming"));
    if let Ok(bytes) = env::var("BYTES_PER_SECOND_MAX") {
        files = files.bytes_per_second_max(bytes.parse()?);
    }

    let context = StreamingContext::builder("text-files", Duration::from_millis(50))
        .store(&store)?
        .until_latest(!follow)
        .build()?;
    let lines = context.text_file_records(files)?;
    lines
        .map(|line| {
            let file = line.topic().rsplit('/').next().unwrap_or_default().to_owned();
            (file, line.offset().get(), line.text().unwrap_or_default().to_owned())
        })
        .save_to_table(
            Append::into("lines")
                .typed_column("file", ColumnType::Text)
                .typed_column("off", ColumnType::BigInt)
                .typed_column("line", ColumnType::Text)
                .create(),
        )?;

    context.start().await?;
    tokio::select! {
        ended = context.await_termination() => drop(ended?),
        _ = tokio::signal::ctrl_c() => {
            context.stop();
            context.await_termination().await?;
        }
    }
    println!("{} lines", context.reporter().totals().records);
    Ok(())
}
