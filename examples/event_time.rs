//! Each customer's orders of every minute, by the time of the orders and not by that of reading them: told once, when the minute
//! is over; shown before as they grow; and what comes too late is kept as a dead letter.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=orders cargo run --example event_time
//!
//! An order's key is the customer, its value the amount, and its time the record's timestamp. It ends when it has read what was in
//! the topic at its start; with RUN_ON=1 it runs until it is stopped. Kill it at any moment and start it again: open minutes and
//! the watermark are committed with each batch's rows and offsets. The last minute stays open until a later order ends it.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    stream::{DirectStream, StreamingContext},
    transform::{Append, EventWindows, Upsert},
    types::ColumnType,
};

const BATCH_INTERVAL: Duration = Duration::from_millis(200);
const MINUTE: Duration = Duration::from_secs(60);
/// An order may come so much later than one with a later time.
const ALLOWED_LATENESS: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> directstream::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let servers = setting("BOOTSTRAP_SERVERS", "localhost:9092");
    let topic = setting("TOPIC", "orders");
    let context = StreamingContext::builder("event-time", BATCH_INTERVAL)
        .store(&setting("DATABASE_URL", "sqlite:event_time.db"))?
        .until_latest(setting("RUN_ON", "").is_empty())
        .build()?;

    let orders = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(servers))?;
    let minutes = orders
        .with_watermark(|order| order.timestamp().as_ms(), ALLOWED_LATENESS)?
        // A customer with a wrong clock does not end everybody's minutes.
        .ahead_max(MINUTE)?
        .reduce_by_key_and_event_window(
            EventWindows::tumbling(MINUTE),
            |order| {
                let customer = String::from_utf8_lossy(order.key().unwrap_or_default()).into_owned();
                let amount: i64 = order.text().and_then(|text| text.parse().ok()).unwrap_or(0);
                (customer, (1_i64, amount))
            },
            |(orders, total), (more, amount)| (orders + more, total + amount),
        )?;

    // Minutes that are over: each once.
    minutes.map(|(minute, customer, (orders, total))| (minute.start_ms, customer, orders, total)).save_to_table(
        Append::into("minutes")
            .typed_column("minute_ms", ColumnType::BigInt)
            .typed_column("customer", ColumnType::Text)
            .typed_column("orders", ColumnType::BigInt)
            .typed_column("total", ColumnType::BigInt)
            .create(),
    )?;
    // The same as they grow.
    minutes
        .updates()
        .map(|(minute, customer, (orders, total))| (minute.start_ms, customer, orders, total))
        .save_to_table(
            Upsert::into("minutes_so_far")
                .key("minute_ms")
                .of_type(ColumnType::BigInt)
                .key("customer")
                .of_type(ColumnType::Text)
                .last("orders")
                .of_type(ColumnType::BigInt)
                .last("total")
                .of_type(ColumnType::BigInt)
                .create(),
        )?;
    minutes.late().save_as_dead_letters("minutes");

    context.start().await?;
    context.await_termination().await?;
    let totals = context.reporter().totals();
    println!("{} orders read, {} too late; see the table minutes", totals.records, totals.late_records);
    Ok(())
}
