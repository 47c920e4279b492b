//! Offsets in a checkpoint folder, results in files of your own: exactly once, because the output may happen twice.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=orders CHECKPOINT=orders.checkpoint OUTPUT=orders.out \
//!         cargo run --example checkpoint_recovery
//!
//! A folder cannot commit your results together with the offsets. Here each batch is written before its offsets are, so a crash in
//! between does the batch again. Its *number* is the same then, although its time and its ranges may be others: a file that is
//! named by the number, and that comes into being by a rename, is replaced and not doubled. Kill this program as often as you
//! like and start it again: the files hold every record once.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that tells what it did")]

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use directstream::{
    Error, Record,
    stream::{DirectStream, StreamingContext, Termination},
};

fn line(record: &Record) -> String {
    format!("{} {} {}", record.partition(), record.offset(), record.text().unwrap_or_default())
}

/// The batch's file, whole and on the disk, in the place of what an earlier attempt at the same batch left.
fn write_batch(folder: &Path, batch_seq: u64, lines: &[String]) -> io::Result<()> {
    // In the same folder: a rename does not go from one disk to another.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    for line in lines {
        writeln!(file, "{line}")?;
    }
    file.as_file().sync_all()?;
    file.persist(folder.join(format!("{batch_seq:08}.txt")))?;
    fs::File::open(folder)?.sync_all()
}

/// Everything up to what is in the topic now.
async fn run(servers: &str, topic: &str, checkpoint: &str, output: PathBuf) -> directstream::Result<()> {
    let context = StreamingContext::builder("checkpoint-recovery", Duration::from_millis(20))
        .store(&format!("checkpoint:{checkpoint}"))?
        // Many small batches: something to recover between.
        .max_rate_per_partition(600)
        .until_latest(true)
        .build()?;
    let records = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(servers))?;
    records.map(|record| line(&record)).foreach_rdd(move |rdd| {
        let lines = rdd.collect()?;
        write_batch(&output, rdd.batch().batch_seq, &lines)
            .map_err(|error| Error::transform("cannot write the batch's file").caused_by(error))
    });
    context.start().await?;
    assert_eq!(context.await_termination().await?, Termination::ReachedLatest);
    let totals = context.reporter().totals();
    println!("{} records in {} batches", totals.records, totals.batches);
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let servers = setting("BOOTSTRAP_SERVERS", "localhost:9092");
    let (topic, checkpoint) = (setting("TOPIC", "orders"), setting("CHECKPOINT", "orders.checkpoint"));
    let output = PathBuf::from(setting("OUTPUT", "orders.out"));
    if let Err(error) = fs::create_dir_all(&output) {
        eprintln!("cannot make the folder for the output: {error}");
        return ExitCode::FAILURE;
    }
    match run(&servers, &topic, &checkpoint, output).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.chain());
            ExitCode::from(error.kind().exit_code())
        }
    }
}
