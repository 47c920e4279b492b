//! Your own SQL inside the batch's transaction: what it writes and the offsets become visible together, or not at all.
//!
//!     BOOTSTRAP_SERVERS=localhost:9092 TOPIC=payments DATABASE_URL=postgres://app@localhost/app \
//!         cargo run --example exactly_once_postgres
//!
//! A record's key is an account, its value a whole number to book on it. The example ends when it has booked what was in
//! the topic at its start, and checks that the accounts agree with the offsets.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{env, time::Duration};

use directstream::{
    Error, Record,
    stream::{DirectStream, StreamingContext, Termination},
    types::BatchTransaction,
};
use sqlx::{Connection, PgConnection};

/// Your own tables: any that you like, made by whoever makes your tables.
const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS accounts (account text PRIMARY KEY, balance bigint NOT NULL, bookings bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS batch_log (batch_seq bigint PRIMARY KEY, bookings bigint NOT NULL)",
];

/// A booking: account and amount. A record that is none ends the stream, with nothing of its batch committed.
fn booking(record: &Record) -> directstream::Result<(String, i64)> {
    let account = record.key().and_then(|key| std::str::from_utf8(key).ok());
    let amount = record.text().and_then(|text| text.parse().ok());
    match (account, amount) {
        (Some(account), Some(amount)) => Ok((account.to_owned(), amount)),
        _ => {
            Err(Error::transform(format!("not a booking partition={} offset={}", record.partition(), record.offset())))
        }
    }
}

/// Runs once per batch, in its transaction. It may run again after a rollback, so it keeps nothing outside.
async fn book(bookings: Vec<(String, i64)>, transaction: &mut BatchTransaction<'_>) -> directstream::Result<()> {
    const BOOK: &str = "INSERT INTO accounts AS a (account, balance, bookings) VALUES ($1, $2, 1) \
        ON CONFLICT (account) DO UPDATE SET balance = a.balance + excluded.balance, bookings = a.bookings + 1";
    let count = i64::try_from(bookings.len()).unwrap_or(i64::MAX);
    for (account, amount) in bookings {
        transaction.execute(BOOK, &[account.into(), amount.into()]).await?;
    }
    let batch_seq = i64::try_from(transaction.batch().batch_seq).unwrap_or(i64::MAX);
    // A plain INSERT into a primary key: a batch that ran twice would fail here. None does.
    transaction.execute("INSERT INTO batch_log VALUES ($1, $2)", &[batch_seq.into(), count.into()]).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let servers = setting("BOOTSTRAP_SERVERS", "localhost:9092");
    let topic = setting("TOPIC", "payments");
    let url = setting("DATABASE_URL", "postgres://app@localhost/app");

    let mut database = PgConnection::connect(&url).await?;
    for table in TABLES {
        sqlx::query(table).execute(&mut database).await?;
    }

    let context = StreamingContext::builder("exactly-once-postgres", Duration::from_millis(200))
        .store(&url)?
        .max_rate_per_partition(1000) // records a second: several small batches instead of one
        .until_latest(true)
        .build()?;
    let records = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(servers))?;
    records.foreach_rdd_in(|rdd, transaction| {
        Box::pin(async move {
            let bookings = rdd.collect()?.iter().map(booking).collect::<directstream::Result<Vec<_>>>()?;
            book(bookings, transaction).await
        })
    });
    context.start().await?;
    assert_eq!(context.await_termination().await?, Termination::ReachedLatest);

    // Results and offsets agree: as many bookings as records lie below the committed offsets.
    let booked: i64 =
        sqlx::query_scalar("SELECT coalesce(sum(bookings), 0)::bigint FROM accounts").fetch_one(&mut database).await?;
    let (records, batches): (i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(records), 0)::bigint, count(*) FROM directstream.batches \
         WHERE application = 'exactly-once-postgres'",
    )
    .fetch_one(&mut database)
    .await?;
    let logged: i64 = sqlx::query_scalar("SELECT count(*) FROM batch_log").fetch_one(&mut database).await?;
    assert_eq!((booked, logged), (records, batches), "the accounts and the ledger tell the same story");
    println!("{booked} bookings in {batches} batches, as many as records were read");
    Ok(())
}
