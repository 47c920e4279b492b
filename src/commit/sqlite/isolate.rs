//! Slices of records in a SQLite transaction, each inside a savepoint.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row, SqliteConnection, sqlite::SqliteArguments};

use super::{
    super::{
        isolate::{Attempt, Slices, write_isolated},
        outputs,
        settings::StoreSettings,
    },
    error::sqlite_error,
    tables::{self, Table},
    write,
};
use crate::{
    error::{Error, ErrorKind, Result},
    types::{DeadLetter, Field, Isolated, Isolating, Merge, RowReader, TableRows, TableSpec, WriteMode},
};

const WHAT: &str = "cannot isolate the records";

/// Writes the records slice by slice.
pub(super) async fn run(
    connection: &mut SqliteConnection,
    settings: &StoreSettings,
    tables: &[Table],
    batch_seq: u64,
    isolating: &Isolating,
) -> Result<Isolated> {
    let mut slices = Sqlite::new(connection, settings, tables).await?;
    (slices.batch_seq, slices.first_table) = (batch_seq, isolating.first_table);
    write_isolated(&*isolating.records, &mut slices).await
}

/// Slices of records that go into the tables from the first one on, in a transaction that is open.
pub(in crate::commit) async fn slices<'c>(
    connection: &'c mut SqliteConnection,
    settings: &'c StoreSettings,
    tables: &'c [Table],
) -> Result<impl Slices> {
    Sqlite::new(connection, settings, tables).await
}

fn failed(error: sqlx::Error) -> Error {
    sqlite_error(WHAT, error)
}

/// A foreign key of an output table.
///
/// SQLite checks a deferred one at COMMIT and tells then neither the row nor the table. So each row of a slice is looked up
/// by its values, in the parent's own order and comparison.
struct ForeignKey {
    /// Indexes of the output's columns.
    columns: Vec<usize>,
    parent: String,
    exists: String,
}

/// A column and the parent's column that it refers to.
type Reference = (String, Option<String>);

async fn foreign_keys_of(connection: &mut SqliteConnection, spec: &TableSpec) -> Result<Vec<ForeignKey>> {
    // A key that names no columns means the parent's primary key.
    const KEYS: &str = "SELECT k.id, k.\"table\", k.\"from\", COALESCE(k.\"to\", (SELECT p.name FROM \
         pragma_table_info(k.\"table\") p WHERE p.pk = k.seq + 1)) FROM pragma_foreign_key_list($1) k ORDER BY k.id, k.seq";
    let rows = sqlx::query(KEYS).bind(&spec.table.table).fetch_all(connection).await.map_err(failed)?;
    let mut keys: Vec<(i64, String, Vec<Reference>)> = Vec::new();
    for row in rows {
        let id: i64 = row.try_get(0).map_err(failed)?;
        let columns = (row.try_get(2).map_err(failed)?, row.try_get(3).map_err(failed)?);
        match keys.last_mut().filter(|key| key.0 == id) {
            Some(key) => key.2.push(columns),
            None => keys.push((id, row.try_get(1).map_err(failed)?, vec![columns])),
        }
    }
    Ok(keys.into_iter().filter_map(|(_, parent, columns)| foreign_key(spec, parent, &columns)).collect())
}

/// The key, if the values in its columns are those of the row: columns that the output does not fill, and merged ones, are
/// left to the check at COMMIT.
fn foreign_key(spec: &TableSpec, parent: String, columns: &[Reference]) -> Option<ForeignKey> {
    let (mut indexes, mut equals) = (Vec::new(), Vec::new());
    for (from, to) in columns {
        let index = spec.columns.iter().position(|column| column.name.eq_ignore_ascii_case(from))?;
        let column = &spec.columns[index];
        if spec.mode == WriteMode::Upsert && !spec.key.contains(&column.name) && column.merge != Merge::Last {
            return None;
        }
        indexes.push(index);
        equals.push(format!("{} = ?", outputs::quoted(to.as_deref()?)));
    }
    let from = outputs::quoted(&parent);
    let exists = format!("SELECT EXISTS (SELECT 1 FROM {from} WHERE {})", equals.join(" AND "));
    Some(ForeignKey { columns: indexes, parent, exists })
}

