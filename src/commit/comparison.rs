//! Are the tables what the ledger's records make of them? The expected rows are written into temporary tables by the very
//! statements that wrote the real ones; the database itself then tells the difference. Memory here is bounded, whatever the
//! tables' size.

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, ColumnIndex, Decode, Type};

use super::{
    inspect::Inspector,
    link::{Link, Tables, no_sql},
    postgres, sqlite,
};
use crate::{
    error::{Error, Result},
    types::{Column, ColumnShape, ColumnSource, ColumnType, Merge, TableName, TableRows, TableSpec, WriteMode},
};

/// Where an appended row came from: columns of the expected tables only.
const ORIGIN: [(&str, ColumnSource, ColumnType); 3] = [
    ("directstream_topic", ColumnSource::Topic, ColumnType::Text),
    ("directstream_partition", ColumnSource::Partition, ColumnType::Integer),
    ("directstream_offset", ColumnSource::Offset, ColumnType::BigInt),
];

/// How a table's row differs from what the records say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowDamage {
    /// The records make it, and the table has it not, or not as often.
    Missing,
    /// The table has it more often than the records make it.
    Doubled,
    /// The table has a row of this identity with other values.
    Altered,
    /// No record makes it.
    Unexpected,
}

impl RowDamage {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Doubled => "doubled",
            Self::Altered => "altered",
            Self::Unexpected => "unexpected",
        }
    }
}

/// One difference between a table and the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDifference {
    /// The table as the job names it.
    pub table: String,
    /// What is wrong.
    pub damage: RowDamage,
    /// How many rows are missing or too many.
    pub rows: u64,
    /// `topic:partition:offset` of a record that makes the row, where the table appends.
    pub origin: Option<String>,
    /// What tells the row from others: the key of an upsert, the columns of an append table that hold a record's place, or
    /// else all columns. Names and values as text; `None` is NULL.
    pub identity: Vec<(String, Option<String>)>,
}

/// The tables of a job beside what its records make of them, in one snapshot of the database.
#[derive(Debug)]
pub struct Comparison {
    inspector: Inspector,
    real: Vec<TableSpec>,
    expected: Vec<TableSpec>,
    tables: Tables,
}

impl Comparison {
    /// Begins a snapshot on `inspector`'s connection and makes empty temporary tables beside the job's.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if a table is missing or of another shape than the job says.
    pub async fn begin(mut inspector: Inspector, specs: &[TableSpec]) -> Result<Self> {
        inspector.snapshot().await?;
        let real: Vec<TableSpec> = specs.iter().map(|spec| TableSpec { create: false, ..spec.clone() }).collect();
        let what = "cannot make temporary tables for the comparison";
        let link = &mut inspector.connection;
        let expected = expected_specs(&real, &link.columns(&real).await?);
        for spec in &expected {
            link.create_temporary(what, spec).await?;
        }
        let tables = link.tables(&expected).await?;
        Ok(Self { inspector, real, expected, tables })
    }

    /// The ledger, as the snapshot has it.
    pub fn inspector(&mut self) -> &mut Inspector {
        &mut self.inspector
    }

    /// The tables that expected rows are to be made for: the job's, and where rows are appended three columns more that say
    /// which record a row came from.
    #[must_use]
    pub fn expected_tables(&self) -> &[TableSpec] {
        &self.expected
    }

    /// Their columns.
    #[must_use]
    pub fn shapes(&self) -> Vec<Vec<ColumnShape>> {
        self.tables.shapes().into_iter().map(|shape| shape.columns).collect()
    }

    /// Adds what one batch makes. Batches in their order: an upsert's merge may depend on it.
    ///
    /// # Errors
    /// What the database answers.
    pub async fn expect(&mut self, rows: &[TableRows]) -> Result<()> {
        let none = || Error::internal("rows for an unknown table");
        for rows in rows {
            match (&mut self.inspector.connection, &self.tables) {
                (Link::Postgres(link), Tables::Postgres(tables)) => {
                    postgres::write::add_rows(link, tables.get(rows.table).ok_or_else(none)?, rows).await?;
                }
                (Link::Sqlite(link), Tables::Sqlite(tables)) => {
                    sqlite::write::rows(link, tables.get(rows.table).ok_or_else(none)?, rows).await?;
                }
                _ => return Err(none()),
            }
        }
        Ok(())
    }

