//! Each batch joined with what is known from elsewhere: with a table that stays, and with one that may change meanwhile.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=orders DATABASE_URL=postgres://app@localhost/app \
//!         cargo run --example join_with_table
//!
//! A record's key is a country, its value a product. Countries and their regions are an RDD that is made once. The prices are
//! in a table of the database that others write: each batch reads it anew and is joined with it. What comes out is the turnover
//! of each region, exactly once, and how many orders had no price when their batch was computed.
//!
//! The prices are read while a batch is computed, not inside its transaction: a batch that is tried again takes the prices of
//! that moment. Where a lookup must see what the results are committed with, do it in SQL, in `foreach_rdd_in`.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    Error, Record,
    stream::{DirectStream, StreamingContext, Termination},
    transform::{Rdd, Upsert},
    types::ColumnType,
};
use sqlx::{Connection, PgConnection};
use tokio::runtime::Handle;

/// A table that stays.
const REGIONS: [(&str, &str); 4] = [("FR", "Europe"), ("IT", "Europe"), ("JP", "Asia"), ("PE", "America")];

/// A country and a product; none if the record holds something else.
fn order(record: &Record) -> Option<(String, String)> {
    let country = std::str::from_utf8(record.key()?).ok()?;
    Some((country.to_owned(), record.text()?.to_owned()))
}

/// The prices as they are now, in cents. If the database is away, the batch is tried again.
async fn prices(url: &str) -> directstream::Result<Vec<(String, i64)>> {
    let read = async {
        let mut database = PgConnection::connect(url).await?;
        sqlx::query_as("SELECT product, cents FROM prices").fetch_all(&mut database).await
    };
    read.await.map_err(|error| Error::unavailable("cannot read the prices").caused_by(error))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let servers = setting("BOOTSTRAP_SERVERS", "localhost:9092");
    let topic = setting("TOPIC", "orders");
    let url = setting("DATABASE_URL", "postgres://app@localhost/app");

    let context = StreamingContext::builder("join-with-table", Duration::from_millis(200))
        .store(&url)?
        .until_latest(true)
        .build()?;
    let orders = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(servers))?;

    // Orders of countries that are not in the table are left out.
    let regions = Rdd::parallelize(REGIONS.map(|(country, region)| (country.to_owned(), region.to_owned())), 1);
    let products_by_region = orders
        .flat_map(|record| order(&record))
        .transform(move |orders| Ok(orders.join(&regions)))
        .map(|(_, (product, region))| (product, region));
    // This function runs once per batch, on a thread that may wait.
    let priced = products_by_region.transform(move |orders| {
        let prices = Handle::current().block_on(prices(&url))?;
        Ok(orders.left_outer_join(&Rdd::parallelize(prices, 1)))
    });
    priced
        .map(|(_, (region, cents))| (region, (cents.unwrap_or(0), 1_i64, i64::from(cents.is_none()))))
        .reduce_by_key(|a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2))
        .map(|(region, (cents, orders, unpriced))| (region, cents, orders, unpriced))
        .save_to_table(
            Upsert::into("turnover")
                .key("region")
                .of_type(ColumnType::Text)
                .add("cents")
                .of_type(ColumnType::BigInt)
                .add("orders")
                .of_type(ColumnType::BigInt)
                .add("unpriced")
                .of_type(ColumnType::BigInt)
                .create(),
        )?;

    context.start().await?;
    assert_eq!(context.await_termination().await?, Termination::ReachedLatest);
    println!("{} orders joined; see the table turnover", context.reporter().totals().records);
    Ok(())
}