struct Sqlite<'c> {
    connection: &'c mut SqliteConnection,
    settings: &'c StoreSettings,
    tables: &'c [Table],
    /// Of each table.
    foreign_keys: Vec<Vec<ForeignKey>>,
    batch_seq: u64,
    first_table: usize,
}

impl<'c> Sqlite<'c> {
    async fn new(
        connection: &'c mut SqliteConnection,
        settings: &'c StoreSettings,
        tables: &'c [Table],
    ) -> Result<Self> {
        let mut foreign_keys = Vec::new();
        for spec in &settings.tables {
            foreign_keys.push(foreign_keys_of(connection, spec).await?);
        }
        Ok(Self { connection, settings, tables, foreign_keys, batch_seq: 0, first_table: 0 })
    }

    async fn execute(&mut self, sql: &'static str) -> Result<()> {
        sqlx::query(sql).execute(&mut *self.connection).await.map(drop).map_err(failed)
    }

    fn name(&self, index: usize) -> Option<String> {
        self.settings.tables.get(index).map(|spec| spec.table.to_string())
    }

    /// Why the slice is refused, if it is; and the table that did.
    async fn write_all(&mut self, rows: &[TableRows]) -> Result<Option<(Error, Option<String>)>> {
        for part in rows {
            let index = self.first_table + part.table;
            let table = self.tables.get(index).ok_or_else(tables::unknown)?;
            match write::rows(self.connection, table, part).await {
                Err(error) if error.is_about_rows() => return Ok(Some((error, self.name(index)))),
                done => done?,
            }
        }
        // After all tables: rows of one slice may refer to each other in any order.
        for part in rows {
            let index = self.first_table + part.table;
            let table = self.tables.get(index).ok_or_else(tables::unknown)?;
            let keys = self.foreign_keys.get(index).map(Vec::as_slice).unwrap_or_default();
            if let Some(parent) = orphan(self.connection, table, keys, part).await? {
                let name = &table.name;
                let text =
                    format!("the database refused rows: no such row in a parent table table={name} parent={parent}");
                return Ok(Some((Error::transform(text).about_rows(), self.name(index))));
            }
        }
        Ok(None)
    }
}

/// The parent table of a row that refers to nothing.
async fn orphan<'k>(
    connection: &mut SqliteConnection,
    table: &Table,
    keys: &'k [ForeignKey],
    rows: &TableRows,
) -> Result<Option<&'k str>> {
    for key in keys {
        for row in rows.chunks.iter().flat_map(|chunk| RowReader::new(&table.types, chunk)) {
            let fields: Vec<&Field<'_>> = key.columns.iter().filter_map(|column| row.get(*column)).collect();
            if fields.contains(&&Field::Null) {
                continue;
            }
            let mut arguments = SqliteArguments::default();
            for field in fields {
                write::bind(&mut arguments, field.clone())?;
            }
            let exists = sqlx::query_scalar_with::<_, bool, _>(AssertSqlSafe(key.exists.as_str()), arguments);
            if !exists.fetch_one(&mut *connection).await.map_err(failed)? {
                return Ok(Some(&key.parent));
            }
        }
    }
    Ok(None)
}

#[async_trait]
impl Slices for Sqlite<'_> {
    async fn write(&mut self, rows: &[TableRows]) -> Result<Attempt> {
        self.execute("SAVEPOINT directstream_slice").await?;
        let refused = self.write_all(rows).await?;
        if refused.is_some() {
            self.execute("ROLLBACK TO directstream_slice").await.map_err(|error| match error.kind() {
                // A constraint declared ON CONFLICT ROLLBACK took the savepoint with it: the batch fails.
                ErrorKind::Config => Error::transform("a refused row ended the batch's transaction").caused_by(error),
                _ => error,
            })?;
        }
        self.execute("RELEASE directstream_slice").await?;
        Ok(refused.map_or(Attempt::Written, |(error, output)| Attempt::Refused(error, output)))
    }

    async fn dead_letters(&mut self, letters: &[DeadLetter]) -> Result<()> {
        write::dead_letters(self.connection, &self.settings.application, self.batch_seq, letters).await
    }
}
