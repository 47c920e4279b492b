//! Records straight into tables: what a job file describes. One pass over the records fills every table.

use std::{
    borrow::Cow,
    fmt,
    ops::{ControlFlow, Range},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    BatchScope, DStream, Output, Prepared, TransactionalOutput,
    json::Paths,
    table_rows::{TableShape, TaskRows, finish, recycle, refused_row},
};
use crate::{
    config::{InputFormat, OnError},
    error::{Error, Result},
    types::{
        BatchTime, ColumnShape, ColumnSource, DeadLetter, DeadLetterStage, Field, Flow, Record, RecordRows, Refusal,
        Stop, TableRows, TableSpec, Timestamp, Value,
    },
};

/// Records into one or more tables. A record that one of them cannot take goes into none.
#[derive(Debug)]
pub struct RecordsToTables {
    stream: DStream<Record>,
    format: InputFormat,
    on_error: OnError,
    tables: Vec<TableSpec>,
}

impl DStream<Record> {
    /// Writes records into tables whose columns have [sources](ColumnSource): what a job file does. All tables are filled
    /// in one pass, and a record that one of them cannot take goes into none.
    pub fn save_records(&self, format: InputFormat, on_error: OnError, tables: Vec<TableSpec>) {
        let output = RecordsToTables { stream: self.used(), format, on_error, tables };
        self.graph().add_output(Output::Transactional(std::sync::Arc::new(output)));
    }
}

impl TransactionalOutput for RecordsToTables {
    fn name(&self) -> &'static str {
        "save_records"
    }

    fn tables(&self) -> &[TableSpec] {
        &self.tables
    }

    fn reads_once(&self) -> bool {
        true
    }

    fn slide_ms(&self) -> Option<i64> {
        self.stream.slide_ms()
    }

    fn isolates(&self) -> bool {
        self.on_error == OnError::DeadLetter
    }

    fn prepare(&self, scope: &BatchScope, tables: &[Vec<ColumnShape>]) -> Result<Prepared> {
        let how = (self.format, self.on_error, scope.batch().batch_time);
        let plan = RecordPlan::new(how, &self.tables, tables)?;
        let isolating = scope.is_isolating() && self.isolates();
        let start = |_| if isolating { RecordTask::keeping() } else { RecordTask::new(&plan) };
        let tasks = self.stream.rdd(scope)?.run(start, |task, record| task.take(&plan, &record))?;
        let mut prepared = Prepared::default();
        if isolating {
            let mut records = Vec::new();
            for task in tasks {
                prepared.dead_letters.extend(task.dead_letters);
                records.extend(task.kept.into_iter().flatten());
            }
            prepared.isolating = Some(Box::new(KeptRecords { plan, records }));
            return Ok(prepared);
        }
        let mut rows: Vec<Vec<TaskRows>> = plan.shapes.iter().map(|_| Vec::new()).collect();
        for task in tasks {
            prepared.dead_letters.extend(task.dead_letters);
            for (table, part) in task.rows.into_iter().enumerate() {
                rows[table].push(part);
            }
        }
        prepared.tables = plan.finish(rows)?;
        Ok(prepared)
    }
}

/// The records of a batch that all columns can take, kept to find those that the store does not take. They are the client's
/// own messages, which stay alive with them; rows are made a slice at a time.
struct KeptRecords {
    plan: RecordPlan,
    // In merge order: tasks are in the order of topic and partition, records of a task in that of offsets.
    records: Vec<Record>,
}

impl fmt::Debug for KeptRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptRecords").field("records", &self.records.len()).finish_non_exhaustive()
    }
}

