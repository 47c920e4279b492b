//! From topic to topic, exactly once, without any database: results and offsets are one transaction of Kafka.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=orders TARGET=invoices cargo run --example kafka_to_kafka
//!
//! A record's key is a customer, its value an amount. Each becomes an invoice in topic `TARGET`, which must be there; what is no
//! amount goes to no topic. Offsets are those of consumer group `kafka-to-kafka`; `kafka-consumer-groups` shows them. It
//! ends when it has written what was there at its start, or goes on with `RUN_ON=1`.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    Record,
    stream::{DirectStream, StreamingContext},
    types::KafkaRecord,
};

/// The invoice for an order, which says where the order lies; `None` if the record holds something else.
fn invoice(record: &Record, target: &str) -> Option<KafkaRecord> {
    let amount: f64 = record.text()?.parse().ok()?;
    let order = format!("{}-{}", record.partition(), record.offset());
    let invoice =
        KafkaRecord::to(target).value(format!("order {order}: {amount:.2}")).header("order", Some(order.as_bytes()));
    Some(match record.key() {
        Some(customer) => invoice.key(customer),
        None => invoice,
    })
}

#[tokio::main]
async fn main() -> directstream::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let target = setting("TARGET", "invoices");

    // The name is the transactional id as well: a second process of this name takes the application over.
    let context = StreamingContext::builder(setting("NAME", "kafka-to-kafka"), Duration::from_millis(100))
        .store("kafka:")?
        .until_latest(env::var("RUN_ON").is_err())
        .build()?;
    let orders = DirectStream::topics([setting("TOPIC", "orders")])
        .bootstrap_servers(setting("BOOTSTRAP_SERVERS", "localhost:9092"))
        .property("compression.type", "lz4");
    context.direct_stream(orders)?.flat_map(move |record| invoice(&record, &target)).save_to_kafka()?;

    context.start().await?;
    context.await_termination().await?;
    println!("{} orders read", context.reporter().totals().records);
    Ok(())
}
