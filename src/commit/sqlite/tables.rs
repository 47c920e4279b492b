//! The output tables of a SQLite file: checked at start, all faults in one error.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    super::{
        outputs::{self, Faults},
        settings::TableShape,
    },
    error::sqlite_error,
};
use crate::types::ColumnShape;
use crate::{
    error::{Error, Result},
    types::{Column, ColumnType, Merge, TableSpec, WriteMode},
};

/// Rows per statement: more gain nothing.
const ROWS_PER_STATEMENT: usize = 100;
/// SQLite's own limit of parameters in a statement.
const PARAMETERS_MAX: usize = 32_766;

/// An output table, ready to be written.
#[derive(Debug, Clone)]
pub(in crate::commit) struct Table {
    pub(super) name: String,
    pub(super) types: Vec<ColumnType>,
    not_null: Vec<bool>,
    /// How many rows a full statement takes.
    pub(super) rows_per_statement: usize,
    full: Arc<str>,
    head: String,
    tail: String,
}

impl Table {
    pub(in crate::commit) fn shape(&self) -> TableShape {
        let columns = self.types.iter().zip(&self.not_null);
        let columns =
            columns.map(|(column_type, not_null)| ColumnShape { column_type: *column_type, not_null: *not_null });
        TableShape { columns: columns.collect() }
    }

    /// The statement for so many rows.
    pub(super) fn insert(&self, rows: usize) -> Arc<str> {
        if rows == self.rows_per_statement { Arc::clone(&self.full) } else { self.build(rows).into() }
    }

    fn build(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.types.len()].join(", "));
        format!("{}{}{}", self.head, vec![row.as_str(); rows].join(", "), self.tail)
    }
}

/// A column as SQLite describes it.
struct Found {
    name: String,
    declared: String,
    not_null: bool,
    has_default: bool,
    in_primary_key: bool,
    generated: bool,
}

/// Checks all tables, making those that are missing and may be made.
pub(in crate::commit) async fn check(connection: &mut SqliteConnection, specs: &[TableSpec]) -> Result<Vec<Table>> {
    let mut faults = Faults::default();
    let mut tables = Vec::new();
    for spec in specs {
        tables.extend(check_one(connection, spec, &mut faults).await?);
    }
    faults.into_result()?;
    Ok(tables)
}

async fn check_one(connection: &mut SqliteConnection, spec: &TableSpec, faults: &mut Faults) -> Result<Option<Table>> {
    outputs::check_spec(spec, faults);
    if spec.table.schema.as_deref().is_some_and(|schema| schema != "main") {
        faults.add(spec, "SQLite has no schema of this name: name the table alone");
        return Ok(None);
    }
    let mut found = columns_of(connection, spec).await?;
    if found.is_empty() && spec.create && faults.is_empty() {
        let failed = |error| sqlite_error(&format!("cannot create the table table={}", spec.table), error);
        sqlx::raw_sql(AssertSqlSafe(create(spec, "CREATE TABLE IF NOT EXISTS")))
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
        found = columns_of(connection, spec).await?;
    }
    if found.is_empty() {
        faults.add(spec, "the table does not exist, and `create` is not set");
        return Ok(None);
    }
    let mut shape = Vec::new();
    for column in &spec.columns {
        let Some(found) = found.iter().find(|found| found.name.eq_ignore_ascii_case(&column.name)) else {
            faults.add_column(spec, &column.name, "the table has no such column");
            continue;
        };
        shape.extend(check_column(spec, column, found, faults));
    }
    for other in found.iter().filter(|found| !spec.columns.iter().any(|c| c.name.eq_ignore_ascii_case(&found.name))) {
        let rowid = other.in_primary_key && other.declared.eq_ignore_ascii_case("integer");
        if other.not_null && !other.has_default && !other.generated && !rowid {
            faults.add_column(
                spec,
                &other.name,
                "the column is NOT NULL, has no default, and the output does not fill it",
            );
        }
    }
    if spec.mode == WriteMode::Upsert && !has_unique_key(connection, spec, &found).await? {
        let key = spec.key.join(", ");
        faults.add(spec, &format!("no unique constraint covers exactly the upsert's key ({key})"));
    }
    // Faults of other tables do not matter here: the whole is refused at the end.
    Ok((shape.len() == spec.columns.len()).then(|| ready(spec, &shape)))
}