    /// Gives every difference of the table of this number to `each`, ordered by the rows' identity. Without `complete`, when not
    /// all records that ever went into the table are expected, only what is missing can be told, and of an upsert nothing.
    ///
    /// # Errors
    /// What the database answers.
    pub async fn differences(
        &mut self,
        table: usize,
        complete: bool,
        mut each: impl FnMut(RowDifference),
    ) -> Result<()> {
        let shapes = self.shapes();
        let (Some(real), Some(expected), Some(shapes)) =
            (self.real.get(table), self.expected.get(table), shapes.get(table))
        else {
            return Err(Error::internal("a comparison of an unknown table"));
        };
        if real.mode == WriteMode::Upsert && !complete {
            return Ok(());
        }
        let mut pairs = Pairs { spec: real, shapes, identity: identity_of(real), complete, waiting: Vec::new() };
        let what = format!("cannot compare the table table={}", real.table);
        // The rows of both sides as a multiset: what does not cancel out is a difference.
        match &mut self.inspector.connection {
            Link::Postgres(link) => {
                let sql = difference_sql(real, expected, |name| format!("{name}::text"));
                let failed = |error| postgres::postgres_error(&what, error);
                let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut **link);
                while let Some(row) = rows.try_next().await.map_err(failed)? {
                    pairs.take(Surplus::read(&row, real.columns.len()).map_err(failed)?, &mut each);
                }
            }
            Link::Sqlite(link) => {
                let sql = difference_sql(real, expected, |name| {
                    format!("CASE typeof({name}) WHEN 'blob' THEN hex({name}) ELSE CAST({name} AS TEXT) END")
                });
                let failed = |error| sqlite::sqlite_error(&what, error);
                let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut **link);
                while let Some(row) = rows.try_next().await.map_err(failed)? {
                    pairs.take(Surplus::read(&row, real.columns.len()).map_err(failed)?, &mut each);
                }
            }
            Link::Checkpoint(_) => return Err(no_sql(&what)),
        }
        pairs.finish(&mut each);
        Ok(())
    }
}

/// The temporary tables: the job's columns with the types that the real tables have.
fn expected_specs(real: &[TableSpec], shapes: &[Vec<ColumnShape>]) -> Vec<TableSpec> {
    let spec = |(index, (spec, shapes)): (usize, (&TableSpec, &Vec<ColumnShape>))| {
        let typed = |(column, shape): (&Column, &ColumnShape)| Column {
            column_type: Some(shape.column_type),
            ..column.clone()
        };
        let mut columns: Vec<Column> = spec.columns.iter().zip(shapes).map(typed).collect();
        if spec.mode == WriteMode::Append {
            columns.extend(ORIGIN.map(|(name, source, column_type)| Column {
                name: name.to_owned(),
                source: Some(source),
                column_type: Some(column_type),
                merge: Merge::default(),
            }));
        }
        let table = TableName { schema: None, table: format!("directstream_expected_{index}") };
        TableSpec { table, columns, ..spec.clone() }
    };
    real.iter().zip(shapes).enumerate().map(spec).collect()
}

/// Which columns tell a row from others; empty if none do.
fn identity_of(spec: &TableSpec) -> Vec<usize> {
    let place = |source: &Option<ColumnSource>| {
        matches!(source, Some(ColumnSource::Topic | ColumnSource::Partition | ColumnSource::Offset))
    };
    let holds = |wanted: &ColumnSource| spec.columns.iter().any(|column| column.source.as_ref() == Some(wanted));
    let columns = spec.columns.iter().enumerate();
    match spec.mode {
        WriteMode::Upsert => columns.filter(|(_, c)| spec.key.contains(&c.name)).map(|(index, _)| index).collect(),
        // An offset alone names no record.
        WriteMode::Append if holds(&ColumnSource::Partition) && holds(&ColumnSource::Offset) => {
            columns.filter(|(_, column)| place(&column.source)).map(|(index, _)| index).collect()
        }
        WriteMode::Append => Vec::new(),
    }
}

/// Rows that one side has more often than the other.
struct Surplus {
    /// Above zero: so many are missing in the table; below: so many are too many.
    missing: i64,
    /// How many the records make.
    expected: i64,
    /// One of the records.
    origin: Option<String>,
    /// The columns as text.
    columns: Vec<Option<String>>,
}

impl Surplus {
    fn read<R>(row: &R, columns: usize) -> sqlx::Result<Self>
    where
        R: sqlx::Row,
        usize: ColumnIndex<R>,
        i64: for<'r> Decode<'r, R::Database> + Type<R::Database>,
        String: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    {
        Ok(Self {
            missing: row.try_get(0)?,
            expected: row.try_get(1)?,
            origin: row.try_get(2)?,
            columns: (0..columns).map(|index| row.try_get(3 + index)).collect::<sqlx::Result<_>>()?,
        })
    }
}