impl RecordRows for KeptRecords {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn bytes(&self, record: usize) -> usize {
        let record = &self.records[record];
        record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len)
    }

    fn rows(&self, records: Range<usize>) -> Result<Vec<TableRows>> {
        let mut task = RecordTask::new(&self.plan);
        for record in &self.records[records] {
            if let ControlFlow::Break(Stop::Failed(error)) = task.take(&self.plan, record) {
                return Err(error);
            }
        }
        if !task.dead_letters.is_empty() {
            return Err(Error::internal("a record was good at first, and then it was not"));
        }
        self.plan.finish(task.rows.into_iter().map(|rows| vec![rows]).collect())
    }

    fn dead_letter(&self, record: usize, reason: String, output: Option<String>) -> DeadLetter {
        dead_letter(&self.records[record], DeadLetterStage::Write, reason, output)
    }
}

/// Records as rows once more, outside any batch: those that all tables can take, and the others as dead letters. `tables` holds
/// the columns of each table as the database has them; `batch_time` is for columns that want one.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) if a column has no source, or the tables are others than those described.
pub(crate) fn records_again(
    format: InputFormat,
    batch_time: BatchTime,
    specs: &[TableSpec],
    tables: &[Vec<ColumnShape>],
    records: impl Iterator<Item = Record>,
) -> Result<(Box<dyn RecordRows>, Vec<DeadLetter>)> {
    let plan = RecordPlan::new((format, OnError::DeadLetter, batch_time), specs, tables)?;
    let mut task = RecordTask::keeping();
    for record in records {
        if let ControlFlow::Break(Stop::Failed(error)) = task.take(&plan, &record) {
            return Err(error);
        }
    }
    let records = task.kept.take().unwrap_or_default();
    Ok((Box::new(KeptRecords { plan, records }), task.dead_letters))
}

/// How a record becomes rows: chosen once per batch, never per value.
struct RecordPlan {
    format: InputFormat,
    on_error: OnError,
    batch_time: BatchTime,
    shapes: Vec<TableShape>,
    // All columns of all tables, one after the other; `slots` of them.
    columns: Vec<ColumnSource>,
    // Where each table's columns start; one more for the end.
    starts: Vec<usize>,
    value_paths: Paths,
    key_paths: Paths,
    wants_headers: bool,
}

impl RecordPlan {
    fn new(
        (format, on_error, batch_time): (InputFormat, OnError, BatchTime),
        specs: &[TableSpec],
        tables: &[Vec<ColumnShape>],
    ) -> Result<Self> {
        let mut plan = Self {
            format,
            on_error,
            batch_time,
            shapes: Vec::new(),
            columns: Vec::new(),
            starts: vec![0],
            value_paths: Paths::default(),
            key_paths: Paths::default(),
            wants_headers: false,
        };
        for (spec, columns) in specs.iter().zip(tables) {
            plan.shapes.push(TableShape::new(spec, columns)?);
            for (column, shape) in spec.columns.iter().zip(columns) {
                let slot = plan.columns.len();
                let source = column.source.clone().ok_or_else(|| {
                    Error::config(format!("a column has no source table={} column={}", spec.table, column.name))
                })?;
                match &source {
                    ColumnSource::ValuePointer(pointer) => plan.value_paths.add(pointer, slot, shape.column_type),
                    ColumnSource::KeyPointer(pointer) => plan.key_paths.add(pointer, slot, shape.column_type),
                    ColumnSource::Header(_) => plan.wants_headers = true,
                    _ => {}
                }
                plan.columns.push(source);
            }
            plan.starts.push(plan.columns.len());
        }
        Ok(plan)
    }

    /// The rows of all tasks, table by table. A sum that is out of range is the fault of one of its records.
    fn finish(&self, rows: Vec<Vec<TaskRows>>) -> Result<Vec<TableRows>> {
        let tables = rows.into_iter().enumerate();
        let finished = tables.map(|(table, parts)| {
            Ok(TableRows { table, chunks: finish(&self.shapes[table], parts).map_err(Error::about_rows)? })
        });
        finished.collect()
    }

