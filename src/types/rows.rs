//! Rows in their bulk form: made by the workers, moved by the committer.
//!
//! The form is that of a PostgreSQL binary COPY tuple (<https://www.postgresql.org/docs/15/sql-copy.html>): a 16-bit
//! field count, then for each field its length in 32 bits (-1 is NULL) and its bytes, all big endian. PostgreSQL gets the
//! bytes as they are; SQLite binds the fields that [`RowReader`] gives back. One form, so one encoder per column type.

use std::{borrow::Cow, cmp::Ordering, fmt, str::FromStr};

use bigdecimal::{BigDecimal, num_bigint::Sign};

use super::{ColumnType, Merge, Value};

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's timestamps start.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The earliest and the latest instant that both a PostgreSQL `timestamptz` and RFC 3339 text can hold: from year 0001 to
/// 9999-12-30T22:00:00, after which some place of the world writes a year of five digits.
const TIMESTAMP_MICROS_MIN: i64 = -62_135_596_800_000_000;
const TIMESTAMP_MICROS_MAX: i64 = 253_402_207_200_000_000;
/// Digits of a `numeric` before and after the point that PostgreSQL keeps.
const NUMERIC_DIGITS_MAX: u64 = 131_072;
const NUMERIC_SCALE_MAX: i64 = 16_383;

/// Why a column cannot take a value. Never holds the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason in one line, without the value.
    pub reason: Cow<'static, str>,
}

impl Refusal {
    /// A refusal for this reason.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// A value that its column can hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Field<'a> {
    /// SQL NULL.
    Null,
    /// `boolean`.
    Boolean(bool),
    /// `smallint`, `integer` or `bigint`; within the type's range.
    Integer(i64),
    /// `double precision`.
    Double(f64),
    /// `numeric`.
    Numeric(Box<BigDecimal>),
    /// `text` or `jsonb`: no NUL.
    Text(Cow<'a, str>),
    /// `bytea`.
    Bytes(Cow<'a, [u8]>),
    /// `timestamptz`: microseconds since 1970-01-01 UTC, years 1 to 9999.
    TimestampMicros(i64),
}

impl<'a> Field<'a> {
    /// The field that a column of type `to` makes of `value`. Conversions are strict: a number only if it stays exact,
    /// text from strings (anything else as JSON text), a time from RFC 3339 text or from Kafka's timestamp.
    ///
    /// # Errors
    /// A [`Refusal`] that says why the column cannot take it, without the value.
    pub fn convert(to: ColumnType, value: Value<'a>) -> Result<Self, Refusal> {
        if value == Value::Null {
            return Ok(Field::Null);
        }
        match to {
            ColumnType::Boolean => match value {
                Value::Bool(value) => Ok(Field::Boolean(value)),
                other => Err(wrong(to, &other)),
            },
            ColumnType::SmallInt => integer(to, &value, i64::from(i16::MIN), i64::from(i16::MAX)),
            ColumnType::Integer => integer(to, &value, i64::from(i32::MIN), i64::from(i32::MAX)),
            ColumnType::BigInt => integer(to, &value, i64::MIN, i64::MAX),
            ColumnType::Double => double(&value),
            ColumnType::Numeric => numeric(&value),
            ColumnType::Text => text(value),
            ColumnType::Jsonb => json(value),
            ColumnType::Bytea => match value {
                Value::Bytes(bytes) => Ok(Field::Bytes(bytes)),
                Value::Text(Cow::Borrowed(text)) => Ok(Field::Bytes(Cow::Borrowed(text.as_bytes()))),
                Value::Text(Cow::Owned(text)) => Ok(Field::Bytes(Cow::Owned(text.into_bytes()))),
                other => Err(wrong(to, &other)),
            },
            ColumnType::Timestamptz => timestamp(&value),
        }
    }

    /// The same field, owning its bytes.
    #[must_use]
    pub fn into_owned(self) -> Field<'static> {
        match self {
            Self::Null => Field::Null,
            Self::Boolean(value) => Field::Boolean(value),
            Self::Integer(value) => Field::Integer(value),
            Self::Double(value) => Field::Double(value),
            Self::Numeric(value) => Field::Numeric(value),
            Self::Text(text) => Field::Text(Cow::Owned(text.into_owned())),
            Self::Bytes(bytes) => Field::Bytes(Cow::Owned(bytes.into_owned())),
            Self::TimestampMicros(micros) => Field::TimestampMicros(micros),
        }
    }

    /// Order within one column; NULL is below everything, NaN above every number.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Null, Self::Null) => Ordering::Equal,
            (Self::Null, _) => Ordering::Less,
            (_, Self::Null) => Ordering::Greater,
            (Self::Boolean(a), Self::Boolean(b)) => a.cmp(b),
            (Self::Integer(a), Self::Integer(b)) | (Self::TimestampMicros(a), Self::TimestampMicros(b)) => a.cmp(b),
            (Self::Double(a), Self::Double(b)) => a.total_cmp(b),
            (Self::Numeric(a), Self::Numeric(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            // Fields of one column have one type.
            _ => Ordering::Equal,
        }
    }

    /// Merges a later value of the same column into this one.
    ///
    /// # Errors
    /// A [`Refusal`] if a sum does not fit the column.
    pub fn merge(&mut self, merge: Merge, to: ColumnType, later: Self) -> Result<(), Refusal> {
        match merge {
            Merge::Last => *self = later,
            Merge::First => {}
            _ if later == Self::Null => {}
            _ if *self == Self::Null => *self = later,
            Merge::Min if later.compare(self).is_lt() => *self = later,
            Merge::Max if later.compare(self).is_gt() => *self = later,
            Merge::Min | Merge::Max => {}
            Merge::Add => *self = self.plus(to, &later)?,
        }
        Ok(())
    }

    fn plus(&self, to: ColumnType, other: &Self) -> Result<Self, Refusal> {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => {
                let sum = a.checked_add(*b).ok_or_else(|| Refusal::new(format!("the sum is out of range for {to}")))?;
                Self::convert(to, Value::Int(sum)).map(Field::into_owned)
            }
            (Self::Double(a), Self::Double(b)) => Ok(Field::Double(a + b)),
            (Self::Numeric(a), Self::Numeric(b)) => Ok(Field::Numeric(Box::new(&**a + &**b))),
            _ => Err(Refusal::new(format!("{to} cannot be added"))),
        }
    }
}

