//! `[[output]]`: the tables and their columns.

use std::collections::BTreeSet;

use super::{
    StoreKind,
    job::InputFormat,
    read::{Found, Section},
    secret::offending_word,
};
use crate::{
    Error,
    types::{Column, ColumnSource, ColumnType, Merge, TableName, TableSpec, WriteMode, table::check_identifier},
};

/// The schema of this program's own tables in PostgreSQL, and their prefix in SQLite.
const OWN_SCHEMA: &str = "directstream";

const MERGES: [(&str, Merge); 5] =
    [("last", Merge::Last), ("first", Merge::First), ("add", Merge::Add), ("min", Merge::Min), ("max", Merge::Max)];

/// The file's word for how values merge.
pub(super) fn merge_word(merge: Merge) -> &'static str {
    MERGES.iter().find(|(_, known)| *known == merge).map_or("last", |(word, _)| word)
}

/// What other sections say about the outputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings {
    pub(super) store: Option<StoreKind>,
    pub(super) format: Option<InputFormat>,
}

pub(super) fn read(root: &Section<'_>, around: Surroundings) -> Option<Vec<TableSpec>> {
    let tableless = match around.store {
        Some(StoreKind::Checkpoint) => Some("a checkpoint folder keeps offsets and has no tables"),
        Some(StoreKind::Kafka) => Some("a consumer group keeps offsets and has no tables"),
        Some(StoreKind::Postgres | StoreKind::Sqlite) | None => None,
    };
    let Some(found) = root.find("output") else {
        if tableless.is_some() {
            return Some(Vec::new());
        }
        root.missing("output", "missing: name at least one table in an [[output]]");
        return None;
    };
    if let Some(why) = tableless {
        found.fault(format!("{why}: the store must be postgres:// or sqlite:"));
    }
    let sections = found.tables()?;
    if sections.is_empty() {
        found.fault("names no table");
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut outputs = Vec::new();
    for section in &sections {
        let Some(spec) = table(section, around, &mut seen) else { continue };
        outputs.push(spec);
    }
    (outputs.len() == sections.len()).then_some(outputs)
}

/// The text of an error without the value, which the finding shows by itself.
fn reason(error: &Error) -> String {
    let text = error.to_string();
    text.split_once(" word=").map_or(text.clone(), |(reason, _)| reason.to_owned())
}

fn table(section: &Section<'_>, around: Surroundings, seen: &mut BTreeSet<String>) -> Option<TableSpec> {
    let name = section.require("table").and_then(|found| table_name(&found, around.store, seen));
    let mode = section.find("mode").map_or(Some(WriteMode::Append), |found| {
        found.one_of(&[("append", WriteMode::Append), ("upsert", WriteMode::Upsert)])
    });
    let create = section.find("create").map_or(Some(false), |found| found.boolean());
    let key = key(section, mode);
    let shape = Shape {
        mode,
        key: key.iter().flatten().map(|(name, _)| name.clone()).collect(),
        create: create.unwrap_or(false),
        around,
    };
    let columns = columns(section, &shape);
    if let (Some(key), Some(columns)) = (&key, &columns) {
        for (name, found) in key {
            if !columns.iter().any(|column| column.name == *name) {
                found.fault("the key names no column of this output");
            }
        }
    }
    Some(TableSpec {
        table: name?,
        mode: mode?,
        key: key?.into_iter().map(|(name, _)| name).collect(),
        create: create?,
        columns: columns?,
    })
}

fn table_name(found: &Found<'_>, store: Option<StoreKind>, seen: &mut BTreeSet<String>) -> Option<TableName> {
    let name = found.parse(|text| text.parse::<TableName>().map_err(|error| reason(&error)))?;
    let sqlite = store == Some(StoreKind::Sqlite);
    let own = match &name.schema {
        Some(schema) => schema.eq_ignore_ascii_case(OWN_SCHEMA),
        None => false,
    };
    if own || (sqlite && name.table.to_ascii_lowercase().starts_with("directstream_")) {
        found.fault("this name belongs to the program's own tables");
    }
    // SQLite does not tell upper from lower case.
    let text = name.to_string();
    if !seen.insert(if sqlite { text.to_ascii_lowercase() } else { text }) {
        found.fault("the same table in two outputs");
    }
    Some(name)
}

type KeyColumns<'a> = Vec<(String, Found<'a>)>;

fn key<'a>(section: &Section<'a>, mode: Option<WriteMode>) -> Option<KeyColumns<'a>> {
    match (section.find("key"), mode) {
        (None, Some(WriteMode::Upsert)) => {
            section.missing("key", "missing: an upsert needs the columns of a unique key");
            None
        }
        (None, _) => Some(Vec::new()),
        (Some(found), Some(WriteMode::Append)) => {
            found.key_fault("a key goes with mode = \"upsert\"", "key");
            None
        }
        (Some(found), _) => {
            let columns = found.texts()?;
            if columns.is_empty() {
                found.fault("names no column");
                return None;
            }
            super::read::report_twice(&columns, "column", str::to_owned);
            Some(columns)
        }
    }
}

/// What a column must fit into.
struct Shape {
    mode: Option<WriteMode>,
    key: Vec<String>,
    create: bool,
    around: Surroundings,
}

