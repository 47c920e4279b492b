//! A job and its test: the same function reads Kafka in production, and topics in memory when it is tried.
//!
//!     cargo run --example testing_a_job                                     # tries the job: no server, no waiting
//!     cargo test --example testing_a_job                                    # the same as an ordinary test
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=orders cargo run --example testing_a_job
//!
//! A record's key is a customer, its value what was paid, in cents. The table `totals` has one row per customer.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    Record, Result,
    stream::{DirectStream, StreamingContext},
    testing::{Collected, MemoryBroker, TestContext},
    transform::{DStream, Upsert},
    types::ColumnType,
};

const INTERVAL: Duration = Duration::from_millis(200);

/// A customer and what was paid; `None` if the record is no order.
fn order(record: &Record) -> Option<(String, i64)> {
    let customer = std::str::from_utf8(record.key()?).ok()?;
    Some((customer.to_owned(), record.text()?.parse().ok()?))
}

/// The job: it neither knows nor asks where its orders come from. Gives what each batch adds.
fn totals(orders: &DStream<Record>) -> Result<DStream<(String, i64)>> {
    let paid = orders.flat_map(|record| order(&record)).reduce_by_key(|a, b| a + b);
    paid.save_to_table(
        Upsert::into("totals")
            .key("customer")
            .of_type(ColumnType::Text)
            .add("cents")
            .of_type(ColumnType::BigInt)
            .create(),
    )?;
    Ok(paid)
}

/// The job on Kafka, up to what is in the topic now.
async fn run(topic: String) -> Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let context = StreamingContext::builder("testing-a-job", INTERVAL)
        .store(&setting("DATABASE_URL", "sqlite:testing_a_job.db"))?
        .until_latest(true)
        .build()?;
    let servers = setting("BOOTSTRAP_SERVERS", "localhost:9092");
    let orders = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(servers))?;
    totals(&orders)?;
    context.start().await?;
    context.await_termination().await?;
    println!("{} orders read; see the table totals", context.reporter().totals().records);
    Ok(())
}

/// The job on topics in memory.
async fn the_job_adds_orders_up_and_goes_on_after_a_restart() -> Result<()> {
    let broker = MemoryBroker::new();
    broker.create_topic("orders", 2)?;
    let added = Collected::new();
    let context = TestContext::new("testing-a-job", INTERVAL)?;
    let orders = context.memory_stream(&broker, ["orders"])?;
    totals(&orders)?.collect_into(&added);

    // An interval with orders, one with something that is none, and one in which nothing happens.
    for (customer, cents) in [("ann", "250"), ("bob", "100"), ("ann", "50")] {
        broker.send(("orders", customer, cents))?;
    }
    assert_eq!(context.run_batch().await?, 1);
    broker.send(("orders", "bob", "a lot"))?;
    assert_eq!(context.run_batches(2).await?, 1);
    let pair = |customer: &str, cents| (customer.to_owned(), cents);
    assert_eq!(added.sorted(), [vec![pair("ann", 300), pair("bob", 100)], vec![]]);

    // A process that begins anew has the job to build again, and the offsets in its store.
    let context = context.restart().await?;
    let orders = context.memory_stream(&broker, ["orders"])?;
    totals(&orders)?;
    broker.send(("orders", "bob", "11"))?;
    assert_eq!(context.run_batch().await?, 1);
    let rows = context.store().rows("SELECT customer, cents FROM totals ORDER BY customer").await?;
    assert_eq!(rows, ["ann|300", "bob|111"]);
    context.stop().await?;
    println!("tried without a server: {}, also after a restart", rows.join(", "));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    match env::var("TOPIC") {
        Ok(topic) => run(topic).await,
        Err(_) => the_job_adds_orders_up_and_goes_on_after_a_restart().await,
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_job_adds_orders_up_and_goes_on_after_a_restart() -> directstream::Result<()> {
        super::the_job_adds_orders_up_and_goes_on_after_a_restart().await
    }
}