fn difference_sql(real: &TableSpec, expected: &TableSpec, text: impl Fn(&str) -> String) -> String {
    let names: Vec<String> = real.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
    let columns = names.join(", ");
    let origin = match real.mode {
        WriteMode::Append => ORIGIN.map(|(name, ..)| format!("\"{name}\"")).join(" || ':' || "),
        WriteMode::Upsert => "CAST(NULL AS text)".to_owned(),
    };
    let order = match identity_of(real).as_slice() {
        [] => columns.clone(),
        identity => identity.iter().map(|index| names[*index].clone()).collect::<Vec<_>>().join(", "),
    };
    let texts: Vec<String> = names.iter().map(|name| text(name)).collect();
    format!(
        "SELECT CAST(sum(directstream_n) AS bigint), CAST(sum(directstream_e) AS bigint), min(directstream_o), {texts} \
         FROM (SELECT {columns}, 1 AS directstream_n, 1 AS directstream_e, {origin} AS directstream_o FROM {expected} \
         UNION ALL SELECT {columns}, -1, 0, NULL FROM {real}) AS both_sides \
         GROUP BY {columns} HAVING sum(directstream_n) <> 0 ORDER BY {order}",
        texts = texts.join(", "),
        expected = expected.table.quoted(),
        real = real.table.quoted(),
    )
}

/// Finds what belongs together: a row too few and a row too many of one identity are one altered row. The rows come ordered
/// by identity, so only those of one identity wait.
struct Pairs<'t> {
    spec: &'t TableSpec,
    shapes: &'t [ColumnShape],
    identity: Vec<usize>,
    complete: bool,
    waiting: Vec<Surplus>,
}

impl Pairs<'_> {
    fn take(&mut self, row: Surplus, each: &mut impl FnMut(RowDifference)) {
        let same = |other: &Surplus| self.identity.iter().all(|index| other.columns[*index] == row.columns[*index]);
        // Without an identity every row is its own.
        if self.identity.is_empty() || !self.waiting.last().is_some_and(same) {
            self.finish(each);
        }
        self.waiting.push(row);
    }

    fn finish(&mut self, each: &mut impl FnMut(RowDifference)) {
        let mut waiting = std::mem::take(&mut self.waiting);
        if let [one, other] = waiting.as_slice()
            && self.differ_by_rounding(one, other)
        {
            waiting.clear();
        }
        let made = waiting.iter().find(|row| row.missing > 0);
        let other = waiting.iter().find(|row| row.missing < 0 && row.expected == 0);
        let altered = made.is_some() && other.is_some();
        for row in &waiting {
            let damage = match row.missing {
                1.. if altered => RowDamage::Altered,
                1.. => RowDamage::Missing,
                // Told with the row that it was before, or not to be told from rows of records that are not expected here.
                _ if !self.complete || (altered && row.expected == 0) => continue,
                _ if row.expected > 0 => RowDamage::Doubled,
                _ => RowDamage::Unexpected,
            };
            each(self.difference(row, damage));
        }
    }

    /// Whether two rows of one identity differ by nothing but the last digits of sums of doubles. Where records were written
    /// one by one, or replayed, the same numbers were added in another order than a whole batch adds them.
    fn differ_by_rounding(&self, one: &Surplus, other: &Surplus) -> bool {
        let mut columns = self.spec.columns.iter().zip(self.shapes).zip(one.columns.iter().zip(&other.columns));
        !self.identity.is_empty()
            && one.missing + other.missing == 0
            && columns.all(|((column, shape), (one, other))| {
                let sum = column.merge == Merge::Add && shape.column_type == ColumnType::Double;
                one == other || (sum && are_close(one.as_deref(), other.as_deref()))
            })
    }

    fn difference(&self, row: &Surplus, damage: RowDamage) -> RowDifference {
        let all = self.identity.is_empty();
        let named = self.spec.columns.iter().zip(&row.columns).enumerate();
        let identity = named.filter(|(index, _)| all || self.identity.contains(index));
        RowDifference {
            table: self.spec.table.to_string(),
            damage,
            rows: row.missing.unsigned_abs(),
            origin: row.origin.clone(),
            identity: identity.map(|(_, (column, text))| (column.name.clone(), text.clone())).collect(),
        }
    }
}

/// Two doubles whose difference adding in another order explains.
fn are_close(one: Option<&str>, other: Option<&str>) -> bool {
    const ROUNDING_MAX: f64 = 1e-9;
    let (Some(one), Some(other)) = (one, other) else { return false };
    let (Ok(one), Ok(other)) = (one.parse::<f64>(), other.parse::<f64>()) else { return false };
    (one - other).abs() <= ROUNDING_MAX * one.abs().max(other.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_doubles_are_close_but_for_rounding() {
        assert!(are_close(Some("0.30000000000000004"), Some("0.3")));
        assert!(are_close(Some("0"), Some("-0")));
        for (one, other) in [("0.3", "0.300001"), ("1", "-1"), ("0", "1e-300"), ("NaN", "NaN"), ("a", "a")] {
            assert!(!are_close(Some(one), Some(other)), "{one} {other}");
        }
        assert!(!are_close(None, Some("1")) && !are_close(Some("1"), None));
    }
}