async fn columns_of(connection: &mut SqliteConnection, spec: &TableSpec) -> Result<Vec<Found>> {
    const COLUMNS: &str =
        "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk, hidden FROM pragma_table_xinfo($1)";
    let failed = |error| sqlite_error(&format!("cannot read the table's columns table={}", spec.table), error);
    let rows = sqlx::query(COLUMNS).bind(&spec.table.table).fetch_all(connection).await.map_err(failed)?;
    let found = |row: &SqliteRow| {
        Ok(Found {
            name: row.try_get(0)?,
            declared: row.try_get(1)?,
            not_null: row.try_get::<i64, _>(2)? != 0,
            has_default: row.try_get::<i64, _>(3)? != 0,
            in_primary_key: row.try_get::<i64, _>(4)? != 0,
            generated: row.try_get::<i64, _>(5)? > 1,
        })
    };
    rows.iter().map(|row| found(row).map_err(failed)).collect()
}

fn check_column(spec: &TableSpec, column: &Column, found: &Found, faults: &mut Faults) -> Option<ColumnShape> {
    if found.generated {
        faults.add_column(spec, &column.name, "the column is generated");
        return None;
    }
    let declared = found.declared.as_str();
    let Some(column_type) = column.column_type.or_else(|| by_declaration(declared)) else {
        let text =
            format!("its declared type is none that an output knows: give the column a type declared={declared:?}");
        faults.add_column(spec, &column.name, &text);
        return None;
    };
    let affinity = Affinity::of(declared);
    if !affinity.keeps(column_type) {
        let text = format!(
            "declared as {declared:?} SQLite would change its values: declare it {} type={column_type}",
            declaration(column_type)
        );
        faults.add_column(spec, &column.name, &text);
        return None;
    }
    // Decimals are text here, and SQLite would add and compare them as floating point numbers: not exact.
    let compared = spec.key.contains(&column.name) || matches!(column.merge, Merge::Add | Merge::Min | Merge::Max);
    if column_type == ColumnType::Numeric && compared {
        let text =
            "SQLite cannot add or compare numeric exactly: use bigint (cents, say) or double precision, or PostgreSQL";
        faults.add_column(spec, &column.name, text);
        return None;
    }
    outputs::check_merge(spec, column, column_type, faults);
    let not_null = found.not_null || spec.key.contains(&column.name);
    Some(ColumnShape { column_type, not_null })
}

/// What SQLite makes of values in a column of a declared type: <https://www.sqlite.org/datatype3.html>, 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    fn of(declared: &str) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
        if has(&["INT"]) {
            Self::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Self::Text
        } else if declared.is_empty() || declared == "ANY" || has(&["BLOB"]) {
            Self::Blob
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Self::Real
        } else {
            Self::Numeric
        }
    }

    /// Whether values of a type come out of such a column as they went in.
    fn keeps(self, column_type: ColumnType) -> bool {
        match column_type {
            ColumnType::Boolean | ColumnType::SmallInt | ColumnType::Integer | ColumnType::BigInt => {
                matches!(self, Self::Integer | Self::Numeric | Self::Blob)
            }
            ColumnType::Double => matches!(self, Self::Real | Self::Blob),
            // Text that looks like a number must not become one.
            ColumnType::Text | ColumnType::Numeric | ColumnType::Jsonb => matches!(self, Self::Text | Self::Blob),
            // RFC 3339 never looks like a number.
            ColumnType::Timestamptz => matches!(self, Self::Text | Self::Blob | Self::Numeric),
            ColumnType::Bytea => self == Self::Blob,
        }
    }
}

/// The type of a column that names none.
fn by_declaration(declared: &str) -> Option<ColumnType> {
    match declared.to_ascii_uppercase().as_str() {
        // SQLite's integers have 64 bits whatever they are called.
        "INTEGER" | "INT" => Some(ColumnType::BigInt),
        "REAL" => Some(ColumnType::Double),
        "BLOB" => Some(ColumnType::Bytea),
        "TEXT" => Some(ColumnType::Text),
        _ => declared.parse().ok(),
    }
}

/// How a column of a type is declared.
fn declaration(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Boolean | ColumnType::SmallInt | ColumnType::Integer | ColumnType::BigInt => "INTEGER",
        ColumnType::Double => "REAL",
        ColumnType::Bytea => "BLOB",
        ColumnType::Numeric | ColumnType::Text | ColumnType::Timestamptz | ColumnType::Jsonb => "TEXT",
    }
}

/// The statement that makes the table; `create` is how it begins.
pub(in crate::commit) fn create(spec: &TableSpec, create: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for column in &spec.columns {
        let not_null = if spec.key.contains(&column.name) { " NOT NULL" } else { "" };
        let word = declaration(column.column_type.unwrap_or(ColumnType::Text));
        parts.push(format!("\"{}\" {word}{not_null}", column.name));
    }
    if spec.mode == WriteMode::Upsert {
        parts.push(format!("PRIMARY KEY ({})", outputs::quoted_list(&spec.key)));
    }
    format!("{create} \"{}\" ({})", spec.table.table, parts.join(", "))
}

