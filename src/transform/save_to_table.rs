//! `save_to_table`: elements of a Rust program become rows of a table.

use std::sync::Arc;

use super::{
    BatchScope, DStream, IntoTable, Output, Prepared, TableRow, TransactionalOutput,
    table_rows::{TableShape, TaskRows, finish, recycle, refused_row},
};
use crate::{
    error::{Error, Result},
    types::{ColumnShape, Field, Flow, Refusal, Stop, TableRows, TableSpec, Value},
};

struct SaveToTable<T> {
    stream: DStream<T>,
    tables: [TableSpec; 1],
}

impl<T: TableRow + Send + 'static> TransactionalOutput for SaveToTable<T> {
    fn name(&self) -> &'static str {
        "save_to_table"
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

    fn prepare(&self, scope: &BatchScope, tables: &[Vec<ColumnShape>]) -> Result<Prepared> {
        let [spec] = &self.tables;
        let columns = tables.first().ok_or_else(|| Error::internal(format!("no column types table={}", spec.table)))?;
        let shape = TableShape::new(spec, columns)?;
        let start = |_| (TaskRows::new(&shape), Vec::<Value<'static>>::new());
        let tasks = self.stream.rdd(scope)?.run(start, |(rows, values), item| {
            let mut row = recycle(std::mem::take(values));
            item.push_values(&mut row);
            let added = add_row(&shape, rows, &mut row);
            *values = recycle(row);
            match added {
                Ok(()) => Flow::Continue(()),
                Err(refusal) => Flow::Break(Stop::Failed(refused_row(&shape, &refusal))),
            }
        })?;
        let chunks = finish(&shape, tasks.into_iter().map(|(rows, _)| rows).collect())?;
        Ok(Prepared { tables: vec![TableRows { table: 0, chunks }], ..Prepared::default() })
    }
}

fn add_row(shape: &TableShape, rows: &mut TaskRows, values: &mut Vec<Value<'_>>) -> Result<(), Refusal> {
    if values.len() != shape.types.len() {
        let reason = format!("the row has {} values for {} columns", values.len(), shape.types.len());
        return Err(Refusal::new(reason));
    }
    let converted = shape.types.iter().zip(values.drain(..)).map(|(to, value)| Field::convert(*to, value));
    let fields = converted.collect::<Result<Vec<Field<'_>>, Refusal>>()?;
    shape.check_nulls(&fields)?;
    rows.add(shape, &fields)
}

impl<T: TableRow + Send + 'static> DStream<T> {
    /// Writes each element as a row, in the batch's transaction: exactly once.
    ///
    /// A row that the table cannot take fails the batch (exit code 6).
    ///
    /// ```
    /// # use directstream::transform::{DStream, Upsert};
    /// # fn example(counts: DStream<(String, i64)>) -> directstream::Result<()> {
    /// counts.save_to_table(Upsert::into("word_counts").key("word").add("count"))
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the table's description contradicts itself, or the context was started or stopped.
    pub fn save_to_table(&self, table: impl IntoTable) -> Result<()> {
        let output = SaveToTable { stream: self.used(), tables: [table.into_table()?] };
        self.graph().check_open()?;
        self.graph().add_output(Output::Transactional(Arc::new(output)));
        Ok(())
    }
}
