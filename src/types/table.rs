//! Output tables as a job describes them: names, columns, sources, types, merges; and values on their way there.

use std::{borrow::Cow, fmt, str::FromStr};

use crate::error::{Error, Result};

/// The longest identifier PostgreSQL keeps whole, in bytes. Longer ones would be cut silently, so they are refused.
pub(crate) const IDENTIFIER_BYTES_MAX: usize = 63;

/// A table's name, with its schema if one was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The schema; `None` follows the role's `search_path` at start.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
}

impl TableName {
    /// The name, each part in double quotes, as both PostgreSQL and SQLite read it.
    #[must_use]
    pub fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("\"{schema}\".\"{}\"", self.table),
            None => format!("\"{}\"", self.table),
        }
    }
}

impl FromStr for TableName {
    type Err = Error;

    /// Reads `table` or `schema.table`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a part is not `[A-Za-z_][A-Za-z0-9_]*` of at most 63 bytes.
    fn from_str(text: &str) -> Result<Self> {
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, text),
        };
        for part in schema.into_iter().chain([table]) {
            check_identifier(part)?;
        }
        Ok(Self { schema: schema.map(str::to_owned), table: table.to_owned() })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.table),
            None => f.write_str(&self.table),
        }
    }
}

/// Accepts `[A-Za-z_][A-Za-z0-9_]*` of at most 63 bytes: what needs no escaping anywhere.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the word and the rule.
pub(crate) fn check_identifier(word: &str) -> Result<()> {
    let starts = word.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !starts || !word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Error::config(format!(
            "an identifier is letters, digits and underscores, and starts with no digit word={word:?}"
        )));
    }
    if word.len() > IDENTIFIER_BYTES_MAX {
        return Err(Error::config(format!("an identifier has at most {IDENTIFIER_BYTES_MAX} bytes word={word:?}")));
    }
    Ok(())
}

/// The SQL types that columns can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ColumnType {
    /// `boolean`; SQLite: INTEGER 0 or 1.
    Boolean,
    /// `smallint`, 16 bits.
    SmallInt,
    /// `integer`, 32 bits.
    Integer,
    /// `bigint`, 64 bits.
    BigInt,
    /// `double precision`; SQLite: REAL.
    Double,
    /// `numeric`, exact decimal; SQLite: TEXT.
    Numeric,
    /// `text`.
    Text,
    /// `bytea`; SQLite: BLOB.
    Bytea,
    /// `timestamptz`; SQLite: TEXT, RFC 3339 in UTC with milliseconds.
    Timestamptz,
    /// `jsonb`; SQLite: TEXT.
    Jsonb,
}

impl ColumnType {
    /// All types, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::Boolean,
        Self::SmallInt,
        Self::Integer,
        Self::BigInt,
        Self::Double,
        Self::Numeric,
        Self::Text,
        Self::Bytea,
        Self::Timestamptz,
        Self::Jsonb,
    ];

    /// PostgreSQL's name of the type.
    #[must_use]
    pub const fn sql(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::SmallInt => "smallint",
            Self::Integer => "integer",
            Self::BigInt => "bigint",
            Self::Double => "double precision",
            Self::Numeric => "numeric",
            Self::Text => "text",
            Self::Bytea => "bytea",
            Self::Timestamptz => "timestamptz",
            Self::Jsonb => "jsonb",
        }
    }

    /// Whether `merge = "add"` makes sense.
    #[must_use]
    pub const fn is_number(self) -> bool {
        matches!(self, Self::SmallInt | Self::Integer | Self::BigInt | Self::Double | Self::Numeric)
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sql())
    }
}

impl FromStr for ColumnType {
    type Err = Error;

    /// Reads PostgreSQL's names and their usual aliases, in any case.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the types there are.
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.trim().to_ascii_lowercase().as_str() {
            "boolean" | "bool" => Self::Boolean,
            "smallint" | "int2" => Self::SmallInt,
            "integer" | "int" | "int4" => Self::Integer,
            "bigint" | "int8" => Self::BigInt,
            "double precision" | "double" | "float8" => Self::Double,
            "numeric" | "decimal" => Self::Numeric,
            "text" | "varchar" | "character varying" => Self::Text,
            "bytea" => Self::Bytea,
            "timestamptz" | "timestamp with time zone" => Self::Timestamptz,
            "jsonb" => Self::Jsonb,
            _ => {
                let known = Self::ALL.map(Self::sql).join(", ");
                return Err(Error::config(format!("unknown column type word={text:?}; known: {known}")));
            }
        })
    }
}

