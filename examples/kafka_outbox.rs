//! Rows and records for Kafka in one transaction of a database: the rows exactly once, the records at least once.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=orders TARGET=invoices DATABASE_URL=sqlite:invoices.db \
//!         cargo run --example kafka_outbox
//!
//! A record's key is a customer, its value an amount. Amounts are summed in table `customers`; each order becomes an invoice in
//! topic `TARGET`, which must be there. The invoices lie in the table `outbox` until Kafka has them, so one is sent if and only
//! if its order counts in `customers`. It ends when it has sent what was there at its start, or goes on with `RUN_ON=1`.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    Record,
    stream::{DirectStream, StreamingContext},
    transform::{KafkaOutput, Upsert},
    types::{ColumnType, KafkaRecord},
};

/// The customer and the amount of an order; `None` if the record holds something else.
fn order(record: &Record) -> Option<(String, i64)> {
    let customer = std::str::from_utf8(record.key()?).ok()?;
    Some((customer.to_owned(), record.text()?.parse().ok()?))
}

#[tokio::main]
async fn main() -> directstream::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let (servers, target) = (setting("BOOTSTRAP_SERVERS", "localhost:9092"), setting("TARGET", "invoices"));
    let output = KafkaOutput::bootstrap_servers(&servers)
        .property("compression.type", "lz4")
        // From so many waiting invoices on, the next batch waits as well.
        .waiting_max(setting("WAITING_MAX", "10000").parse().unwrap_or(10_000));

    let context = StreamingContext::builder("kafka-outbox", Duration::from_millis(100))
        .store(&setting("DATABASE_URL", "sqlite:kafka_outbox.db"))?
        .max_rate_per_partition(1_000)
        .until_latest(env::var("RUN_ON").is_err())
        .build()?;
    let records =
        context.direct_stream(DirectStream::topics([setting("TOPIC", "orders")]).bootstrap_servers(servers))?;
    records.flat_map(|record| order(&record)).save_to_table(
        Upsert::into("customers")
            .key("customer")
            .of_type(ColumnType::Text)
            .add("amount")
            .of_type(ColumnType::BigInt)
            .create(),
    )?;
    records
        .flat_map(move |record| {
            let place = format!("{}-{}", record.partition(), record.offset());
            let (customer, amount) = order(&record)?;
            let invoice = KafkaRecord::to(&target).key(customer).value(format!("order {place}: {amount}"));
            Some(invoice.header("order", Some(place.as_bytes())))
        })
        .save_to_kafka_outbox(output)?;

    context.start().await?;
    context.await_termination().await?;
    println!("{} orders read", context.reporter().totals().records);
    Ok(())
}
