//! What is checked of an output table whatever the store.

use std::collections::BTreeSet;

use crate::{
    error::{Error, Result},
    types::{Column, ColumnType, Merge, TableSpec, WriteMode},
};

/// PostgreSQL's limit; SQLite's default is higher.
const COLUMNS_MAX: usize = 1600;

/// Everything that is wrong with the outputs, told together.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<String>);

impl Faults {
    pub(crate) fn add(&mut self, spec: &TableSpec, text: &str) {
        self.0.push(format!("{text} table={}", spec.table));
    }

    pub(crate) fn add_column(&mut self, spec: &TableSpec, column: &str, text: &str) {
        self.0.push(format!("{text} table={} column={column}", spec.table));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with every fault, if there is one.
    pub(crate) fn into_result(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::config(self.0.join("; "))) }
    }
}

/// A name in double quotes, whatever it holds.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The columns in double quotes.
pub(crate) fn quoted_list(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// What can be said without the database.
pub(crate) fn check_spec(spec: &TableSpec, faults: &mut Faults) {
    if spec.columns.is_empty() || spec.columns.len() > COLUMNS_MAX {
        faults.add(spec, &format!("an output has 1 to {COLUMNS_MAX} columns"));
    }
    let words =
        spec.columns.iter().map(|column| &column.name).chain(spec.table.schema.as_ref()).chain([&spec.table.table]);
    for word in words {
        if let Err(error) = crate::types::table::check_identifier(word) {
            faults.add(spec, &error.to_string());
        }
    }
    let mut seen = BTreeSet::new();
    for column in &spec.columns {
        if !seen.insert(&column.name) {
            faults.add_column(spec, &column.name, "the column is named twice");
        }
        if column.merge == Merge::Last {
            continue;
        }
        if spec.mode == WriteMode::Append {
            faults.add_column(spec, &column.name, "`merge` needs mode = \"upsert\"");
        } else if spec.key.contains(&column.name) {
            faults.add_column(spec, &column.name, "a key column cannot be merged");
        }
    }
    match spec.mode {
        WriteMode::Append if !spec.key.is_empty() => faults.add(spec, "`key` needs mode = \"upsert\""),
        WriteMode::Upsert if spec.key.is_empty() => faults.add(spec, "an upsert needs a `key`"),
        WriteMode::Append | WriteMode::Upsert => {}
    }
    for key in spec.key.iter().filter(|key| !spec.columns.iter().any(|column| column.name == **key)) {
        faults.add_column(spec, key, "the key is none of the output's columns");
    }
}

/// Whether a type can be merged as its column says.
pub(crate) fn check_merge(spec: &TableSpec, column: &Column, column_type: ColumnType, faults: &mut Faults) {
    match column.merge {
        Merge::Add if !column_type.is_number() => {
            faults.add_column(spec, &column.name, &format!("`add` needs a number type={column_type}"));
        }
        // In a batch documents would compare as text, in the database by jsonb's own order.
        Merge::Min | Merge::Max if column_type == ColumnType::Jsonb => {
            faults.add_column(spec, &column.name, "`min` and `max` need a type with one order type=jsonb");
        }
        Merge::Add | Merge::Min | Merge::Max | Merge::Last | Merge::First => {}
    }
}