fn wrong(to: ColumnType, value: &Value<'_>) -> Refusal {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Int(_) | Value::Double(_) | Value::Number(_) => "a number",
        Value::Text(_) => "a string",
        Value::Bytes(_) => "bytes",
        Value::TimestampMicros(_) => "a timestamp",
        Value::Json(_) => "a JSON array or object",
    };
    Refusal::new(format!("{to} cannot hold {found}"))
}

fn integer(to: ColumnType, value: &Value<'_>, min: i64, max: i64) -> Result<Field<'static>, Refusal> {
    let out_of_range = || Refusal::new(format!("the number is out of range for {to}"));
    let number = match value {
        Value::Int(number) => *number,
        Value::Double(number) => {
            exact_integer(*number).ok_or_else(|| Refusal::new(format!("{to} needs a whole number in range")))?
        }
        Value::Number(text) => {
            let decimal = BigDecimal::from_str(text).map_err(|_| wrong(to, value))?;
            if !decimal.is_integer() {
                return Err(Refusal::new(format!("{to} needs a whole number")));
            }
            // Bounded before it is written out: 1e1000000 is a short text.
            if decimal.order_of_magnitude() > 20 {
                return Err(out_of_range());
            }
            decimal.with_scale(0).to_plain_string().parse().map_err(|_| out_of_range())?
        }
        // The user's own word for a point in time as a number: Kafka's milliseconds.
        Value::TimestampMicros(micros) => micros.div_euclid(1000),
        other => return Err(wrong(to, other)),
    };
    if number < min || number > max {
        return Err(out_of_range());
    }
    Ok(Field::Integer(number))
}

/// The integer that `number` is, if it is one that a double can hold exactly.
fn exact_integer(number: f64) -> Option<i64> {
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
    (number.fract() == 0.0 && number.abs() <= LIMIT).then_some(number as i64)
}

fn double(value: &Value<'_>) -> Result<Field<'static>, Refusal> {
    match value {
        Value::Double(number) if number.is_finite() => Ok(Field::Double(*number)),
        Value::Int(number) => {
            #[expect(clippy::cast_precision_loss, reason = "refused below unless exact")]
            let wide = *number as f64;
            if exact_integer(wide) == Some(*number) {
                Ok(Field::Double(wide))
            } else {
                Err(Refusal::new("double precision cannot hold the number exactly"))
            }
        }
        Value::Number(text) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Field::Double(number)),
            _ => Err(Refusal::new("the number is out of range for double precision")),
        },
        Value::Double(_) => Err(Refusal::new("the number is out of range for double precision")),
        other => Err(wrong(ColumnType::Double, other)),
    }
}

