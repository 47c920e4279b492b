//! The user's own SQL in the batch's transaction.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{
    Arguments, AssertSqlSafe, Column as _, Decode, Either, Encode, Executor, PgConnection, Postgres, Row, SqlSafeStr,
    Statement, Type, TypeInfo, ValueRef,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo, PgValueFormat},
};

use super::{
    super::{ledger::signed, settings::StoreSettings, statements::refuse_transaction_control, user_code},
    error::{answer, long_answer, postgres_error},
};
use crate::{
    config::StoreKind,
    error::{Error, ErrorKind, Result},
    failpoint,
    types::{BatchCommit, Cell, ColumnType, EncodedRows, Field, RowReader, RowWriter, TransactionSql, Value},
};

/// Runs all user code of a batch between SAVEPOINT and RELEASE.
///
/// That alone would not stop code that commits: its rows and the tables' would stay, without offsets. So `open_seq` names,
/// from here on, a ledger row that is written last: a COMMIT before it breaks a foreign key, and rolls everything back.
pub(super) async fn run(connection: &mut PgConnection, settings: &StoreSettings, batch: &BatchCommit) -> Result<()> {
    const OPEN: &str = "UPDATE directstream.applications SET open_seq = $1 WHERE application = $2";
    // Something may have made all constraints immediate; this one has to wait for the ledger row.
    const DEFER: &str = "SET CONSTRAINTS directstream.applications_open_seq_fkey DEFERRED";
    if batch.user_code.is_empty() {
        return Ok(());
    }
    let what = "cannot guard the transaction";
    answer(what, sqlx::raw_sql(DEFER).execute(&mut *connection)).await?;
    if !failpoint::mutant("no_open_seq") {
        let open = sqlx::query(OPEN).bind(signed(batch.batch_seq)).bind(&settings.application);
        answer(what, open.execute(&mut *connection)).await?;
    }
    let info = user_code::info_of(batch);
    let all = async {
        for code in &batch.user_code {
            simple(connection, "SAVEPOINT directstream_user_code").await?;
            let mut sql = UserSql { connection, failure: None };
            user_code::run(Arc::clone(code), info.clone(), &mut sql).await?;
            if let Some(error) = sql.failure {
                return Err(error);
            }
            simple(connection, "RELEASE SAVEPOINT directstream_user_code").await?;
        }
        Ok(())
    };
    user_code::in_time(settings.batch_deadline, &info, all).await
}

async fn simple(connection: &mut PgConnection, sql: &'static str) -> Result<()> {
    let done = answer("user code broke the batch's transaction", sqlx::raw_sql(sql).execute(connection)).await;
    done.map(drop).map_err(as_users)
}

/// Any failure that is not the store's is the user's.
fn as_users(error: Error) -> Error {
    let of_store = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Corrupt | ErrorKind::Transform);
    if of_store { error } else { Error::transform(error.chain()) }
}

struct UserSql<'c> {
    connection: &'c mut PgConnection,
    /// The first error, as a copy: the code got the error itself. The server has given the transaction up by then, except for
    /// errors that never reached it.
    failure: Option<Error>,
}

impl UserSql<'_> {
    fn note<T>(&mut self, done: Result<T>) -> Result<T> {
        done.map_err(|error| {
            let error = as_users(error);
            self.failure.get_or_insert_with(|| Error::new(error.kind(), error.chain()));
            error
        })
    }

    /// The parameters as the types that the statement wants.
    async fn bind(&mut self, sql: &str, parameters: &[Value<'_>]) -> Result<PgArguments> {
        refuse_transaction_control(StoreKind::Postgres, sql)?;
        let prepare = self.connection.prepare(AssertSqlSafe(sql).into_sql_str());
        let statement = answer("user code's statement failed", prepare).await?;
        let types = match statement.parameters() {
            Some(Either::Left(types)) => types,
            _ => &[],
        };
        if types.len() != parameters.len() {
            return Err(Error::transform(format!(
                "a statement of user code has another number of parameters wanted={} given={}",
                types.len(),
                parameters.len()
            )));
        }
        let mut arguments = PgArguments::default();
        for (type_info, parameter) in types.iter().zip(parameters) {
            let raw = Raw { type_info: type_info.clone(), bytes: encode(type_info, parameter)? };
            arguments.add(raw).map_err(|error| Error::transform("cannot bind a parameter").caused_by(error))?;
        }
        Ok(arguments)
    }
}

