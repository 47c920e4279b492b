//! The output tables of a PostgreSQL database: checked at start, all faults in one error.

use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgRow};

use super::{
    super::{
        outputs::{self, Faults},
        settings::TableShape,
    },
    error::{answer, postgres_error},
};
use crate::{
    error::{Error, Result},
    types::{Column, ColumnShape, ColumnType, Merge, TableSpec, WriteMode},
};

/// An output table, ready to be written.
#[derive(Debug, Clone)]
pub(in crate::commit) struct Table {
    /// The name with its schema, as found at start and kept since: a changed `search_path` changes nothing.
    pub(super) name: String,
    pub(super) columns: Vec<ColumnShape>,
    pub(super) copy: String,
    pub(super) upsert: Option<Upsert>,
}

/// How rows get from a session's own table into the real one.
#[derive(Debug, Clone)]
pub(super) struct Upsert {
    pub(super) create_stage: String,
    pub(super) merge: String,
    pub(super) empty_stage: String,
}

impl Table {
    pub(in crate::commit) fn shape(&self) -> TableShape {
        TableShape { columns: self.columns.clone() }
    }
}

struct Found {
    oid: i64,
    schema: String,
    kind: String,
    row_security: bool,
    insert: bool,
    select: bool,
    update: bool,
}

struct FoundColumn {
    name: String,
    type_name: String,
    not_null: bool,
    filled: bool,
    generated: bool,
    /// Declared with a precision.
    rounded: bool,
}

/// Checks all tables and makes what an upsert needs, for whoever is not the committer.
pub(in crate::commit) async fn tables_of(connection: &mut PgConnection, specs: &[TableSpec]) -> Result<Vec<Table>> {
    let tables = check(connection, specs).await?;
    create_stages(connection, &tables).await?;
    Ok(tables)
}

/// Checks all tables, making those that are missing and may be made.
pub(in crate::commit) async fn check(connection: &mut PgConnection, specs: &[TableSpec]) -> Result<Vec<Table>> {
    let mut faults = Faults::default();
    let mut tables = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        tables.extend(check_one(connection, index, spec, &mut faults).await?);
    }
    faults.into_result()?;
    Ok(tables)
}

async fn check_one(
    connection: &mut PgConnection,
    index: usize,
    spec: &TableSpec,
    faults: &mut Faults,
) -> Result<Option<Table>> {
    outputs::check_spec(spec, faults);
    let mut found = find(connection, spec).await?;
    if found.is_none() && spec.create && faults.is_empty() {
        let what = format!("cannot create the table table={}", spec.table);
        answer(
            &what,
            sqlx::raw_sql(AssertSqlSafe(create(spec, "CREATE TABLE IF NOT EXISTS"))).execute(&mut *connection),
        )
        .await?;
        found = find(connection, spec).await?;
    }
    let Some(found) = found else {
        faults.add(spec, "the table does not exist, and `create` is not set");
        return Ok(None);
    };
    check_table(spec, &found, faults);
    let have = columns_of(connection, spec, found.oid).await?;
    let mut shape = Vec::new();
    for column in &spec.columns {
        match have.iter().find(|have| have.name == column.name) {
            Some(have) => shape.extend(check_column(spec, column, have, faults)),
            None => faults.add_column(spec, &column.name, "the table has no such column"),
        }
    }
    for other in have.iter().filter(|have| !spec.columns.iter().any(|column| column.name == have.name)) {
        if other.not_null && !other.filled && !other.generated {
            faults.add_column(
                spec,
                &other.name,
                "the column is NOT NULL, has no default, and the output does not fill it",
            );
        }
    }
    if spec.mode == WriteMode::Upsert && !has_unique_key(connection, spec, found.oid).await? {
        let key = spec.key.join(", ");
        faults.add(spec, &format!("no unique constraint covers exactly the upsert's key ({key})"));
    }
    // Faults of other tables do not matter here: the whole is refused at the end.
    Ok((shape.len() == spec.columns.len()).then(|| ready(index, spec, &found.schema, shape)))
}

