//! Rows and offsets in one SQLite file, in one transaction: exactly once, and no database server.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=readings SQLITE_FILE=readings.db cargo run --example exactly_once_sqlite
//!
//! A record's key is a sensor, its value a temperature. The example runs twice in one process, as if it had been started
//! again, and checks that the second run adds nothing: every record is in the table once.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    Record,
    stream::{DirectStream, StreamingContext, Termination},
    transform::{Append, Upsert},
    types::ColumnType,
};
use sqlx::{Connection, SqliteConnection};

/// A sensor and what it measured; `None` if the record holds something else.
fn reading(record: &Record) -> Option<(String, f64)> {
    let sensor = std::str::from_utf8(record.key()?).ok()?;
    Some((sensor.to_owned(), record.text()?.parse().ok()?))
}

/// Everything up to what is in the topic now; how many records that were.
async fn run(servers: &str, topic: &str, store: &str) -> directstream::Result<u64> {
    let context = StreamingContext::builder("exactly-once-sqlite", Duration::from_millis(200))
        .store(store)?
        .until_latest(true)
        .build()?;
    let records = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(servers))?;

    // Two tables of one program commit in the same transaction: one with every reading, ...
    records
        .flat_map(|record| {
            let place = (i64::from(record.partition()), record.offset().get());
            reading(&record).map(|(sensor, celsius)| (place.0, place.1, sensor, celsius))
        })
        .save_to_table(
            Append::into("readings")
                .typed_column("part", ColumnType::BigInt)
                .typed_column("off", ColumnType::BigInt)
                .typed_column("sensor", ColumnType::Text)
                .typed_column("celsius", ColumnType::Double)
                .create(),
        )?;
    // ... and one with a row per sensor.
    records.flat_map(|record| reading(&record).map(|(sensor, celsius)| (sensor, celsius, 1_i64))).save_to_table(
        Upsert::into("sensors")
            .key("sensor")
            .of_type(ColumnType::Text)
            .last("celsius")
            .of_type(ColumnType::Double)
            .add("readings")
            .of_type(ColumnType::BigInt)
            .create(),
    )?;

    context.start().await?;
    assert_eq!(context.await_termination().await?, Termination::ReachedLatest);
    Ok(context.reporter().totals().records)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let servers = setting("BOOTSTRAP_SERVERS", "localhost:9092");
    let topic = setting("TOPIC", "readings");
    let store = format!("sqlite:{}", setting("SQLITE_FILE", "readings.db"));

    let first = run(&servers, &topic, &store).await?;
    let second = run(&servers, &topic, &store).await?;
    println!("first run: {first} records, second run: {second} more");

    let mut file = SqliteConnection::connect(&store).await?;
    let (rows, distinct): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(DISTINCT part || ':' || off) FROM readings")
            .fetch_one(&mut file)
            .await?;
    let counted: i64 =
        sqlx::query_scalar("SELECT coalesce(sum(readings), 0) FROM sensors").fetch_one(&mut file).await?;
    assert_eq!(rows, distinct, "no reading is there twice");
    assert_eq!(rows, counted, "both tables were written in the same transactions");
    println!("{rows} readings, each once");
    Ok(())
}