    /// The values of all columns.
    fn values<'r>(&'r self, record: &'r Record, values: &mut Vec<Value<'r>>) -> Result<(), Refused> {
        values.resize(self.columns.len(), Value::Null);
        let decode = |reason: String| Refused { stage: DeadLetterStage::Decode, reason, table: None };
        if let (Some(document), false) = (record.key(), self.key_paths.is_empty()) {
            self.key_paths.read(document, values).map_err(|error| decode(format!("key: {error}")))?;
        }
        match (self.format, record.value()) {
            // Read also where no column wants it: a value that is not JSON is a fault of its own.
            (InputFormat::Json, Some(document)) => {
                self.value_paths.read(document, values).map_err(|error| decode(error.to_string()))?;
            }
            (InputFormat::Text, Some(bytes)) if std::str::from_utf8(bytes).is_err() => {
                return Err(decode("the value is not valid UTF-8".to_owned()));
            }
            _ => {}
        }
        let headers = if self.wants_headers { record.headers() } else { Vec::new() };
        for (slot, source) in self.columns.iter().enumerate() {
            values[slot] = match source {
                ColumnSource::KeyPointer(_) | ColumnSource::ValuePointer(_) => continue,
                ColumnSource::Key => record.key().map_or(Value::Null, |key| Value::Bytes(Cow::Borrowed(key))),
                ColumnSource::Value => whole_value(self.format, record.value()),
                ColumnSource::Header(name) => last_header(&headers, name),
                ColumnSource::Topic => Value::Text(Cow::Borrowed(record.topic())),
                ColumnSource::Partition => Value::Int(i64::from(record.partition())),
                ColumnSource::Offset => Value::Int(record.offset().get()),
                ColumnSource::Timestamp => timestamp(record.timestamp()),
                ColumnSource::BatchTime => Value::TimestampMicros(self.batch_time.as_ms().saturating_mul(1000)),
                ColumnSource::One => Value::Int(1),
            };
        }
        Ok(())
    }

    /// The fields of all columns.
    fn fields<'r>(&self, values: &mut [Value<'r>], fields: &mut Vec<Field<'r>>) -> Result<(), Refused> {
        for (table, shape) in self.shapes.iter().enumerate() {
            let refused = |refusal: Refusal, column: Option<usize>| Refused {
                stage: DeadLetterStage::Convert,
                reason: column.map_or_else(|| refusal.to_string(), |index| format!("{refusal} column={}", index + 1)),
                table: Some(table),
            };
            let start = self.starts[table];
            for (index, to) in shape.types.iter().enumerate() {
                let value = std::mem::replace(&mut values[start + index], Value::Null);
                fields.push(Field::convert(*to, value).map_err(|refusal| refused(refusal, Some(index)))?);
            }
            shape.check_nulls(&fields[start..]).map_err(|refusal| refused(refusal, None))?;
        }
        Ok(())
    }
}

fn whole_value(format: InputFormat, value: Option<&[u8]>) -> Value<'_> {
    match (format, value) {
        (_, None) => Value::Null,
        (InputFormat::Json, Some(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Json(Cow::Borrowed(text)),
            Err(_) => Value::Bytes(Cow::Borrowed(bytes)),
        },
        (InputFormat::Text | InputFormat::Bytes, Some(bytes)) => Value::Bytes(Cow::Borrowed(bytes)),
    }
}

fn last_header<'r>(headers: &[(String, Option<Vec<u8>>)], name: &str) -> Value<'r> {
    let found = headers.iter().rev().find(|(header, _)| header == name).and_then(|(_, value)| value.clone());
    found.map_or(Value::Null, |value| Value::Bytes(Cow::Owned(value)))
}

fn timestamp<'r>(timestamp: Timestamp) -> Value<'r> {
    timestamp.as_ms().map_or(Value::Null, |ms| Value::TimestampMicros(ms.saturating_mul(1000)))
}

/// Why a record is refused.
struct Refused {
    stage: DeadLetterStage,
    reason: String,
    table: Option<usize>,
}

