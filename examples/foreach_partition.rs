//! Results in a database that does not keep the offsets: a pool made once, a connection per partition, upserts that may happen twice.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=readings STORE=checkpoint:readings.checkpoint \
//!         DATABASE_URL=postgres://postgres@localhost/postgres cargo run --example foreach_partition
//!
//! Where results and offsets can be in one database, `save_to_table` and `foreach_rdd_in` commit them together. Where they cannot,
//! a batch may be written twice: a process that dies between the effect and the offsets does it again. So each write here says which
//! record it comes from, and an older one changes nothing. A pool is costly: it is made once per process, not per batch or
//! record; a connection is taken per partition, and one statement writes all that the partition has.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    Error, Result,
    stream::{DirectStream, StreamingContext},
};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::runtime::Handle;

/// A sensor, the offset of the record, and what it read. All records of a sensor are in one partition, by their key.
type Reading = (String, i64, f64);

const TABLE: &str = "CREATE TABLE IF NOT EXISTS last_readings \
    (sensor text PRIMARY KEY, kafka_offset bigint NOT NULL, value double precision NOT NULL)";

/// The last reading of each sensor. Done twice, or after a later batch, it is the same.
const UPSERT: &str = "INSERT INTO last_readings AS old (sensor, kafka_offset, value) \
    SELECT DISTINCT ON (sensor) sensor, kafka_offset, value \
    FROM unnest($1::text[], $2::bigint[], $3::double precision[]) AS new (sensor, kafka_offset, value) \
    ORDER BY sensor, kafka_offset DESC \
    ON CONFLICT (sensor) DO UPDATE SET kafka_offset = excluded.kafka_offset, value = excluded.value \
    WHERE old.kafka_offset < excluded.kafka_offset";

async fn upsert(pool: &PgPool, readings: Vec<Reading>) -> sqlx::Result<u64> {
    let (mut sensors, mut offsets, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (sensor, offset, value) in readings {
        sensors.push(sensor);
        offsets.push(offset);
        values.push(value);
    }
    let done = sqlx::query(UPSERT).bind(sensors).bind(offsets).bind(values).execute(pool).await?;
    Ok(done.rows_affected())
}

/// The stream ends with this: the pool's database is away, or does not want what it is given.
fn failed(error: sqlx::Error) -> Error {
    let text = "cannot write the readings";
    match error {
        // It passes: the batch is retried.
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => Error::unavailable(text).caused_by(error),
        error => Error::transform(text).caused_by(error),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let servers = setting("BOOTSTRAP_SERVERS", "localhost:9092");
    let topic = setting("TOPIC", "readings");
    let database = setting("DATABASE_URL", "postgres://postgres@localhost/postgres");
    // Once per process: tasks are its threads.
    let pool = PgPoolOptions::new().max_connections(4).connect(&database).await.map_err(failed)?;
    sqlx::query(TABLE).execute(&pool).await.map_err(failed)?;
    let context = StreamingContext::builder("foreach-partition", Duration::from_millis(100))
        .store(&setting("STORE", "checkpoint:foreach_partition.checkpoint"))?
        .max_rate_per_partition(1_000)
        .until_latest(true)
        .build()?;

    let records = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(servers))?;
    let readings = records.flat_map(|record| {
        let sensor = record.key().map(|key| String::from_utf8_lossy(key).into_owned());
        let value: Option<f64> = record.text().and_then(|text| text.parse().ok());
        sensor.zip(value).map(|(sensor, value)| (sensor, record.offset().get(), value))
    });
    // The tasks' threads may wait, and the pool lives in this runtime.
    let runtime = Handle::current();
    readings.foreach_partition(move |_partition, readings| {
        // Most partitions of a small batch have nothing: no connection for them.
        if readings.is_empty() {
            return Ok(());
        }
        runtime.block_on(upsert(&pool, readings)).map(|_changed| ()).map_err(failed)
    });

    context.start().await?;
    context.await_termination().await?;
    println!("{} readings; see the table last_readings", context.reporter().totals().records);
    Ok(())
}