#[async_trait]
impl TransactionSql for UserSql<'_> {
    async fn execute(&mut self, sql: &str, parameters: &[Value<'_>]) -> Result<u64> {
        let bound = self.bind(sql, parameters).await;
        let arguments = self.note(bound)?;
        let statement = sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut *self.connection);
        let done = long_answer("user code's statement failed", statement).await;
        self.note(done.map(|done| done.rows_affected()))
    }

    async fn fetch(&mut self, sql: &str, parameters: &[Value<'_>]) -> Result<Vec<Vec<Cell>>> {
        let bound = self.bind(sql, parameters).await;
        let arguments = self.note(bound)?;
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments).fetch_all(&mut *self.connection);
        let rows = long_answer("user code's query failed", query).await;
        let cells = rows.and_then(|rows| rows.iter().map(cells).collect());
        self.note(cells)
    }
}

/// A parameter in the binary form of the type that the statement wants.
struct Raw {
    type_info: PgTypeInfo,
    bytes: Option<Vec<u8>>,
}

impl Type<Postgres> for Raw {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("text")
    }
}

impl Encode<'_, Postgres> for Raw {
    fn encode_by_ref(&self, out: &mut PgArgumentBuffer) -> std::result::Result<IsNull, BoxDynError> {
        let Some(bytes) = &self.bytes else { return Ok(IsNull::Yes) };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.type_info.clone())
    }
}

/// What a column type is to the encoders.
fn column_type(type_info: &PgTypeInfo) -> Option<ColumnType> {
    Some(match type_info.name() {
        "BOOL" => ColumnType::Boolean,
        "INT2" => ColumnType::SmallInt,
        "INT4" => ColumnType::Integer,
        "INT8" => ColumnType::BigInt,
        "FLOAT8" => ColumnType::Double,
        "NUMERIC" => ColumnType::Numeric,
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "UNKNOWN" | "JSON" => ColumnType::Text,
        "BYTEA" => ColumnType::Bytea,
        "TIMESTAMPTZ" => ColumnType::Timestamptz,
        "JSONB" => ColumnType::Jsonb,
        _ => return None,
    })
}

fn unknown_type(type_info: &PgTypeInfo) -> Error {
    Error::transform(format!(
        "user code's SQL uses a type that has to be cast from or to text type={}",
        type_info.name().to_ascii_lowercase()
    ))
}

fn encode(type_info: &PgTypeInfo, parameter: &Value<'_>) -> Result<Option<Vec<u8>>> {
    if *parameter == Value::Null {
        return Ok(None);
    }
    let to = column_type(type_info).ok_or_else(|| unknown_type(type_info))?;
    let refused = |refusal: crate::types::Refusal| Error::transform(format!("cannot bind a parameter: {refusal}"));
    let field = Field::convert(to, parameter.clone()).map_err(refused)?;
    let mut writer = RowWriter::new(vec![to]);
    writer.field(0, &field).map_err(refused)?;
    // A field is its length in four bytes, then its bytes.
    Ok(Some(writer.finish().bytes.split_off(4)))
}

fn cells(row: &PgRow) -> Result<Vec<Cell>> {
    row.columns().iter().map(|column| cell(row, column.ordinal())).collect()
}

fn cell(row: &PgRow, index: usize) -> Result<Cell> {
    let read = |error| postgres_error("cannot read user code's query", error);
    let raw = row.try_get_raw(index).map_err(read)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let type_info = raw.type_info().into_owned();
    let to = column_type(&type_info).ok_or_else(|| unknown_type(&type_info))?;
    if raw.format() == PgValueFormat::Text {
        let text = <&str as Decode<'_, Postgres>>::decode(raw);
        return Ok(Value::Text(
            text.map_err(|error| Error::corrupt("text is not UTF-8").caused_by(error))?.to_owned().into(),
        ));
    }
    let bytes = raw.as_bytes().map_err(|error| Error::corrupt("a value cannot be read").caused_by(error))?;
    let length = i32::try_from(bytes.len()).map_err(|_| Error::internal("a value of more than 2 GB"))?;
    let encoded = EncodedRows { rows: 1, bytes: [&1_i16.to_be_bytes()[..], &length.to_be_bytes(), bytes].concat() };
    let types = [to];
    let field = RowReader::new(&types, &encoded).next().and_then(|mut fields| fields.pop());
    Ok(match field.ok_or_else(|| Error::corrupt("a value cannot be read"))?.into_owned() {
        Field::Null => Value::Null,
        Field::Boolean(value) => Value::Bool(value),
        Field::Integer(value) => Value::Int(value),
        Field::Double(value) => Value::Double(value),
        Field::Numeric(value) => Value::Number(value.to_plain_string().into()),
        Field::Text(text) if to == ColumnType::Jsonb => Value::Json(text),
        Field::Text(text) => Value::Text(text),
        Field::Bytes(bytes) => Value::Bytes(bytes),
        Field::TimestampMicros(micros) => Value::TimestampMicros(micros),
    })
}
