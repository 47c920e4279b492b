//! Each customer's orders and their sum so far, told with every order, and once more when a customer was away for two seconds:
//! state that is exact across restarts.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=orders cargo run --example map_with_state_sessions
//!
//! An order's key is the customer, its value the amount. It ends when it has read what was in the topic at its start; with
//! RUN_ON=1 it runs until it is stopped. Kill it at any moment and start it again: the state is committed with each batch's rows and
//! offsets, so it goes on with the very sums that the last rows tell.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    stream::{DirectStream, StreamingContext},
    transform::{Append, State, StateSpec},
    types::ColumnType,
};
use serde::{Deserialize, Serialize};

const BATCH_INTERVAL: Duration = Duration::from_millis(200);
const AWAY: Duration = Duration::from_secs(2);

/// What is kept of a customer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Customer {
    orders: i64,
    total: i64,
}

#[tokio::main]
async fn main() -> directstream::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let servers = setting("BOOTSTRAP_SERVERS", "localhost:9092");
    let topic = setting("TOPIC", "orders");
    let context = StreamingContext::builder("map-with-state-sessions", BATCH_INTERVAL)
        .store(&setting("DATABASE_URL", "sqlite:map_with_state_sessions.db"))?
        .until_latest(setting("RUN_ON", "").is_empty())
        .build()?;

    let orders = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(servers))?;
    let amounts = orders.map(|order| {
        let customer = String::from_utf8_lossy(order.key().unwrap_or_default()).into_owned();
        let amount: i64 = order.text().and_then(|text| text.parse().ok()).unwrap_or(0);
        (customer, amount)
    });
    let totals = StateSpec::function(|name: &String, amount: Option<i64>, customer: &mut State<Customer>| {
        let mut now = customer.get().cloned().unwrap_or_default();
        // Without an amount the customer was away for too long, and leaves: the next order is a first one again.
        if let Some(amount) = amount {
            now = Customer { orders: now.orders + 1, total: now.total + amount };
            customer.update(now.clone());
        }
        (name.clone(), now.orders, now.total, customer.is_timing_out())
    });
    amounts.map_with_state(totals.timeout(AWAY)).save_to_table(
        Append::into("map_with_state_sessions")
            .typed_column("customer", ColumnType::Text)
            .typed_column("orders", ColumnType::BigInt)
            .typed_column("total", ColumnType::BigInt)
            .typed_column("away", ColumnType::Boolean)
            .create(),
    )?;

    context.start().await?;
    context.await_termination().await?;
    println!("{} orders read; see the table map_with_state_sessions", context.reporter().totals().records);
    Ok(())
}