fn numeric(value: &Value<'_>) -> Result<Field<'static>, Refusal> {
    let decimal = match value {
        Value::Int(number) => BigDecimal::from(*number),
        Value::Number(text) => BigDecimal::from_str(text).map_err(|_| wrong(ColumnType::Numeric, value))?,
        // A program's own f64: its shortest decimal text is what its author sees.
        Value::Double(number) if number.is_finite() => {
            BigDecimal::from_str(&number.to_string()).map_err(|_| wrong(ColumnType::Numeric, value))?
        }
        other => return Err(wrong(ColumnType::Numeric, other)),
    };
    let out_of_range = decimal.digits() > NUMERIC_DIGITS_MAX
        || decimal.fractional_digit_count() > NUMERIC_SCALE_MAX
        || decimal.order_of_magnitude().unsigned_abs() > NUMERIC_DIGITS_MAX;
    if out_of_range {
        return Err(Refusal::new("the number is out of range for numeric"));
    }
    Ok(Field::Numeric(Box::new(decimal)))
}

fn without_nul(text: Cow<'_, str>) -> Result<Field<'_>, Refusal> {
    if text.as_bytes().contains(&0) {
        return Err(Refusal::new("text cannot hold the character NUL"));
    }
    Ok(Field::Text(text))
}

fn text(value: Value<'_>) -> Result<Field<'_>, Refusal> {
    match value {
        Value::Text(text) | Value::Json(text) | Value::Number(text) => without_nul(text),
        Value::Bytes(Cow::Borrowed(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => without_nul(Cow::Borrowed(text)),
            Err(_) => Err(Refusal::new("text needs valid UTF-8")),
        },
        Value::Bytes(Cow::Owned(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => without_nul(Cow::Owned(text)),
            Err(_) => Err(Refusal::new("text needs valid UTF-8")),
        },
        Value::Bool(value) => Ok(Field::Text(Cow::Borrowed(if value { "true" } else { "false" }))),
        Value::Int(value) => Ok(Field::Text(Cow::Owned(value.to_string()))),
        Value::Double(value) => Ok(Field::Text(Cow::Owned(value.to_string()))),
        Value::TimestampMicros(micros) => rfc3339(micros).map(|text| Field::Text(Cow::Owned(text))),
        Value::Null => Ok(Field::Null),
    }
}

fn json(value: Value<'_>) -> Result<Field<'_>, Refusal> {
    let text: Cow<'_, str> = match value {
        Value::Json(text) | Value::Number(text) => text,
        Value::Text(text) => {
            if text.as_bytes().contains(&0) {
                return Err(Refusal::new("jsonb cannot hold the character NUL"));
            }
            Cow::Owned(serde_json::Value::String(text.into_owned()).to_string())
        }
        Value::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        Value::Int(value) => Cow::Owned(value.to_string()),
        Value::Double(value) if value.is_finite() => Cow::Owned(value.to_string()),
        other => return Err(wrong(ColumnType::Jsonb, &other)),
    };
    // Valid JSON that jsonb refuses: the escape of NUL. (An escaped backslash before "u0000" is refused with it: strict.)
    if text.contains("\\u0000") {
        return Err(Refusal::new("jsonb cannot hold the character NUL"));
    }
    Ok(Field::Text(text))
}

fn timestamp(value: &Value<'_>) -> Result<Field<'static>, Refusal> {
    let micros = match value {
        Value::TimestampMicros(micros) => *micros,
        Value::Text(text) => jiff::Timestamp::from_str(text)
            .map(jiff::Timestamp::as_microsecond)
            .map_err(|_| Refusal::new("timestamptz needs RFC 3339 text with an offset"))?,
        other => return Err(wrong(ColumnType::Timestamptz, other)),
    };
    if !(TIMESTAMP_MICROS_MIN..=TIMESTAMP_MICROS_MAX).contains(&micros) {
        return Err(Refusal::new("the time is out of range for timestamptz (years 1 to 9999)"));
    }
    Ok(Field::TimestampMicros(micros))
}

/// RFC 3339 text in UTC with milliseconds.
pub(crate) fn rfc3339(micros: i64) -> Result<String, Refusal> {
    jiff::Timestamp::from_microsecond(micros)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
        .map_err(|_| Refusal::new("the time is out of range (years 1 to 9999)"))
}

/// Rows in their bulk form.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct EncodedRows {
    /// How many.
    pub rows: u64,
    /// Their bytes, row after row.
    pub bytes: Vec<u8>,
}

/// Writes rows of fixed column types. A row that is refused half-way is [undone](RowWriter::undo) by its mark.
#[derive(Debug)]
pub struct RowWriter {
    types: Vec<ColumnType>,
    rows: EncodedRows,
}

impl RowWriter {
    /// A writer of rows with these columns.
    ///
    /// # Panics
    /// If there are more than 32,767 columns (PostgreSQL allows 1,600; start-up checks refuse more).
    #[must_use]
    pub fn new(types: Vec<ColumnType>) -> Self {
        assert!(i16::try_from(types.len()).is_ok(), "more columns than a table can have");
        Self { types, rows: EncodedRows::default() }
    }

    /// The column types.
    #[must_use]
    pub fn types(&self) -> &[ColumnType] {
        &self.types
    }

    /// Rows and bytes so far: what [`undo`](Self::undo) goes back to.
    #[must_use]
    pub fn mark(&self) -> (u64, usize) {
        (self.rows.rows, self.rows.bytes.len())
    }

    /// Goes back to a mark.
    pub fn undo(&mut self, mark: (u64, usize)) {
        self.rows.rows = mark.0;
        self.rows.bytes.truncate(mark.1);
    }

    /// Starts a row. [`field`](Self::field) must follow once per column.
    pub fn start_row(&mut self) {
        self.rows.rows += 1;
        let columns = i16::try_from(self.types.len()).unwrap_or(i16::MAX);
        self.rows.bytes.extend_from_slice(&columns.to_be_bytes());
    }

    /// Writes the field of column `index`.
    ///
    /// # Errors
    /// A [`Refusal`] if it is larger than a field can be (1 GB).
    pub fn field(&mut self, index: usize, field: &Field<'_>) -> Result<(), Refusal> {
        let out = &mut self.rows.bytes;
        match (field, self.types[index]) {
            (Field::Null, _) => out.extend_from_slice(&(-1_i32).to_be_bytes()),
            (Field::Boolean(value), _) => put(out, &[u8::from(*value)])?,
            (Field::Integer(value), ColumnType::SmallInt) => {
                put(out, &i16::try_from(*value).map_err(|_| Refusal::new("out of range for smallint"))?.to_be_bytes())?;
            }
            (Field::Integer(value), ColumnType::Integer) => {
                put(out, &i32::try_from(*value).map_err(|_| Refusal::new("out of range for integer"))?.to_be_bytes())?;
            }
            (Field::Integer(value), _) => put(out, &value.to_be_bytes())?,
            (Field::Double(value), _) => put(out, &value.to_be_bytes())?,
            (Field::Numeric(value), _) => put(out, &numeric_bytes(value)?)?,
            (Field::Text(text), ColumnType::Jsonb) => {
                let length = text.len().checked_add(1).ok_or_else(too_large)?;
                out.extend_from_slice(&field_length(length)?.to_be_bytes());
                out.push(1); // the version of jsonb's binary form
                out.extend_from_slice(text.as_bytes());
            }
            (Field::Text(text), _) => put(out, text.as_bytes())?,
            (Field::Bytes(bytes), _) => put(out, bytes)?,
            (Field::TimestampMicros(micros), _) => put(out, &(micros - POSTGRES_EPOCH_MICROS).to_be_bytes())?,
        }
        Ok(())
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.bytes.len()
    }

    /// The rows.
    #[must_use]
    pub fn finish(self) -> EncodedRows {
        self.rows
    }
}

/// PostgreSQL refuses a field of 1 GB and more.
const FIELD_BYTES_MAX: usize = 0x3fff_ffff;

fn too_large() -> Refusal {
    Refusal::new("the value is larger than 1 GB")
}

fn field_length(length: usize) -> Result<i32, Refusal> {
    if length > FIELD_BYTES_MAX {
        return Err(too_large());
    }
    i32::try_from(length).map_err(|_| too_large())
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Refusal> {
    out.extend_from_slice(&field_length(bytes.len())?.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// PostgreSQL's binary `numeric`: base-10,000 digits with the weight of the first one.
fn numeric_bytes(value: &BigDecimal) -> Result<Vec<u8>, Refusal> {
    let range = || Refusal::new("the number is out of range for numeric");
    // `digits * 10^-scale`; a negative scale (12e3) is written out.
    let value = if value.fractional_digit_count() < 0 { value.with_scale(0) } else { value.clone() };
    let (integer, scale) = value.as_bigint_and_scale();
    let negative = integer.sign() == Sign::Minus;
    let digits = integer.magnitude().to_string();
    let scale = usize::try_from(scale).map_err(|_| range())?;
    // Pad so that the point falls between groups of four.
    let fraction = scale.min(digits.len());
    let (whole, part) = digits.split_at(digits.len() - fraction);
    let part = format!("{}{part}", "0".repeat(scale - fraction));
    let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let part = format!("{part}{}", "0".repeat((4 - part.len() % 4) % 4));
    let mut groups: Vec<i16> = Vec::with_capacity((whole.len() + part.len()) / 4);
    for group in whole.as_bytes().chunks(4).chain(part.as_bytes().chunks(4)) {
        groups.push(group.iter().fold(0_i16, |n, digit| n * 10 + i16::from(digit - b'0')));
    }
    let mut weight = i64::try_from(whole.len() / 4).map_err(|_| range())? - 1;
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    weight -= i64::try_from(leading).map_err(|_| range())?;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    let mut out = Vec::with_capacity(8 + groups.len() * 2);
    out.extend_from_slice(&i16::try_from(groups.len()).map_err(|_| range())?.to_be_bytes());
    out.extend_from_slice(&i16::try_from(weight).map_err(|_| range())?.to_be_bytes());
    out.extend_from_slice(&(if negative && !groups.is_empty() { 0x4000_u16 } else { 0 }).to_be_bytes());
    out.extend_from_slice(&u16::try_from(scale).map_err(|_| range())?.to_be_bytes());
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
    Ok(out)
}

/// Reads rows back, field by field: what SQLite binds.
#[derive(Debug)]
pub struct RowReader<'a> {
    types: &'a [ColumnType],
    rest: &'a [u8],
}

impl<'a> RowReader<'a> {
    /// A reader of `rows` with these columns.
    #[must_use]
    pub fn new(types: &'a [ColumnType], rows: &'a EncodedRows) -> Self {
        Self { types, rest: &rows.bytes }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn next_field(&mut self, column_type: ColumnType) -> Option<Field<'a>> {
        let length = i32::from_be_bytes(self.take(4)?.try_into().ok()?);
        let Ok(length) = usize::try_from(length) else { return Some(Field::Null) };
        let bytes = self.take(length)?;
        Some(match column_type {
            ColumnType::Boolean => Field::Boolean(bytes.first() == Some(&1)),
            ColumnType::SmallInt => Field::Integer(i64::from(i16::from_be_bytes(bytes.try_into().ok()?))),
            ColumnType::Integer => Field::Integer(i64::from(i32::from_be_bytes(bytes.try_into().ok()?))),
            ColumnType::BigInt => Field::Integer(i64::from_be_bytes(bytes.try_into().ok()?)),
            ColumnType::Double => Field::Double(f64::from_be_bytes(bytes.try_into().ok()?)),
            ColumnType::Numeric => Field::Numeric(Box::new(numeric_from_bytes(bytes)?)),
            ColumnType::Text => Field::Text(Cow::Borrowed(std::str::from_utf8(bytes).ok()?)),
            ColumnType::Jsonb => Field::Text(Cow::Borrowed(std::str::from_utf8(bytes.get(1..)?).ok()?)),
            ColumnType::Bytea => Field::Bytes(Cow::Borrowed(bytes)),
            ColumnType::Timestamptz => {
                Field::TimestampMicros(i64::from_be_bytes(bytes.try_into().ok()?) + POSTGRES_EPOCH_MICROS)
            }
        })
    }
}

impl<'a> Iterator for RowReader<'a> {
    type Item = Vec<Field<'a>>;

    /// The next row; `None` at the end, and where the bytes are not rows of these columns.
    fn next(&mut self) -> Option<Self::Item> {
        self.take(2)?;
        let types = self.types;
        types.iter().map(|column_type| self.next_field(*column_type)).collect()
    }
}

fn numeric_from_bytes(bytes: &[u8]) -> Option<BigDecimal> {
    let word = |index: usize| Some(i16::from_be_bytes(bytes.get(index * 2..index * 2 + 2)?.try_into().ok()?));
    let count = usize::try_from(word(0)?).ok()?;
    let weight = i64::from(word(1)?);
    let negative = word(2)? != 0;
    let scale = i64::from(word(3)?);
    let mut digits = String::from(if negative { "-" } else { "" });
    digits.push('0');
    for index in 0..count {
        digits.push_str(&format!("{:04}", word(4 + index)?));
    }
    let integer = digits.parse().ok()?;
    let last_weight = weight - i64::try_from(count).ok()? + 1;
    Some(BigDecimal::from_bigint(integer, -4 * last_weight).with_scale(scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(column_type: ColumnType, value: Value<'_>) -> Field<'static> {
        let field = Field::convert(column_type, value).unwrap();
        let mut writer = RowWriter::new(vec![column_type]);
        writer.start_row();
        writer.field(0, &field).unwrap();
        let rows = writer.finish();
        let types = [column_type];
        let mut read: Vec<Vec<Field<'_>>> = RowReader::new(&types, &rows).collect();
        assert_eq!(read.len(), 1);
        read.remove(0).remove(0).into_owned()
    }

    #[test]
    fn every_type_comes_back_as_it_was() {
        assert_eq!(round_trip(ColumnType::Boolean, Value::Bool(true)), Field::Boolean(true));
        assert_eq!(round_trip(ColumnType::SmallInt, Value::Int(-7)), Field::Integer(-7));
        assert_eq!(round_trip(ColumnType::Integer, Value::Int(1 << 20)), Field::Integer(1 << 20));
        assert_eq!(round_trip(ColumnType::BigInt, Value::Int(i64::MIN)), Field::Integer(i64::MIN));
        assert_eq!(round_trip(ColumnType::Double, Value::Double(-0.25)), Field::Double(-0.25));
        assert_eq!(round_trip(ColumnType::Text, Value::from("ä")), Field::Text("ä".into()));
        assert_eq!(round_trip(ColumnType::Jsonb, Value::from("q\"")), Field::Text("\"q\\\"\"".into()));
        assert_eq!(round_trip(ColumnType::Bytea, Value::from(vec![0, 255])), Field::Bytes(vec![0, 255].into()));
        assert_eq!(round_trip(ColumnType::Timestamptz, Value::TimestampMicros(-1)), Field::TimestampMicros(-1));
        assert_eq!(round_trip(ColumnType::Text, Value::Null), Field::Null);
    }

    #[test]
    fn every_time_that_is_taken_can_be_written_as_text() {
        for micros in [TIMESTAMP_MICROS_MIN, 0, TIMESTAMP_MICROS_MAX] {
            assert_eq!(
                round_trip(ColumnType::Timestamptz, Value::TimestampMicros(micros)),
                Field::TimestampMicros(micros)
            );
            assert!(rfc3339(micros).is_ok(), "{micros}");
        }
        for micros in [TIMESTAMP_MICROS_MIN - 1, TIMESTAMP_MICROS_MAX + 1, i64::MIN, i64::MAX] {
            assert!(Field::convert(ColumnType::Timestamptz, Value::TimestampMicros(micros)).is_err(), "{micros}");
        }
    }

    #[test]
    fn numeric_keeps_every_digit_and_the_scale() {
        for text in [
            "0",
            "0.00",
            "1",
            "-1",
            "10000",
            "12345678.9",
            "0.0001",
            "-0.00010",
            "99999999999999999999.123456789",
            "12e3",
        ] {
            let Field::Numeric(value) = round_trip(ColumnType::Numeric, Value::Number(text.into())) else {
                panic!("{text}")
            };
            assert_eq!(*value, BigDecimal::from_str(text).unwrap(), "{text}");
        }
    }

    #[test]
    fn what_a_column_cannot_hold_exactly_is_refused() {
        let refused = |to, value| Field::convert(to, value).unwrap_err().to_string();
        assert_eq!(refused(ColumnType::SmallInt, Value::Int(40_000)), "the number is out of range for smallint");
        assert_eq!(refused(ColumnType::BigInt, Value::Double(0.5)), "bigint needs a whole number in range");
        assert_eq!(
            refused(ColumnType::BigInt, Value::Number("9223372036854775808".into())),
            "the number is out of range for bigint"
        );
        assert_eq!(
            refused(ColumnType::BigInt, Value::Number("1e1000000000".into())),
            "the number is out of range for bigint"
        );
        assert_eq!(
            refused(ColumnType::Double, Value::Int(i64::MAX)),
            "double precision cannot hold the number exactly"
        );
        assert_eq!(refused(ColumnType::Text, Value::from("a\0b")), "text cannot hold the character NUL");
        assert_eq!(refused(ColumnType::Text, Value::from(&[0xff_u8][..])), "text needs valid UTF-8");
        assert_eq!(refused(ColumnType::Boolean, Value::Int(1)), "boolean cannot hold a number");
        assert_eq!(
            refused(ColumnType::Timestamptz, Value::from("yesterday")),
            "timestamptz needs RFC 3339 text with an offset"
        );
        assert_eq!(
            refused(ColumnType::Numeric, Value::Number("1e200000".into())),
            "the number is out of range for numeric"
        );
    }

    #[test]
    fn merging_ignores_nulls_and_refuses_an_overflow() {
        let merged = |merge, first: Field<'static>, later| {
            let mut field = first;
            field.merge(merge, ColumnType::BigInt, later).map(|()| field)
        };
        assert_eq!(merged(Merge::Add, Field::Integer(1), Field::Integer(2)).unwrap(), Field::Integer(3));
        assert_eq!(merged(Merge::Add, Field::Null, Field::Integer(2)).unwrap(), Field::Integer(2));
        assert_eq!(merged(Merge::Add, Field::Integer(2), Field::Null).unwrap(), Field::Integer(2));
        assert_eq!(merged(Merge::Min, Field::Integer(2), Field::Integer(1)).unwrap(), Field::Integer(1));
        assert_eq!(merged(Merge::Max, Field::Integer(2), Field::Integer(1)).unwrap(), Field::Integer(2));
        assert_eq!(merged(Merge::Last, Field::Integer(2), Field::Null).unwrap(), Field::Null);
        assert_eq!(merged(Merge::First, Field::Null, Field::Integer(1)).unwrap(), Field::Null);
        assert!(merged(Merge::Add, Field::Integer(i64::MAX), Field::Integer(1)).is_err());
    }
}
