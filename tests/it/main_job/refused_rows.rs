//! Rows of a program that the database refuses, and that leaving out one record would not mend: the stream ends with exit code 6.

use std::time::Duration;

use directstream::{
    ErrorKind,
    stream::{DirectStream, StreamingContext},
    transform::{DStream, InputFormat, OnError, Upsert},
    types::{Column, ColumnSource, Merge, Record, TableSpec, WriteMode},
};

use super::tables::Tables;
use crate::support::{record, shared_kafka};

/// What the job does with its records.
#[derive(Debug, Clone, Copy)]
enum Outputs {
    /// A row is a sum over many records.
    Aggregated,
    /// A record that one of them leaves out would keep its rows in the other.
    Two,
}

fn append(table: &str) -> TableSpec {
    let column =
        Column { name: "n".to_owned(), source: Some(ColumnSource::Value), column_type: None, merge: Merge::default() };
    TableSpec {
        table: table.parse().unwrap(),
        mode: WriteMode::Append,
        key: Vec::new(),
        create: false,
        columns: vec![column],
    }
}

fn outputs(records: &DStream<Record>, outputs: Outputs) {
    match outputs {
        Outputs::Aggregated => {
            let sums = records.map(|_| ("all".to_owned(), 1_i64)).reduce_by_key(|a, b| a + b);
            sums.save_to_table(Upsert::into("totals").key("name").add("n")).unwrap();
        }
        Outputs::Two => {
            for table in ["one", "other"] {
                records.save_records(InputFormat::Text, OnError::DeadLetter, vec![append(table)]);
            }
        }
    }
}

async fn run(brokers: &str, topic: &str, tables: &Tables, kind: Outputs) -> directstream::Result<()> {
    let context = StreamingContext::builder("refused", Duration::from_millis(50)).store(&tables.url()).unwrap();
    let context = context.until_latest(true).build().unwrap();
    let stream = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(brokers)).unwrap();
    outputs(&stream, kind);
    context.start().await?;
    context.await_termination().await.map(drop)
}

/// The first eight records are taken; of the next five one too many, or one that is too large, is refused with all its batch.
async fn ends_with_6(tables: Tables, kind: Outputs, (table, query): (&str, &str)) {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(2).await;
    tables
        .execute(
            "CREATE TABLE totals (name text NOT NULL PRIMARY KEY, n bigint NOT NULL CHECK (n < 10)); \
             CREATE TABLE one (n text); CREATE TABLE other (n text CHECK (n <> '10'))",
        )
        .await;
    let produce = async |numbers: std::ops::Range<i32>| {
        kafka.produce(&topic, numbers.map(|n| record(n.to_string()).partition(0)).collect()).await;
    };
    produce(0..8).await;
    run(kafka.brokers(), &topic, &tables, kind).await.unwrap();
    produce(8..13).await;
    let error = run(kafka.brokers(), &topic, &tables, kind).await.unwrap_err();
    let told = error.chain();
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Transform, 6), "{told}");
    // Which record it is the database does not say. Only one partition had any, so that one is named.
    assert!(told.contains(&format!("table={table}")) && told.contains(&topic), "{told}");
    let range = error.offset_range().unwrap();
    assert_eq!((range.partition(), range.from_offset.get(), range.until_offset.get()), (0, 8, 13));
    let stored: Vec<(i64,)> = tables.rows(query.to_owned()).await.unwrap();
    assert_eq!((stored, tables.committed().await), (vec![(8,)], Some(8)));
    let letters: Vec<(i64,)> =
        tables.rows(format!("SELECT count(*) FROM {}", tables.own("dead_letters"))).await.unwrap();
    assert_eq!(letters, [(0,)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregated_row_that_the_database_refuses_ends_the_stream_with_6() {
    for tables in [Tables::postgres().await, Tables::sqlite()] {
        ends_with_6(tables, Outputs::Aggregated, ("totals", "SELECT n FROM totals")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_of_two_outputs_with_dead_letters_ends_the_stream_with_6() {
    for tables in [Tables::postgres().await, Tables::sqlite()] {
        let query = "SELECT min(c) FROM (SELECT count(*) AS c FROM one UNION ALL SELECT count(*) FROM other) counts";
        ends_with_6(tables, Outputs::Two, ("other", query)).await;
    }
}
