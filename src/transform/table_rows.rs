//! A task's rows for one output table, in their bulk form.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::{
    error::{Error, Result},
    types::{ColumnShape, ColumnType, EncodedRows, Field, Merge, Refusal, RowWriter, TableSpec, WriteMode},
};

/// A chunk is closed when it has this many bytes: large enough for the network, small enough to be given back early.
const CHUNK_BYTES: usize = 1 << 20;

/// What the tasks of a batch need to know of a table.
#[derive(Debug, Clone)]
pub(crate) struct TableShape {
    pub(crate) types: Vec<ColumnType>,
    not_null: Vec<bool>,
    name: String,
    merges: Vec<Merge>,
    // Indexes of the key columns; none for append.
    key: Vec<usize>,
}

impl TableShape {
    pub(crate) fn new(spec: &TableSpec, columns: &[ColumnShape]) -> Result<Self> {
        let index_of = |name: &String| {
            let index = spec.columns.iter().position(|column| column.name == *name);
            index.ok_or_else(|| {
                Error::config(format!("key column is not a column of the output table={} column={name}", spec.table))
            })
        };
        let key = match spec.mode {
            WriteMode::Append => Vec::new(),
            WriteMode::Upsert => spec.key.iter().map(index_of).collect::<Result<_>>()?,
        };
        if columns.len() != spec.columns.len() {
            return Err(Error::internal(format!("the store knows another number of columns table={}", spec.table)));
        }
        let merges = spec.columns.iter().map(|column| column.merge).collect();
        let types = columns.iter().map(|column| column.column_type).collect();
        let not_null = columns.iter().map(|column| column.not_null).collect();
        Ok(Self { types, not_null, name: spec.table.to_string(), merges, key })
    }

    /// The table's name, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Why the row cannot be written, if it cannot: the table refuses null there, or it is a key, and a key that is null
    /// never meets its like.
    pub(crate) fn check_nulls(&self, fields: &[Field<'_>]) -> Result<(), Refusal> {
        for (index, _null) in fields.iter().enumerate().filter(|(_, field)| **field == Field::Null) {
            if self.key.contains(&index) {
                return Err(Refusal::new(format!("a key column is null column={}", index + 1)));
            }
            if self.not_null[index] {
                return Err(Refusal::new(format!("a column that is NOT NULL is null column={}", index + 1)));
            }
        }
        Ok(())
    }
}

/// The rows that one task made for one table.
#[derive(Debug)]
pub(crate) enum TaskRows {
    Append { writer: RowWriter, chunks: Vec<EncodedRows> },
    Upsert { rows: HashMap<Vec<u8>, Vec<Field<'static>>, FixedState>, scratch: Vec<u8> },
}

impl TaskRows {
    pub(crate) fn new(shape: &TableShape) -> Self {
        if shape.key.is_empty() {
            Self::Append { writer: RowWriter::new(shape.types.clone()), chunks: Vec::new() }
        } else {
            Self::Upsert { rows: HashMap::default(), scratch: Vec::new() }
        }
    }

