//! Tables and rows in a program's words: what `save_to_table` takes.

use crate::{
    error::{Error, Result},
    types::{Column, ColumnType, Merge, TableName, TableSpec, Value, WriteMode},
};

/// An element that is a row: its values in the order of the table's columns.
///
/// Implemented for tuples of up to eight values; implement it for a struct of your own by pushing its fields.
pub trait TableRow {
    /// Pushes the values, in the order of the columns.
    fn push_values<'a>(&'a self, row: &mut Vec<Value<'a>>);
}

macro_rules! table_row_for_tuple {
    ($($name:ident),+) => {
        impl<$($name),+> TableRow for ($($name,)+)
        where
            $($name: Clone + Into<Value<'static>>,)+
        {
            fn push_values<'a>(&'a self, row: &mut Vec<Value<'a>>) {
                #[allow(non_snake_case, reason = "the macro names the values as their types")]
                let ($($name,)+) = self;
                $(row.push($name.clone().into());)+
            }
        }
    };
}

table_row_for_tuple!(A);
table_row_for_tuple!(A, B);
table_row_for_tuple!(A, B, C);
table_row_for_tuple!(A, B, C, D);
table_row_for_tuple!(A, B, C, D, E);
table_row_for_tuple!(A, B, C, D, E, F);
table_row_for_tuple!(A, B, C, D, E, F, G);
table_row_for_tuple!(A, B, C, D, E, F, G, H);

/// A table that rows can be written into: [`Append`] or [`Upsert`].
pub trait IntoTable {
    /// The table's description.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a name is not an identifier or the description contradicts itself.
    fn into_table(self) -> Result<TableSpec>;
}

/// Every row is inserted.
#[derive(Debug, Clone)]
pub struct Append {
    table: String,
    columns: Vec<Column>,
    create: bool,
}

impl Append {
    /// Appends to `table` or `schema.table`.
    pub fn into(table: impl Into<String>) -> Self {
        Self { table: table.into(), columns: Vec::new(), create: false }
    }

    /// The next column, filled by the next value of each row. Its type follows the table.
    #[must_use]
    pub fn column(mut self, name: impl Into<String>) -> Self {
        self.columns.push(column(name.into(), None, Merge::Last));
        self
    }

    /// The next column with its type: needed where the table is [created](Self::create).
    #[must_use]
    pub fn typed_column(mut self, name: impl Into<String>, column_type: ColumnType) -> Self {
        self.columns.push(column(name.into(), Some(column_type), Merge::Last));
        self
    }

    /// Creates the table if it is missing.
    #[must_use]
    pub fn create(mut self) -> Self {
        self.create = true;
        self
    }
}

/// A row whose key is there already is merged with it, column by column.
#[derive(Debug, Clone)]
pub struct Upsert {
    table: String,
    columns: Vec<Column>,
    key: Vec<String>,
    create: bool,
}

impl Upsert {
    /// Upserts into `table` or `schema.table`. Columns are named in the order of each row's values.
    pub fn into(table: impl Into<String>) -> Self {
        Self { table: table.into(), columns: Vec::new(), key: Vec::new(), create: false }
    }

    /// The next column is part of the key.
    #[must_use]
    pub fn key(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.key.push(name.clone());
        self.columns.push(column(name, None, Merge::Last));
        self
    }

    /// The next column keeps the later value.
    #[must_use]
    pub fn last(self, name: impl Into<String>) -> Self {
        self.merged(name, Merge::Last)
    }

    /// The next column keeps the sum: an exactly-once running total.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "the job file's word")]
    pub fn add(self, name: impl Into<String>) -> Self {
        self.merged(name, Merge::Add)
    }

    /// The next column, merged as told.
    #[must_use]
    pub fn merged(mut self, name: impl Into<String>, merge: Merge) -> Self {
        self.columns.push(column(name.into(), None, merge));
        self
    }

    /// The type of the column named last: needed where the table is [created](Self::create).
    #[must_use]
    pub fn of_type(mut self, column_type: ColumnType) -> Self {
        if let Some(last) = self.columns.last_mut() {
            last.column_type = Some(column_type);
        }
        self
    }

    /// Creates the table if it is missing.
    #[must_use]
    pub fn create(mut self) -> Self {
        self.create = true;
        self
    }
}

fn column(name: String, column_type: Option<ColumnType>, merge: Merge) -> Column {
    Column { name, source: None, column_type, merge }
}

fn spec(table: &str, mode: WriteMode, key: Vec<String>, create: bool, columns: Vec<Column>) -> Result<TableSpec> {
    let table: TableName = table.parse()?;
    if columns.is_empty() {
        return Err(Error::config(format!("an output needs at least one column table={table}")));
    }
    for (index, column) in columns.iter().enumerate() {
        crate::types::table::check_identifier(&column.name)?;
        if columns[..index].iter().any(|other| other.name == column.name) {
            return Err(Error::config(format!("a column is named twice table={table} column={}", column.name)));
        }
    }
    if mode == WriteMode::Upsert && key.is_empty() {
        return Err(Error::config(format!("an upsert needs a key table={table}")));
    }
    Ok(TableSpec { table, mode, key, create, columns })
}

impl IntoTable for Append {
    fn into_table(self) -> Result<TableSpec> {
        spec(&self.table, WriteMode::Append, Vec::new(), self.create, self.columns)
    }
}

impl IntoTable for Upsert {
    fn into_table(self) -> Result<TableSpec> {
        spec(&self.table, WriteMode::Upsert, self.key, self.create, self.columns)
    }
}