async fn find(connection: &mut PgConnection, spec: &TableSpec) -> Result<Option<Found>> {
    const FIND: &str = "SELECT c.oid::bigint, n.nspname::text, c.relkind::text, row_security_active(c.oid), \
         has_table_privilege(c.oid, 'INSERT'), has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'UPDATE') \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid = pg_catalog.to_regclass($1)";
    let what = format!("cannot look the table up table={}", spec.table);
    let row = answer(&what, sqlx::query(FIND).bind(spec.table.quoted()).fetch_optional(connection)).await?;
    let read = |row: PgRow| {
        Ok(Found {
            oid: row.try_get(0)?,
            schema: row.try_get(1)?,
            kind: row.try_get(2)?,
            row_security: row.try_get(3)?,
            insert: row.try_get(4)?,
            select: row.try_get(5)?,
            update: row.try_get(6)?,
        })
    };
    row.map(read).transpose().map_err(|error| postgres_error(&what, error))
}

fn check_table(spec: &TableSpec, found: &Found, faults: &mut Faults) {
    if !matches!(found.kind.as_str(), "r" | "p") {
        faults.add(spec, "it is no table (a view, a foreign table or a sequence)");
    }
    if found.row_security {
        faults.add(spec, "row security applies to this role, and COPY does not work with it");
    }
    let upsert = spec.mode == WriteMode::Upsert;
    let wanted = [("INSERT", found.insert), ("SELECT", found.select || !upsert), ("UPDATE", found.update || !upsert)];
    for (privilege, _) in wanted.into_iter().filter(|(_, has)| !has) {
        faults.add(spec, &format!("this role lacks the privilege {privilege}"));
    }
}