/// One task's rows and dead letters.
struct RecordTask {
    rows: Vec<TaskRows>,
    dead_letters: Vec<DeadLetter>,
    // Instead of rows, if the batch is isolating.
    kept: Option<Vec<Record>>,
    // Allocations that are used again for every record.
    values: Vec<Value<'static>>,
    fields: Vec<Field<'static>>,
}

impl RecordTask {
    fn new(plan: &RecordPlan) -> Self {
        let rows = plan.shapes.iter().map(TaskRows::new).collect();
        Self { rows, dead_letters: Vec::new(), kept: None, values: Vec::new(), fields: Vec::new() }
    }

    /// A task that keeps the records and makes no rows.
    fn keeping() -> Self {
        Self {
            rows: Vec::new(),
            dead_letters: Vec::new(),
            kept: Some(Vec::new()),
            values: Vec::new(),
            fields: Vec::new(),
        }
    }

    fn take(&mut self, plan: &RecordPlan, record: &Record) -> Flow {
        let mut values = recycle(std::mem::take(&mut self.values));
        let mut fields = recycle_fields(std::mem::take(&mut self.fields));
        let outcome = plan.values(record, &mut values).and_then(|()| plan.fields(&mut values, &mut fields));
        let flow = match (outcome, &mut self.kept) {
            (Ok(()), None) => self.add_rows(plan, &fields),
            (Ok(()), Some(kept)) => {
                kept.push(record.clone());
                ControlFlow::Continue(())
            }
            (Err(refused), _) => self.refuse(plan, record, refused),
        };
        self.values = recycle(values);
        self.fields = recycle_fields(fields);
        flow
    }

    /// Every output can take the record: only now is the first row written.
    fn add_rows(&mut self, plan: &RecordPlan, fields: &[Field<'_>]) -> Flow {
        for (table, rows) in self.rows.iter_mut().enumerate() {
            let shape = &plan.shapes[table];
            if let Err(refusal) = rows.add(shape, &fields[plan.starts[table]..plan.starts[table + 1]]) {
                return ControlFlow::Break(Stop::Failed(refused_row(shape, &refusal).about_rows()));
            }
        }
        ControlFlow::Continue(())
    }

    fn refuse(&mut self, plan: &RecordPlan, record: &Record, refused: Refused) -> Flow {
        let output = refused.table.map(|table| plan.shapes[table].name().to_owned());
        if plan.on_error == OnError::Fail {
            let table = output.map(|name| format!(" table={name}")).unwrap_or_default();
            let message = format!("a record is refused: {}{table} offset={}", refused.reason, record.offset());
            return ControlFlow::Break(Stop::Failed(Error::transform(message).on(record.topic_partition().clone())));
        }
        self.dead_letters.push(dead_letter(record, refused.stage, refused.reason, output));
        ControlFlow::Continue(())
    }
}

/// A refused record, whole.
pub(super) fn dead_letter(
    record: &Record,
    stage: DeadLetterStage,
    reason: String,
    output: Option<String>,
) -> DeadLetter {
    DeadLetter {
        topic_partition: record.topic_partition().clone(),
        offset: record.offset(),
        stage,
        reason,
        output,
        key: record.key().map(<[u8]>::to_vec),
        value: record.value().map(<[u8]>::to_vec),
        headers: headers_json(record),
        timestamp_ms: record.timestamp().as_ms(),
    }
}

fn recycle_fields<'a>(mut fields: Vec<Field<'_>>) -> Vec<Field<'a>> {
    fields.clear();
    fields.into_iter().map(Field::into_owned).collect()
}

/// Headers as the `dead_letters` table keeps them: `[[name, base64 or null], ...]`.
pub(crate) fn headers_json(record: &Record) -> String {
    let headers: Vec<serde_json::Value> = record
        .headers()
        .into_iter()
        .map(|(name, value)| serde_json::json!([name, value.map(|bytes| BASE64_STANDARD.encode(bytes))]))
        .collect();
    serde_json::Value::Array(headers).to_string()
}
