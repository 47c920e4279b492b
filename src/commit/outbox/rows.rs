//! Records as rows of the outbox, and back.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::super::ledger::signed;
use crate::{
    error::{Error, Result},
    types::{ColumnType, EncodedRows, Field, KafkaRecord, Refusal, RowWriter},
};

/// How PostgreSQL takes [encoded] rows.
pub(in crate::commit) const COPY: &str = "COPY directstream.outbox (application, batch_seq, record, topic, partition, key, value, \
     headers, timestamp_ms, bytes) FROM STDIN (FORMAT binary)";
/// How SQLite takes one row.
pub(in crate::commit) const INSERT: &str = "INSERT INTO directstream_outbox (application, batch_seq, record, topic, partition, \
     key, value, headers, timestamp_ms, bytes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const COLUMNS: [ColumnType; 10] = [
    ColumnType::Text,
    ColumnType::BigInt,
    ColumnType::BigInt,
    ColumnType::Text,
    ColumnType::Integer,
    ColumnType::Bytea,
    ColumnType::Bytea,
    ColumnType::Text,
    ColumnType::BigInt,
    ColumnType::BigInt,
];
/// A chunk is closed when it has this many bytes.
const CHUNK_BYTES: usize = 1 << 20;

type Headers = Vec<(String, Option<String>)>;

/// The records of a batch in COPY's binary form.
pub(in crate::commit) fn encoded(
    application: &str,
    batch_seq: u64,
    records: &[KafkaRecord],
) -> Result<Vec<EncodedRows>> {
    let mut chunks = Vec::new();
    let mut writer = RowWriter::new(COLUMNS.to_vec());
    for (number, record) in records.iter().enumerate() {
        let refused = |refusal: Refusal| {
            Error::transform(format!("the outbox cannot take a record: {refusal} topic={}", record.topic()))
        };
        write(&mut writer, (application, batch_seq, number), record).map_err(refused)?;
        if writer.bytes() >= CHUNK_BYTES {
            chunks.push(std::mem::replace(&mut writer, RowWriter::new(COLUMNS.to_vec())).finish());
        }
    }
    chunks.push(writer.finish());
    Ok(chunks)
}

fn write(
    writer: &mut RowWriter,
    (application, batch_seq, number): (&str, u64, usize),
    record: &KafkaRecord,
) -> Result<(), Refusal> {
    let integer = |number: Option<i64>| number.map_or(Field::Null, Field::Integer);
    let bytes = |bytes: Option<&'_ [u8]>| bytes.map_or(Field::Null, |bytes| Field::Bytes(bytes.to_vec().into()));
    let fields = [
        Field::Text(application.into()),
        Field::Integer(signed(batch_seq)),
        Field::Integer(signed(number as u64)),
        Field::Text(record.topic().into()),
        integer(record.partition().map(i64::from)),
        bytes(record.key_bytes()),
        bytes(record.value_bytes()),
        Field::Text(headers_text(record).into()),
        integer(record.timestamp_ms()),
        Field::Integer(signed(record.bytes() as u64)),
    ];
    writer.start_row();
    fields.iter().enumerate().try_for_each(|(index, field)| writer.field(index, field))
}

/// A record's headers as a JSON array of `[name, base64 or null]`.
pub(in crate::commit) fn headers_text(record: &KafkaRecord) -> String {
    let pair =
        |(name, value): (&str, Option<&[u8]>)| serde_json::json!([name, value.map(|v| BASE64_STANDARD.encode(v))]);
    serde_json::Value::Array(record.headers().map(pair).collect()).to_string()
}

/// A row as it is read: batch, number, topic, partition, key, value, headers, timestamp.
pub(super) type Row = (i64, i64, String, Option<i32>, Option<Vec<u8>>, Option<Vec<u8>>, String, Option<i64>);

/// The record of a row.
pub(super) fn record((_, _, topic, partition, key, value, headers, timestamp_ms): Row) -> Result<KafkaRecord> {
    let damaged = || Error::corrupt("the headers of a record in the outbox cannot be read");
    let mut record = KafkaRecord::to(&topic);
    if let Some(partition) = partition {
        record = record.with_partition(partition);
    }
    if let Some(key) = key {
        record = record.key(key);
    }
    if let Some(value) = value {
        record = record.value(value);
    }
    if let Some(timestamp_ms) = timestamp_ms {
        record = record.with_timestamp_ms(timestamp_ms);
    }
    let headers: Headers = serde_json::from_str(&headers).map_err(|error| damaged().caused_by(error))?;
    for (name, value) in headers {
        let value = value.map(|text| BASE64_STANDARD.decode(text)).transpose();
        record = record.header(name, value.map_err(|error| damaged().caused_by(error))?.as_deref());
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RowReader;

    #[test]
    fn a_record_comes_back_as_it_was() {
        let whole = KafkaRecord::to("t").with_partition(3).key("k").value(vec![0, 255]).with_timestamp_ms(-1);
        let whole = whole.header("a", Some(b"\0x")).header("a", None).header("\0", Some(b""));
        for expected in [whole, KafkaRecord::to("t")] {
            let chunks = encoded("app", 7, &[KafkaRecord::to("other"), expected.clone()]).unwrap();
            let rows: Vec<_> = chunks.iter().flat_map(|chunk| RowReader::new(&COLUMNS, chunk)).collect();
            let [_, row] = &rows[..] else { panic!("{rows:?}") };
            let integer = |at: usize| match row[at] {
                Field::Integer(number) => Some(number),
                _ => None,
            };
            let text = |at: usize| match &row[at] {
                Field::Text(text) => text.to_string(),
                other => panic!("{other:?}"),
            };
            let bytes = |at: usize| match &row[at] {
                Field::Bytes(bytes) => Some(bytes.to_vec()),
                _ => None,
            };
            assert_eq!((text(0).as_str(), integer(1), integer(2)), ("app", Some(7), Some(1)));
            let partition = integer(4).map(|number| i32::try_from(number).unwrap());
            let read = (7, 1, text(3), partition, bytes(5), bytes(6), text(7), integer(8));
            assert_eq!(record(read).unwrap(), expected);
        }
    }
}