async fn has_unique_key(connection: &mut SqliteConnection, spec: &TableSpec, found: &[Found]) -> Result<bool> {
    const INDEXES: &str = "SELECT l.name, group_concat(COALESCE(i.name, ''), char(0)) FROM pragma_index_list($1) l \
         JOIN pragma_index_info(l.name) i WHERE l.\"unique\" = 1 AND l.partial = 0 GROUP BY l.name";
    let mut key: Vec<String> = spec.key.iter().map(|name| name.to_ascii_lowercase()).collect();
    key.sort();
    let matches = |names: &mut Vec<String>| {
        names.sort();
        *names == key
    };
    let primary = found.iter().filter(|column| column.in_primary_key);
    // `INTEGER PRIMARY KEY` is the row's own id and has no index.
    if matches(&mut primary.map(|column| column.name.to_ascii_lowercase()).collect()) {
        return Ok(true);
    }
    let failed = |error| sqlite_error(&format!("cannot read the table's indexes table={}", spec.table), error);
    let rows = sqlx::query(INDEXES).bind(&spec.table.table).fetch_all(connection).await.map_err(failed)?;
    for row in &rows {
        let names: String = row.try_get(1).map_err(failed)?;
        if matches(&mut names.split('\0').map(str::to_ascii_lowercase).collect()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn ready(spec: &TableSpec, shape: &[ColumnShape]) -> Table {
    let types: Vec<ColumnType> = shape.iter().map(|column| column.column_type).collect();
    let names: Vec<String> = spec.columns.iter().map(|column| column.name.clone()).collect();
    let head = format!("INSERT INTO \"{}\" ({}) VALUES ", spec.table.table, outputs::quoted_list(&names));
    let tail = if spec.mode == WriteMode::Upsert { on_conflict(spec, &types) } else { String::new() };
    let rows_per_statement = ROWS_PER_STATEMENT.min(PARAMETERS_MAX / types.len().max(1)).max(1);
    let not_null = shape.iter().map(|column| column.not_null).collect();
    let mut table =
        Table { name: spec.table.to_string(), types, not_null, rows_per_statement, full: "".into(), head, tail };
    table.full = table.build(rows_per_statement).into();
    table
}

/// The merge of a row with the one that is there. Null counts as absent for `add`, `min` and `max`.
fn on_conflict(spec: &TableSpec, types: &[ColumnType]) -> String {
    let table = &spec.table.table;
    let mut sets = Vec::new();
    for (column, column_type) in spec.columns.iter().zip(types) {
        if spec.key.contains(&column.name) {
            continue;
        }
        let (name, new) = (format!("\"{}\"", column.name), format!("excluded.\"{}\"", column.name));
        let old = format!("\"{table}\".{name}");
        let chosen = |sign: &str| format!("CASE WHEN {old} {sign} {new} OR {new} IS NULL THEN {old} ELSE {new} END");
        let value = match column.merge {
            Merge::First => continue,
            Merge::Last => new,
            Merge::Min => chosen("<="),
            Merge::Max => chosen(">="),
            Merge::Add => {
                let sum = sum(&format!("{old} + {new}"), *column_type);
                format!("CASE WHEN {new} IS NULL THEN {old} WHEN {old} IS NULL THEN {new} ELSE {sum} END")
            }
        };
        sets.push(format!("{name} = {value}"));
    }
    let key = outputs::quoted_list(&spec.key);
    if sets.is_empty() {
        return format!(" ON CONFLICT ({key}) DO NOTHING");
    }
    format!(" ON CONFLICT ({key}) DO UPDATE SET {}", sets.join(", "))
}

/// A sum that fails where PostgreSQL's would. SQLite turns an integer overflow into a floating point number, and its integers
/// have 64 bits whatever the column says: `abs` of the smallest integer is the way to raise an error.
fn sum(sum: &str, column_type: ColumnType) -> String {
    let (min, max) = match column_type {
        ColumnType::SmallInt => (i64::from(i16::MIN), i64::from(i16::MAX)),
        ColumnType::Integer => (i64::from(i32::MIN), i64::from(i32::MAX)),
        // The smallest integer has no literal.
        ColumnType::BigInt => (i64::MIN + 1, i64::MAX),
        _ => return sum.to_owned(),
    };
    format!(
        "CASE WHEN typeof({sum}) = 'integer' AND {sum} BETWEEN {min} AND {max} THEN {sum} \
         ELSE abs(-9223372036854775807 - 1) END"
    )
}

/// Rows for a table that there is not.
pub(super) fn unknown() -> Error {
    Error::internal("rows for an unknown table")
}

/// The table that a fault was found for while its rows were written.
pub(super) fn named(error: Error, table: &str) -> Error {
    let (kind, about_rows) = (error.kind(), error.is_about_rows());
    let named = Error::new(kind, format!("the database refused rows table={table}")).caused_by(error);
    if about_rows { named.about_rows() } else { named }
}
