//! How many orders each customer placed in the last two seconds, told every 400 ms: windows that are exact across restarts.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=orders cargo run --example windowed_counts
//!
//! It ends when it has read what was in the topic at its start; with RUN_ON=1 it runs until it is stopped. Kill it at any
//! moment and start it again: it reads the records of the last windows once more, by the ranges in its ledger, and every
//! window is told once, with the numbers that it would have had.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    stream::{DirectStream, StreamingContext},
    transform::Append,
    types::ColumnType,
};

const BATCH_INTERVAL: Duration = Duration::from_millis(200);
const WINDOW: Duration = Duration::from_secs(2);
const SLIDE: Duration = Duration::from_millis(400);

#[tokio::main]
async fn main() -> directstream::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let servers = setting("BOOTSTRAP_SERVERS", "localhost:9092");
    let topic = setting("TOPIC", "orders");
    let context = StreamingContext::builder("windowed-counts", BATCH_INTERVAL)
        .store(&setting("DATABASE_URL", "sqlite:windowed_counts.db"))?
        .until_latest(setting("RUN_ON", "").is_empty())
        .build()?;

    // An order's key is the customer.
    let orders = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(servers))?;
    let customers = orders.map(|order| {
        let customer = String::from_utf8_lossy(order.key().unwrap_or_default()).into_owned();
        (customer, 1_i64)
    });
    // Each window is made from the one before: what comes in is added, what leaves is taken off.
    let counts = customers.reduce_by_key_and_window_with_inverse(|a, b| a + b, |a, b| a - b, WINDOW, SLIDE)?;
    let rows = counts.transform(|rdd| {
        let window_end_ms = rdd.batch().batch_time.as_ms();
        Ok(rdd.map(move |(customer, orders)| (window_end_ms, customer, orders)))
    });
    rows.save_to_table(
        Append::into("window_counts")
            .typed_column("window_end_ms", ColumnType::BigInt)
            .typed_column("customer", ColumnType::Text)
            .typed_column("orders", ColumnType::BigInt)
            .create(),
    )?;

    context.start().await?;
    context.await_termination().await?;
    println!("{} orders read; see the table window_counts", context.reporter().totals().records);
    Ok(())
}