fn columns(section: &Section<'_>, shape: &Shape) -> Option<Vec<Column>> {
    let table = section.section("columns");
    let entries = table.entries();
    if entries.is_empty() {
        section.missing("columns", "missing: name at least one column and where it comes from");
        return None;
    }
    if shape.around.store == Some(StoreKind::Sqlite) {
        let names: Vec<_> = entries.clone();
        let mut seen = BTreeSet::new();
        for (name, found) in &names {
            if !seen.insert(name.to_ascii_lowercase()) {
                found.key_fault("the same column twice: sqlite does not tell upper from lower case", name);
            }
        }
    }
    let count = entries.len();
    let columns: Vec<Column> = entries.into_iter().filter_map(|(name, found)| column(&name, &found, shape)).collect();
    (columns.len() == count).then_some(columns)
}

fn column(name: &str, found: &Found<'_>, shape: &Shape) -> Option<Column> {
    let named = check_identifier(name).map_err(|error| found.key_fault(reason(&error), name)).is_ok();
    let section = found.table()?;
    let source = section.require("from").and_then(|from| {
        let source = from.parse(parse_source)?;
        check_format(&from, &source, shape.around.format);
        Some(source)
    });
    let column_type = match section.find("type") {
        Some(found) => Some(found.parse(|text| text.parse::<ColumnType>().map_err(|_| unknown_type()))?),
        None => None,
    };
    let merge = match section.find("merge") {
        Some(found) => {
            let merge = found.one_of(&MERGES)?;
            check_merge(name, &found, merge, column_type, shape);
            merge
        }
        None => Merge::default(),
    };
    named.then_some(())?;
    Some(Column { name: name.to_owned(), source: Some(source?), column_type, merge })
}

fn unknown_type() -> String {
    format!("not a column type: {}", ColumnType::ALL.map(ColumnType::sql).join(", "))
}

fn check_merge(name: &str, found: &Found<'_>, merge: Merge, column_type: Option<ColumnType>, shape: &Shape) {
    if shape.mode == Some(WriteMode::Append) {
        found.key_fault("merge goes with mode = \"upsert\"", "merge");
    }
    if shape.key.iter().any(|key| key == name) {
        found.key_fault("a key column has nothing to merge", "merge");
    }
    // A column without a type follows its table, which is looked at when the job starts; a table that is made here
    // gives it text.
    let column_type = column_type.or(shape.create.then_some(ColumnType::Text));
    let Some(column_type) = column_type else { return };
    if merge == Merge::Add && !column_type.is_number() {
        found.fault(format!("only numbers can be added, and this column is {column_type}"));
    }
    let ordered = !matches!(column_type, ColumnType::Jsonb | ColumnType::Boolean | ColumnType::Bytea);
    if matches!(merge, Merge::Min | Merge::Max) && !ordered {
        found.fault(format!("{column_type} has no smaller and larger"));
    }
}

/// A JSON pointer into a value that is not JSON finds nothing.
fn check_format(found: &Found<'_>, source: &ColumnSource, format: Option<InputFormat>) {
    if matches!(source, ColumnSource::ValuePointer(_)) && format.is_some_and(|format| format != InputFormat::Json) {
        found.fault("a pointer into the value needs input.format = \"json\"");
    }
}

fn parse_source(text: &str) -> Result<ColumnSource, String> {
    Ok(match text {
        "key" => ColumnSource::Key,
        "value" => ColumnSource::Value,
        "topic" => ColumnSource::Topic,
        "partition" => ColumnSource::Partition,
        "offset" => ColumnSource::Offset,
        "timestamp" => ColumnSource::Timestamp,
        "batch_time" => ColumnSource::BatchTime,
        "one" => ColumnSource::One,
        _ => match text.split_once(':') {
            Some(("key", pointer)) => ColumnSource::KeyPointer(check_pointer(pointer)?),
            Some(("value", pointer)) => ColumnSource::ValuePointer(check_pointer(pointer)?),
            Some(("header", "")) => return Err("names no header".to_owned()),
            Some(("header", name)) => ColumnSource::Header(name.to_owned()),
            _ => {
                return Err(
                    "not one of key, value, key:/pointer, value:/pointer, header:NAME, topic, partition, offset, \
                            timestamp, batch_time, one"
                        .to_owned(),
                );
            }
        },
    })
}

/// RFC 6901: it begins with a slash, and `~` stands only in `~0` and `~1`.
fn check_pointer(pointer: &str) -> Result<String, String> {
    if !pointer.starts_with('/') {
        return Err("a json pointer begins with a slash, such as value:/user/id".to_owned());
    }
    let escaped = pointer.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if escaped { Ok(pointer.to_owned()) } else { Err("in a json pointer ~ is written ~0".to_owned()) }
}

/// A column's source as the file says it.
pub(super) fn source_text(source: &ColumnSource) -> String {
    match source {
        ColumnSource::Key => "key".to_owned(),
        ColumnSource::Value => "value".to_owned(),
        ColumnSource::KeyPointer(pointer) => format!("key:{}", offending_word(pointer)),
        ColumnSource::ValuePointer(pointer) => format!("value:{}", offending_word(pointer)),
        ColumnSource::Header(name) => format!("header:{}", offending_word(name)),
        ColumnSource::Topic => "topic".to_owned(),
        ColumnSource::Partition => "partition".to_owned(),
        ColumnSource::Offset => "offset".to_owned(),
        ColumnSource::Timestamp => "timestamp".to_owned(),
        ColumnSource::BatchTime => "batch_time".to_owned(),
        ColumnSource::One => "one".to_owned(),
    }
}