    /// Adds one row. For an upsert, a row with a key that is there already is merged into it.
    pub(crate) fn add(&mut self, shape: &TableShape, fields: &[Field<'_>]) -> Result<(), Refusal> {
        match self {
            Self::Append { writer, chunks } => {
                writer.start_row();
                for (index, field) in fields.iter().enumerate() {
                    writer.field(index, field)?;
                }
                if writer.bytes() >= CHUNK_BYTES {
                    let full = std::mem::replace(writer, RowWriter::new(shape.types.clone()));
                    chunks.push(full.finish());
                }
                Ok(())
            }
            Self::Upsert { rows, scratch } => {
                scratch.clear();
                for index in &shape.key {
                    write_key(scratch, &fields[*index]);
                }
                match rows.entry_ref(scratch.as_slice()) {
                    hashbrown::hash_map::EntryRef::Occupied(mut entry) => merge_row(shape, entry.get_mut(), fields),
                    hashbrown::hash_map::EntryRef::Vacant(entry) => {
                        entry.insert(fields.iter().map(|field| field.clone().into_owned()).collect());
                        Ok(())
                    }
                }
            }
        }
    }
}

/// Bytes that are equal exactly if the fields are; each field ends where the next begins whatever it holds.
fn write_key(out: &mut Vec<u8>, field: &Field<'_>) {
    match field {
        Field::Null => out.push(0),
        Field::Boolean(value) => out.extend_from_slice(&[1, u8::from(*value)]),
        Field::Integer(value) | Field::TimestampMicros(value) => out.extend_from_slice(&value.to_be_bytes()),
        Field::Double(value) => {
            // PostgreSQL holds -0 and 0 for equal, and so must we: two rows of one key would touch a row twice.
            let value = if *value == 0.0 { 0.0 } else { *value };
            out.extend_from_slice(&value.to_be_bytes());
        }
        // 1.0 and 1.00 are equal numbers.
        Field::Numeric(value) => write_bytes(out, value.normalized().to_plain_string().as_bytes()),
        Field::Text(text) => write_bytes(out, text.as_bytes()),
        Field::Bytes(bytes) => write_bytes(out, bytes),
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn merge_row(shape: &TableShape, row: &mut [Field<'static>], later: &[Field<'_>]) -> Result<(), Refusal> {
    for (index, field) in row.iter_mut().enumerate() {
        if !shape.key.contains(&index) {
            field.merge(shape.merges[index], shape.types[index], later[index].clone().into_owned())?;
        }
    }
    Ok(())
}

/// The rows of all tasks, in the order of partitions, as the committer moves them. For an upsert the rows of all tasks
/// are merged to one per key, in the order of the keys' bytes.
pub(crate) fn finish(shape: &TableShape, tasks: Vec<TaskRows>) -> Result<Vec<EncodedRows>> {
    let mut chunks = Vec::new();
    let mut merged: Option<HashMap<Vec<u8>, Vec<Field<'static>>, FixedState>> = None;
    for task in tasks {
        match task {
            TaskRows::Append { writer, chunks: mut full } => {
                chunks.append(&mut full);
                let last = writer.finish();
                if last.rows > 0 {
                    chunks.push(last);
                }
            }
            TaskRows::Upsert { rows, .. } => match &mut merged {
                None => merged = Some(rows),
                Some(merged) => {
                    for (key, row) in rows {
                        match merged.entry(key) {
                            hashbrown::hash_map::Entry::Occupied(mut entry) => {
                                merge_row(shape, entry.get_mut(), &row)
                                    .map_err(|refusal| refused_row(shape, &refusal))?;
                            }
                            hashbrown::hash_map::Entry::Vacant(entry) => {
                                entry.insert(row);
                            }
                        }
                    }
                }
            },
        }
    }
    if let Some(merged) = merged {
        let mut rows: Vec<(Vec<u8>, Vec<Field<'static>>)> = merged.into_iter().collect();
        rows.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut appended = TaskRows::Append { writer: RowWriter::new(shape.types.clone()), chunks: Vec::new() };
        for (_, row) in &rows {
            appended.add(shape, row).map_err(|refusal| refused_row(shape, &refusal))?;
        }
        return finish(shape, vec![appended]);
    }
    Ok(chunks)
}

/// A row that comes from more than one record cannot be a dead letter: the batch fails.
pub(crate) fn refused_row(shape: &TableShape, refusal: &Refusal) -> Error {
    Error::transform(format!("an output cannot take a row: {refusal} table={}", shape.name()))
}

/// The same allocation, ready to hold borrowed values of another lifetime: the vector is empty in between.
pub(crate) fn recycle<'a>(mut values: Vec<crate::types::Value<'_>>) -> Vec<crate::types::Value<'a>> {
    values.clear();
    // Collecting in place keeps the allocation; the closure never runs.
    values.into_iter().map(|value| value.into_owned()).collect()
}