async fn columns_of(connection: &mut PgConnection, spec: &TableSpec, oid: i64) -> Result<Vec<FoundColumn>> {
    const COLUMNS: &str = "SELECT a.attname::text, CASE WHEN t.typtype = 'b' AND t.typnamespace = 'pg_catalog'::regnamespace \
         THEN t.typname::text ELSE pg_catalog.format_type(a.atttypid, a.atttypmod) END, a.attnotnull, \
         a.atthasdef OR a.attidentity <> '', a.attgenerated <> '' OR a.attidentity = 'a', a.atttypmod \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         WHERE a.attrelid::bigint = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let what = format!("cannot read the table's columns table={}", spec.table);
    let rows = answer(&what, sqlx::query(COLUMNS).bind(oid).fetch_all(connection)).await?;
    let read = |row: &PgRow| {
        Ok(FoundColumn {
            name: row.try_get(0)?,
            type_name: row.try_get(1)?,
            not_null: row.try_get(2)?,
            filled: row.try_get(3)?,
            generated: row.try_get(4)?,
            rounded: row.try_get::<i32, _>(5)? >= 0,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| postgres_error(&what, error))
}

fn check_column(spec: &TableSpec, column: &Column, have: &FoundColumn, faults: &mut Faults) -> Option<ColumnShape> {
    if have.generated {
        faults.add_column(spec, &column.name, "the column is generated");
        return None;
    }
    let Some(column_type) = by_type_name(&have.type_name) else {
        let known = ColumnType::ALL.map(ColumnType::sql).join(", ");
        let text = format!("its type is none that an output can fill type={:?}; known: {known}", have.type_name);
        faults.add_column(spec, &column.name, &text);
        return None;
    };
    if let Some(wanted) = column.column_type
        && wanted != column_type
    {
        let text = format!("the table's column has another type wanted={wanted:?} found={:?}", have.type_name);
        faults.add_column(spec, &column.name, &text);
        return None;
    }
    // Rounded on its way in, a value is not exact, two keys become one, and a sum depends on where batches end.
    if have.rounded && matches!(column_type, ColumnType::Numeric | ColumnType::Timestamptz) {
        let text = format!("it is declared with a precision and would round: declare it {column_type}");
        faults.add_column(spec, &column.name, &text);
        return None;
    }
    outputs::check_merge(spec, column, column_type, faults);
    let not_null = have.not_null || spec.key.contains(&column.name);
    Some(ColumnShape { column_type, not_null })
}

/// The types whose binary form the workers write. `character(n)` and domains are not among them: what comes out of them is
/// not what went in.
fn by_type_name(name: &str) -> Option<ColumnType> {
    Some(match name {
        "bool" => ColumnType::Boolean,
        "int2" => ColumnType::SmallInt,
        "int4" => ColumnType::Integer,
        "int8" => ColumnType::BigInt,
        "float8" => ColumnType::Double,
        "numeric" => ColumnType::Numeric,
        "text" | "varchar" => ColumnType::Text,
        "bytea" => ColumnType::Bytea,
        "timestamptz" => ColumnType::Timestamptz,
        "jsonb" => ColumnType::Jsonb,
        _ => return None,
    })
}

async fn has_unique_key(connection: &mut PgConnection, spec: &TableSpec, oid: i64) -> Result<bool> {
    // Partial indexes, expressions and deferred constraints cannot decide a conflict.
    const KEYS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid::bigint = $1 AND i.indisunique \
         AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND \
         (SELECT array_agg(a.attname::text ORDER BY a.attname::text COLLATE \"C\") FROM \
         unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k(n) \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n) = $2)";
    let mut key = spec.key.clone();
    key.sort();
    let what = format!("cannot read the table's indexes table={}", spec.table);
    answer(&what, sqlx::query_scalar(KEYS).bind(oid).bind(key).fetch_one(connection)).await
}

/// The statement that makes the table; `create` is how it begins.
pub(in crate::commit) fn create(spec: &TableSpec, create: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for column in &spec.columns {
        let not_null = if spec.key.contains(&column.name) { " NOT NULL" } else { "" };
        parts.push(format!("\"{}\" {}{not_null}", column.name, column.column_type.unwrap_or(ColumnType::Text)));
    }
    if spec.mode == WriteMode::Upsert {
        parts.push(format!("PRIMARY KEY ({})", outputs::quoted_list(&spec.key)));
    }
    format!("{create} {} ({})", spec.table.quoted(), parts.join(", "))
}

fn ready(index: usize, spec: &TableSpec, schema: &str, columns: Vec<ColumnShape>) -> Table {
    // The schema comes from the catalogue, so it may hold any character.
    let name = format!("\"{}\".\"{}\"", schema.replace('"', "\"\""), spec.table.table);
    let names: Vec<String> = spec.columns.iter().map(|column| column.name.clone()).collect();
    let list = outputs::quoted_list(&names);
    let stage = format!("pg_temp.directstream_stage_{index}");
    let (target, upsert) = match spec.mode {
        WriteMode::Append => (&name, None),
        WriteMode::Upsert => {
            let create_stage = format!(
                "CREATE TEMPORARY TABLE IF NOT EXISTS directstream_stage_{index} ON COMMIT DELETE ROWS AS \
                 SELECT {list} FROM {name} WITH NO DATA"
            );
            let merge = merge(spec, &name, &stage, &list, &columns);
            (&stage, Some(Upsert { create_stage, merge, empty_stage: format!("TRUNCATE {stage}") }))
        }
    };
    let copy = format!("COPY {target} ({list}) FROM STDIN (FORMAT binary)");
    Table { name, columns, copy, upsert }
}

/// The rows of the stage into the table. In key order: two writers of one table then lock rows in one order.
fn merge(spec: &TableSpec, name: &str, stage: &str, list: &str, columns: &[ColumnShape]) -> String {
    let key = outputs::quoted_list(&spec.key);
    let mut sets = Vec::new();
    for (column, shape) in spec.columns.iter().zip(columns) {
        if spec.key.contains(&column.name) {
            continue;
        }
        let name = format!("\"{}\"", column.name);
        let (mut old, mut new) = (format!("stored.{name}"), format!("excluded.{name}"));
        if shape.column_type == ColumnType::Text && matches!(column.merge, Merge::Min | Merge::Max) {
            // Within a batch texts compare by their bytes; another order here would make the result depend on where
            // batches end.
            old.push_str(" COLLATE \"C\"");
            new.push_str(" COLLATE \"C\"");
        }
        let value = match column.merge {
            Merge::First => continue,
            Merge::Last => new,
            Merge::Add => format!("COALESCE({old} + {new}, {old}, {new})"),
            // Both ignore NULL.
            Merge::Min => format!("LEAST({old}, {new})"),
            Merge::Max => format!("GREATEST({old}, {new})"),
        };
        sets.push(format!("{name} = {value}"));
    }
    let action = if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", sets.join(", ")) };
    format!(
        "INSERT INTO {name} AS stored ({list}) SELECT {list} FROM {stage} ORDER BY {key} ON CONFLICT ({key}) DO {action}"
    )
}

/// Makes the session's own tables for upserts.
pub(in crate::commit) async fn create_stages(connection: &mut PgConnection, tables: &[Table]) -> Result<()> {
    for table in tables {
        let Some(upsert) = &table.upsert else { continue };
        let what = format!("cannot create a temporary table for the upsert table={}", table.name);
        answer(&what, sqlx::raw_sql(AssertSqlSafe(upsert.create_stage.as_str())).execute(&mut *connection)).await?;
    }
    Ok(())
}

/// Rows for a table that there is not.
pub(super) fn unknown() -> Error {
    Error::internal("rows for an unknown table")
}
