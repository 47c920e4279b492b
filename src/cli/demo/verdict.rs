//! The recount: what the tables hold against what was produced.

use std::path::Path;

use sqlx::{Row, SqliteConnection};

use super::{
    database,
    engine::open,
    producer::{amount, customer},
};
use crate::error::{Error, Result};

/// What the recount found.
pub(super) struct Recount {
    pub(super) missing: u64,
    pub(super) doubled: u64,
    pub(super) wrong_totals: u64,
    pub(super) batches: u64,
    pub(super) contiguous: bool,
}

impl Recount {
    /// Counts the tables in `folder` against the first `records` orders.
    pub(super) async fn of(folder: &Path, records: u64) -> Result<Self> {
        let failed = |error| Error::internal("cannot recount the tables").caused_by(error);
        let mut connection = open(&database(folder)).await.map_err(failed)?;
        recount(&mut connection, records).await.map_err(failed)
    }
}

async fn recount(connection: &mut SqliteConnection, records: u64) -> sqlx::Result<Recount> {
    let mut seen: Vec<u32> = vec![0; usize::try_from(records).unwrap_or(usize::MAX)];
    let mut strangers = 0;
    for row in sqlx::query("SELECT id, amount FROM orders").fetch_all(&mut *connection).await? {
        let (id, paid): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let known = u64::try_from(id).ok().filter(|id| u64::try_from(paid) == Ok(amount(*id)));
        match known.and_then(|id| seen.get_mut(usize::try_from(id).unwrap_or(usize::MAX))) {
            Some(count) => *count += 1,
            None => strangers += 1,
        }
    }
    let missing = seen.iter().filter(|count| **count == 0).count();
    let doubled: u64 = seen.iter().map(|count| u64::from(count.saturating_sub(1))).sum();
    let mut expected = std::collections::BTreeMap::<String, (i64, i64)>::new();
    for id in 0..records {
        let total = expected.entry(format!("customer-{}", customer(id))).or_default();
        total.0 += i64::try_from(amount(id)).unwrap_or(i64::MAX);
        total.1 += 1;
    }
    let mut totals = std::collections::BTreeMap::new();
    for row in sqlx::query("SELECT customer, total, orders FROM totals").fetch_all(&mut *connection).await? {
        totals.insert(row.try_get::<String, _>(0)?, (row.try_get(1)?, row.try_get(2)?));
    }
    let wrong_totals = expected.iter().filter(|(customer, total)| totals.get(*customer) != Some(total)).count()
        + totals.keys().filter(|customer| !expected.contains_key(*customer)).count();
    let batches: i64 =
        sqlx::query("SELECT count(*) FROM directstream_batches").fetch_one(&mut *connection).await?.try_get(0)?;
    Ok(Recount {
        missing: u64::try_from(missing).unwrap_or(u64::MAX),
        doubled: doubled + strangers,
        wrong_totals: u64::try_from(wrong_totals).unwrap_or(u64::MAX),
        batches: u64::try_from(batches).unwrap_or(0),
        contiguous: contiguous(connection).await?,
    })
}

/// Every range begins where the one before it ended, from offset 0 on, and batch numbers have no holes.
async fn contiguous(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    let ranges = sqlx::query(
        "SELECT batch_seq, partition, from_offset, until_offset FROM directstream_batch_ranges ORDER BY batch_seq, partition",
    );
    let mut ends = std::collections::BTreeMap::new();
    let mut last_seq = 0;
    for row in ranges.fetch_all(connection).await? {
        let (seq, partition): (i64, i32) = (row.try_get(0)?, row.try_get(1)?);
        let (from, until): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        if ends.insert(partition, until).unwrap_or(0) != from || seq > last_seq + 1 {
            return Ok(false);
        }
        last_seq = seq;
    }
    Ok(true)
}
