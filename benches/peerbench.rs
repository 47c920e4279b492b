//! Our side of the side-by-side benchmark: one job of it, named by `PB_JOB`, from the start of a topic until all of it is
//! committed. See `docs/benchmarks/README.md`.
//!
//! It reads `PB_BOOTSTRAP`, `PB_TOPIC`, `PB_RECORDS`, `PB_PG_URL`, `PB_INTERVAL_MS` and `PB_WORK`, and prints
//! `PEERBENCH first_ms=..` when its first batch starts and `PEERBENCH last_ms=.. records=.. bytes=..` at the end.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a benchmark's program")]

use std::{
    error::Error,
    sync::{Arc, OnceLock},
    time::Duration,
};

use compact_str::CompactString;
use directstream::{
    clock::{Clock, SystemClock},
    report::{BatchProgress, StreamingListener},
    stream::{DirectStream, StreamingContext},
    transform::{DStream, DirectKafkaInputDStream, InputFormat, OnError, Upsert},
    types::{Column, ColumnSource, ColumnType, Merge, TableSpec, WriteMode},
};

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

/// Tells when the first batch starts, and stops the stream when all records are committed.
struct Progress {
    clock: SystemClock,
    wanted: u64,
    records: u64,
    started: bool,
    context: Arc<OnceLock<Arc<StreamingContext>>>,
}

impl StreamingListener for Progress {
    fn on_batch_started(&mut self, _batch: &BatchProgress) {
        if !self.started {
            self.started = true;
            println!("PEERBENCH first_ms={}", self.clock.now_ms());
        }
    }

    fn on_batch_completed(&mut self, batch: &BatchProgress) {
        self.records += batch.num_records();
        if self.records >= self.wanted
            && let Some(context) = self.context.get()
        {
            context.stop();
        }
    }
}

fn column(name: &str, pointer: &str, column_type: ColumnType) -> Column {
    let source = Some(ColumnSource::ValuePointer(pointer.to_owned()));
    Column { name: name.to_owned(), source, column_type: Some(column_type), merge: Merge::Last }
}

/// The job's outputs.
fn define(job: &str, records: &DirectKafkaInputDStream) -> directstream::Result<()> {
    match job {
        "append" | "latency" => {
            let columns = vec![
                column("id", "/id", ColumnType::BigInt),
                column("usr", "/user", ColumnType::Text),
                column("amount", "/amount", ColumnType::BigInt),
                column("ts", "/ts", ColumnType::BigInt),
                column("note", "/note", ColumnType::Text),
            ];
            let table = "ev".parse()?;
            let table = TableSpec { table, mode: WriteMode::Append, key: Vec::new(), create: false, columns };
            records.save_records(InputFormat::Json, OnError::Fail, vec![table]);
            Ok(())
        }
        "wordcount" => {
            // The step for which a word is copied only where it is new.
            // How often a word comes in one batch fits into 32 bits, and its place in the table into half a cache line.
            let counts: DStream<(CompactString, u32)> = records.emit_by_key(
                |record, emit| words(record.text().unwrap_or_default()).for_each(|word| emit(word, 1)),
                |a, b| a + b,
            );
            counts.map_values(i64::from).save_to_table(Upsert::into("wc").key("word").add("n"))
        }
        // Counts are stored exactly once too, in a SQLite file.
        _ => records
            .map(|record| (1_i64, i64::try_from(record.value().map_or(0, <[u8]>::len)).unwrap_or(i64::MAX)))
            .reduce(|a, b| (a.0 + b.0, a.1 + b.1))
            .map(|(records, bytes)| ("all", records, bytes))
            .save_to_table(counts()),
    }
}

/// What `split(' ')` gives, without the empty words, for 0.74 s of CPU a million lines of the whole job instead of 0.78 s.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    let ends = memchr::memchr_iter(b' ', line.as_bytes()).chain([line.len()]);
    let words = ends.map(move |end| &line[std::mem::replace(&mut start, end + 1)..end]);
    words.filter(|word| !word.is_empty())
}

fn counts() -> Upsert {
    let key = Upsert::into("counts").create().key("name").of_type(ColumnType::Text);
    key.add("records").of_type(ColumnType::BigInt).add("bytes").of_type(ColumnType::BigInt)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let job = setting("PB_JOB");
    let folder = setting("PB_WORK");
    let sqlite = format!("sqlite:{folder}/peerbench.db");
    let store = if job.starts_with("count") { sqlite.clone() } else { setting("PB_PG_URL") };
    let interval = std::env::var("PB_INTERVAL_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(500);
    // Each run begins anew, as the tables do.
    let application = std::env::var("PB_RUN_ID").unwrap_or_else(|_| format!("peerbench-{}", std::process::id()));
    // What the JVM contestants may have is 4 GiB. A larger budget makes larger batches of a backlog, and so fewer upserts of the same words.
    let memory_max = std::env::var("PB_MEMORY_MAX").ok().and_then(|text| text.parse().ok()).unwrap_or(1536 << 20);
    let context = StreamingContext::builder(application, Duration::from_millis(interval)).store(&store)?;
    let context = context.memory_max(memory_max).build()?;
    let stream = DirectStream::topics([setting("PB_TOPIC")]).bootstrap_servers(setting("PB_BOOTSTRAP"));
    define(&job, &context.direct_stream(stream)?)?;
    let context = Arc::new(context);
    let shared = Arc::new(OnceLock::new());
    let _ = shared.set(Arc::clone(&context));
    let clock = SystemClock::new();
    context.add_listener(Box::new(Progress {
        clock: clock.clone(),
        wanted: setting("PB_RECORDS").parse()?,
        records: 0,
        started: false,
        context: shared,
    }))?;
    context.start().await?;
    context.await_termination().await?;
    let last_ms = clock.now_ms();
    let (mut records, mut bytes) = (0_i64, 0_i64);
    if job.starts_with("count") {
        let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&sqlite).await?;
        (records, bytes) = sqlx::query_as("SELECT records, bytes FROM counts").fetch_one(&mut connection).await?;
    }
    println!("PEERBENCH last_ms={last_ms} records={records} bytes={bytes}");
    Ok(())
}
