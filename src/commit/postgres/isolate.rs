//! Slices of records in a PostgreSQL transaction, each inside a savepoint.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::{
    super::{
        isolate::{Attempt, Slices, write_isolated},
        settings::StoreSettings,
    },
    error::{answer, rows_answer},
    tables::{self, Table},
    write,
};
use crate::{
    error::{Error, Result},
    types::{DeadLetter, Isolated, Isolating, TableRows},
};

const WHAT: &str = "cannot isolate the records";

/// Writes the records slice by slice.
pub(super) async fn run(
    connection: &mut PgConnection,
    settings: &StoreSettings,
    tables: &[Table],
    batch_seq: u64,
    isolating: &Isolating,
) -> Result<Isolated> {
    // What was written before must hold by itself: else the first slice, and every one after it, would be blamed for it.
    check_constraints(connection).await?;
    let first_table = isolating.first_table;
    let mut slices = Postgres { connection, settings, tables, batch_seq, first_table };
    let isolated = write_isolated(&*isolating.records, &mut slices).await?;
    // What comes after may be in any order again.
    simple(connection, "SET CONSTRAINTS ALL DEFERRED").await?;
    Ok(isolated)
}

/// Slices of records that go into the tables from the first one on, in a transaction that is open.
pub(in crate::commit) fn slices<'c>(
    connection: &'c mut PgConnection,
    settings: &'c StoreSettings,
    tables: &'c [Table],
) -> impl Slices {
    Postgres { connection, settings, tables, batch_seq: 0, first_table: 0 }
}

async fn check_constraints(connection: &mut PgConnection) -> Result<()> {
    let check = sqlx::raw_sql("SET CONSTRAINTS ALL IMMEDIATE").execute(connection);
    rows_answer("the database refused rows", check).await.map(drop)
}

async fn simple(connection: &mut PgConnection, sql: &'static str) -> Result<()> {
    answer(WHAT, sqlx::raw_sql(sql).execute(connection)).await.map(drop)
}

struct Postgres<'c> {
    connection: &'c mut PgConnection,
    settings: &'c StoreSettings,
    tables: &'c [Table],
    batch_seq: u64,
    first_table: usize,
}

impl Postgres<'_> {
    /// Why the slice is refused, if it is; and the table that did, if it is known.
    async fn write_all(&mut self, rows: &[TableRows]) -> Result<Option<(Error, Option<String>)>> {
        for part in rows {
            let index = self.first_table + part.table;
            let table = self.tables.get(index).ok_or_else(tables::unknown)?;
            match write::add_rows(self.connection, table, part).await {
                Err(error) if error.is_about_rows() => {
                    let output = self.settings.tables.get(index).map(|spec| spec.table.to_string());
                    return Ok(Some((error, output)));
                }
                done => done?,
            }
        }
        match check_constraints(self.connection).await {
            Err(error) if error.is_about_rows() => Ok(Some((error, None))),
            done => done.map(|()| None),
        }
    }
}

#[async_trait]
impl Slices for Postgres<'_> {
    async fn write(&mut self, rows: &[TableRows]) -> Result<Attempt> {
        // Rows of one slice may refer to each other in any order; at its end all of them must hold.
        simple(self.connection, "SAVEPOINT directstream_slice; SET CONSTRAINTS ALL DEFERRED").await?;
        match self.write_all(rows).await? {
            None => {
                simple(self.connection, "RELEASE SAVEPOINT directstream_slice").await?;
                Ok(Attempt::Written)
            }
            Some((error, output)) => {
                let back = "ROLLBACK TO SAVEPOINT directstream_slice; RELEASE SAVEPOINT directstream_slice";
                simple(self.connection, back).await?;
                Ok(Attempt::Refused(error, output))
            }
        }
    }

    async fn dead_letters(&mut self, letters: &[DeadLetter]) -> Result<()> {
        write::dead_letters(self.connection, &self.settings.application, self.batch_seq, letters).await
    }
}