/// A column of an output table as the database has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnShape {
    /// Its type: what workers encode for.
    pub column_type: ColumnType,
    /// Whether it refuses NULL, being NOT NULL or part of an upsert's key.
    pub not_null: bool,
}

/// Where a column's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ColumnSource {
    /// The record's key.
    Key,
    /// The record's value.
    Value,
    /// A JSON pointer into the key (RFC 6901, with its leading slash).
    KeyPointer(String),
    /// A JSON pointer into the value.
    ValuePointer(String),
    /// The last header of this name.
    Header(String),
    /// The topic's name.
    Topic,
    /// The partition's number.
    Partition,
    /// The offset.
    Offset,
    /// The record's timestamp.
    Timestamp,
    /// The batch's time.
    BatchTime,
    /// The constant 1.
    One,
}

/// How two values of one column become one when an upsert meets the same key twice, in a batch or in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Merge {
    /// The later one stays: in the order of topic, partition, offset.
    #[default]
    Last,
    /// The earlier one stays.
    First,
    /// Their sum; null counts as absent.
    Add,
    /// The smaller one; null counts as absent.
    Min,
    /// The larger one; null counts as absent.
    Max,
}

/// What happens to rows that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteMode {
    /// Every row is inserted.
    Append,
    /// A row whose key is there already is merged with it, column by column.
    Upsert,
}

/// A column of an output table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// Where its value comes from; `None` when a Rust program fills the columns in order.
    pub source: Option<ColumnSource>,
    /// Its type; `None` follows the table, or is `text` where the table is created.
    pub column_type: Option<ColumnType>,
    /// How values merge under [`WriteMode::Upsert`].
    pub merge: Merge,
}

/// An output table as the user describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    /// The table.
    pub table: TableName,
    /// Append or upsert.
    pub mode: WriteMode,
    /// The key columns of an upsert, in order; empty for append.
    pub key: Vec<String>,
    /// Whether to create the table if it is missing.
    pub create: bool,
    /// The columns, in the order of the rows.
    pub columns: Vec<Column>,
}

/// A value on its way into a column, before it is known whether the column can take it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating point number.
    Double(f64),
    /// A number as its decimal text, for `numeric` and for integers beyond 64 bits.
    Number(Cow<'a, str>),
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// A point in time: microseconds since 1970-01-01 UTC.
    TimestampMicros(i64),
    /// A JSON document that is not a single string, as its text.
    Json(Cow<'a, str>),
}

impl Value<'_> {
    /// The same value, owning its bytes.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Double(value) => Value::Double(value),
            Self::Number(text) => Value::Number(Cow::Owned(text.into_owned())),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
            Self::TimestampMicros(micros) => Value::TimestampMicros(micros),
            Self::Json(text) => Value::Json(Cow::Owned(text.into_owned())),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $to:expr;)*) => {$(
        impl<'a> From<$from> for Value<'a> {
            fn from(value: $from) -> Self {
                #[allow(clippy::redundant_closure_call, reason = "the macro takes a closure")]
                ($to)(value)
            }
        }
    )*};
}

value_from! {
    bool => Value::Bool;
    i16 => |v| Value::Int(i64::from(v));
    i32 => |v| Value::Int(i64::from(v));
    u32 => |v| Value::Int(i64::from(v));
    i64 => Value::Int;
    u64 => |v| i64::try_from(v).map_or_else(|_| Value::Number(Cow::Owned(u64::to_string(&v))), Value::Int);
    usize => |v| i64::try_from(v).map_or_else(|_| Value::Number(Cow::Owned(usize::to_string(&v))), Value::Int);
    f64 => Value::Double;
    &'a str => |v| Value::Text(Cow::Borrowed(v));
    String => |v| Value::Text(Cow::Owned(v));
    &'a String => |v: &'a String| Value::Text(Cow::Borrowed(v.as_str()));
    &'a [u8] => |v| Value::Bytes(Cow::Borrowed(v));
    Vec<u8> => |v| Value::Bytes(Cow::Owned(v));
    compact_str::CompactString => |v: compact_str::CompactString| Value::Text(Cow::Owned(v.into_string()));
}

impl<'a, T: Into<Self>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}
