//! The operations against Spark's own examples, over records in memory. The ids are those of the behaviour list in
//! `docs/conformance.md`.

mod actions;
mod joins;
mod keyed;
mod partitions;
mod properties;
mod streams;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::types::{
    BatchInfo, BatchTime, Chunk, Column, ColumnShape, ColumnSource, ColumnType, Compute, Field, Flow, MemoryChunk,
    MemoryRecord, Merge, Offset, OffsetRange, Record, RowReader, ShuffleStage, TableSpec, Task, TopicPartition,
    WriteMode,
};

/// A topic in memory: partition `i` holds the values `partitions[i]`.
struct MemoryTopic {
    chunks: Vec<Arc<Chunk>>,
}

impl Compute<Record> for MemoryTopic {
    fn partitions(&self) -> usize {
        self.chunks.len()
    }

    fn compute(&self, partition: usize, _task: &Task, each: &mut dyn FnMut(Record) -> Flow) -> Flow {
        for record in self.chunks[partition].records() {
            each(record)?;
        }
        Flow::Continue(())
    }

    fn shuffles(&self) -> Vec<Arc<dyn ShuffleStage>> {
        Vec::new()
    }
}

/// A batch in memory.
pub(super) struct Batch {
    pub(super) task: Task,
    pub(super) inputs: Vec<Input>,
}

pub(super) fn scope(partitions: &[&[&str]]) -> BatchScope {
    scope_of(&[partitions])
}

pub(super) fn batch(batch_seq: u64, time_ms: i64, partitions: &[&[&str]]) -> Batch {
    let input = input(partitions);
    let batch = BatchInfo { batch_seq, batch_time: BatchTime::from_ms(time_ms), ranges: Arc::clone(&input.ranges) };
    Batch { task: Task::new(batch), inputs: vec![input] }
}

/// A batch of several direct streams.
fn scope_of(inputs: &[&[&[&str]]]) -> BatchScope {
    let inputs: Vec<Input> = inputs.iter().map(|partitions| input(partitions)).collect();
    let ranges = inputs.iter().flat_map(|input| input.ranges.to_vec()).collect();
    let batch = BatchInfo { batch_seq: 1, batch_time: BatchTime::from_ms(1000), ranges };
    BatchScope::new(Task::new(batch), Arc::new(LocalRunner::new(2)), inputs)
}

fn input(partitions: &[&[&str]]) -> Input {
    let mut ranges = Vec::new();
    let mut chunks = Vec::new();
    for (partition, values) in (0..).zip(partitions) {
        let topic_partition = TopicPartition::new("t", partition);
        let until = Offset::ZERO.advanced_by(values.len() as u64);
        ranges.push(OffsetRange::new(topic_partition.clone(), Offset::ZERO, until));
        let records = (0..).zip(*values).map(|(offset, value)| MemoryRecord {
            offset: Offset::ZERO.advanced_by(offset),
            value: Some(value.as_bytes().to_vec()),
            ..MemoryRecord::default()
        });
        chunks.push(Arc::new(Chunk::Memory(MemoryChunk { topic_partition, records: records.collect() })));
    }
    Input { records: Arc::new(MemoryTopic { chunks }), ranges: ranges.into() }
}

fn texts(graph: &Graph) -> DStream<String> {
    DirectKafkaInputDStream::new(graph).map(|record| record.text().unwrap_or_default().to_owned())
}

fn numbers(graph: &Graph) -> DStream<i64> {
    texts(graph).map(|text| text.parse().unwrap_or_default())
}

/// What a batch has, in the order of partitions.
fn collected<T: Send + 'static>(stream: &DStream<T>, scope: &BatchScope) -> Vec<T> {
    stream.rdd(scope).unwrap().collect().unwrap()
}

fn sorted<T: Ord + Send + 'static>(stream: &DStream<T>, scope: &BatchScope) -> Vec<T> {
    let mut items = collected(stream, scope);
    items.sort_unstable();
    items
}

/// Words in two partitions, as Spark's suites have them: `[a, a, b]`, `["", ""]`, `[]`.
fn word_batches() -> [BatchScope; 3] {
    [scope(&[&["a", "a"], &["b"]]), scope(&[&[""], &[""]]), scope(&[&[], &[]])]
}

/// A key as the words' streams have it.
fn key<V>(word: &str, value: V) -> (String, V) {
    (word.to_owned(), value)
}

#[test]
fn tr_01_to_05_narrow_operations() {
    let (graph, scope) = (Graph::default(), scope(&[&["1", "2"], &["3", "4"]]));
    let input = numbers(&graph);
    let collect = |stream: DStream<i64>| stream.rdd(&scope).unwrap().collect().unwrap();
    assert_eq!(collect(input.flat_map(|x| [x, x * 2])), [1, 2, 2, 4, 3, 6, 4, 8]);
    assert_eq!(collect(input.filter(|x| x % 2 == 0)), [2, 4]);
    assert_eq!(collect(input.map_partitions(|items| [items.iter().sum::<i64>()])), [3, 7]);
    assert_eq!(input.map(|x| x.to_string()).rdd(&scope).unwrap().collect().unwrap(), ["1", "2", "3", "4"]);
}

#[test]
fn tr_08_reduce_by_key_takes_the_empty_string_and_an_empty_batch() {
    let graph = Graph::default();
    let pairs = texts(&graph).map(|word| (word, 1)).reduce_by_key(|a, b| a + b);
    assert_eq!(sorted(&pairs, &scope(&[&["a", "a"], &["b"]])), [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    assert_eq!(sorted(&pairs, &scope(&[&["", ""]])), [(String::new(), 2)]);
    assert_eq!(sorted(&pairs, &scope(&[&[], &[]])), []);
}

#[test]
fn emit_by_key_gives_what_flat_map_and_reduce_by_key_give() {
    let words =
        |record: Record| -> Vec<String> { record.text().unwrap_or_default().split(' ').map(str::to_owned).collect() };
    let batches: [&[&[&str]]; 4] =
        [&[&["a b a", "c"], &["b  ", ""], &["a"]], &[&[], &[]], &[], &[&["d e f g h i j k l m n o p q r s t u v"; 50]]];
    for batch in batches {
        let (graph, batch) = (Graph::default(), scope(batch));
        let input = DirectKafkaInputDStream::new(&graph);
        let two_steps = input.flat_map(words).map(|word| (word, 1_i64)).reduce_by_key(|a, b| a + b);
        let one_step: DStream<(String, i64)> = input.emit_by_key(
            |record, emit| record.text().unwrap_or_default().split(' ').for_each(|word| emit(word, 1)),
            |a, b| a + b,
        );
        assert_eq!(sorted(&one_step, &batch), sorted(&two_steps, &batch));
    }
}

#[test]
fn emit_by_key_combines_in_the_order_in_which_pairs_are_emitted() {
    // More pairs an element than are looked up together, of two keys in turns.
    let line = (0..50).map(|n| format!("{n},")).collect::<Vec<_>>().join(" ");
    let (graph, batch) = (Graph::default(), scope(&[&[&line, &line], &[&line]]));
    let joined: DStream<(String, String)> = DirectKafkaInputDStream::new(&graph).emit_by_key(
        |record, emit| {
            let words = record.text().unwrap_or_default().split(' ').enumerate();
            words.for_each(|(n, word)| emit(if n % 2 == 0 { "even" } else { "odd" }, word.to_owned()));
        },
        |before, later| before + &later,
    );
    let of = |first: usize| (first..50).step_by(2).map(|n| format!("{n},")).collect::<String>().repeat(3);
    assert_eq!(sorted(&joined, &batch), [("even".to_owned(), of(0)), ("odd".to_owned(), of(1))]);
}

#[test]
fn values_are_combined_in_the_order_of_partitions_and_never_copied_on_the_way() {
    static COPIES: AtomicUsize = AtomicUsize::new(0);
    struct Text(String);
    impl Clone for Text {
        fn clone(&self) -> Self {
            COPIES.fetch_add(1, Ordering::Relaxed);
            Self(self.0.clone())
        }
    }
    // Joining text is not commutative, and a copy per step would make it quadratic.
    let values: Vec<String> = (0..300).map(|n| format!("{n} ")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let partitions: Vec<&[&str]> = values.chunks(100).collect();
    let (graph, batch) = (Graph::default(), scope(&partitions));
    let joined = texts(&graph).map(|text| ((), Text(text))).reduce_by_key(|mut a, b| {
        a.0.push_str(&b.0);
        a
    });
    let joined = joined.rdd(&batch).unwrap().collect().unwrap();
    assert_eq!(joined.into_iter().map(|((), text)| text.0).collect::<Vec<_>>(), [values.concat()]);
    let copies = COPIES.load(Ordering::Relaxed);
    assert!(copies <= partitions.len(), "{copies} copies");
}

#[test]
fn tr_09_and_11_reduce_and_count() {
    let (graph, batch) = (Graph::default(), scope(&[&["1", "2"], &[], &["3"]]));
    let input = numbers(&graph);
    assert_eq!(input.rdd(&batch).unwrap().reduce(|a, b| a + b).unwrap(), Some(6));
    assert_eq!(input.count().rdd(&batch).unwrap().collect().unwrap(), [3]);
    let empty = scope(&[]);
    assert_eq!(input.rdd(&empty).unwrap().reduce(|a, b| a + b).unwrap(), None);
    assert_eq!(input.count().rdd(&empty).unwrap().collect().unwrap(), [0]);
}

#[test]
fn dk_28_take_reads_partitions_in_order_and_no_more_than_it_needs() {
    let (graph, batch) = (Graph::default(), scope(&[&[], &["1", "2"], &["3", "4", "5", "6", "7"]]));
    let seen = Arc::new(Mutex::new(0));
    let counting = {
        let seen = Arc::clone(&seen);
        numbers(&graph).map(move |x| {
            *seen.lock().unwrap() += 1;
            x
        })
    };
    let rdd = counting.rdd(&batch).unwrap();
    assert_eq!(rdd.take(4).unwrap(), [1, 2, 3, 4]);
    assert_eq!(*seen.lock().unwrap(), 4);
    assert_eq!(rdd.take(14).unwrap().len(), 7);
    assert_eq!(rdd.take(0).unwrap(), [] as [i64; 0]);
}

#[test]
fn union_keeps_both_streams_partitions() {
    let (graph, batch) = (Graph::default(), scope(&[&["1"], &["2"]]));
    let input = numbers(&graph);
    let both = input.union(&input.map(|x| x * 10));
    assert_eq!(both.rdd(&batch).unwrap().partitions(), 4);
    assert_eq!(both.rdd(&batch).unwrap().collect().unwrap(), [1, 2, 10, 20]);
    assert!(!graph.reads_once(), "a stream that is used twice is read once only if its chunks are kept");
}

#[test]
fn a_shuffle_that_two_outputs_need_runs_once() {
    let (graph, batch) = (Graph::default(), scope(&[&["a", "b"], &["a"]]));
    let runs = Arc::new(Mutex::new(0));
    let mapped = {
        let runs = Arc::clone(&runs);
        texts(&graph).map(move |word| {
            *runs.lock().unwrap() += 1;
            (word, 1)
        })
    };
    let counts = mapped.reduce_by_key(|a, b| a + b);
    assert_eq!(counts.map(|(word, _)| word).rdd(&batch).unwrap().count().unwrap(), 2);
    assert_eq!(counts.map(|(_, count)| count).rdd(&batch).unwrap().reduce(|a, b| a + b).unwrap(), Some(3));
    assert_eq!(*runs.lock().unwrap(), 3);
}

#[test]
fn a_failing_function_fails_the_task_and_so_does_a_panic() {
    let (graph, batch) = (Graph::default(), scope(&[&["1", "x"]]));
    let parsed = texts(&graph).try_map(|text| text.parse::<i64>().map_err(|_| crate::Error::transform("not a number")));
    assert_eq!(parsed.rdd(&batch).unwrap().count().unwrap_err().kind(), crate::ErrorKind::Transform);
    let panicking = texts(&Graph::default()).map(|text| text.parse::<i64>().unwrap());
    assert_eq!(panicking.rdd(&batch).unwrap().count().unwrap_err().kind(), crate::ErrorKind::Transform);
}

fn column(name: &str, source: ColumnSource, column_type: ColumnType, merge: Merge) -> Column {
    Column { name: name.into(), source: Some(source), column_type: Some(column_type), merge }
}

fn value(pointer: &str) -> ColumnSource {
    ColumnSource::ValuePointer(pointer.into())
}

fn table(name: &str, mode: WriteMode, key: &[&str], columns: Vec<Column>) -> TableSpec {
    let key = key.iter().map(|key| (*key).to_owned()).collect();
    TableSpec { table: name.parse().unwrap(), mode, key, create: true, columns }
}

fn prepare(graph: &Graph, scope: &BatchScope) -> crate::Result<(Prepared, Vec<Vec<Vec<Field<'static>>>>)> {
    let [Output::Transactional(output)] = &graph.outputs()[..] else { panic!("one output") };
    let shape = |column: &Column| ColumnShape { column_type: column.column_type.unwrap(), not_null: false };
    let tables: Vec<Vec<ColumnShape>> =
        output.tables().iter().map(|table| table.columns.iter().map(shape).collect()).collect();
    let types: Vec<Vec<ColumnType>> =
        tables.iter().map(|table| table.iter().map(|column| column.column_type).collect()).collect();
    let prepared = output.prepare(scope, &tables)?;
    let rows = prepared.tables.iter().map(|table| {
        let rows = table.chunks.iter().flat_map(|chunk| RowReader::new(&types[table.table], chunk));
        rows.map(|row| row.into_iter().map(Field::into_owned).collect()).collect()
    });
    let rows = rows.collect();
    Ok((prepared, rows))
}

#[test]
fn one_pass_over_records_fills_append_and_running_sum_tables() {
    let graph = Graph::default();
    let batch =
        scope(&[&[r#"{"id":1,"user":"a","n":2}"#, r#"{"id":2,"user":"b","n":3}"#], &[r#"{"id":3,"user":"a","n":5}"#]]);
    let append = vec![
        column("id", value("/id"), ColumnType::BigInt, Merge::Last),
        column("at", ColumnSource::Offset, ColumnType::BigInt, Merge::Last),
    ];
    let sums = vec![
        column("who", value("/user"), ColumnType::Text, Merge::Last),
        column("total", value("/n"), ColumnType::BigInt, Merge::Add),
        column("records", ColumnSource::One, ColumnType::BigInt, Merge::Add),
    ];
    let tables = vec![table("all", WriteMode::Append, &[], append), table("sums", WriteMode::Upsert, &["who"], sums)];
    DirectKafkaInputDStream::new(&graph).save_records(InputFormat::Json, OnError::Fail, tables);
    assert!(graph.reads_once());
    let (_, rows) = prepare(&graph, &batch).unwrap();
    let int = Field::Integer;
    assert_eq!(rows[0], [vec![int(1), int(0)], vec![int(2), int(1)], vec![int(3), int(0)]]);
    assert_eq!(rows[1], [vec![Field::Text("a".into()), int(7), int(2)], vec![Field::Text("b".into()), int(3), int(1)]]);
}

#[test]
fn a_record_that_one_table_cannot_take_goes_into_none() {
    let graph = Graph::default();
    let batch = scope(&[&[r#"{"id":1}"#, r#"{"id":"x"}"#, "{", r#"{"id":70000}"#]]);
    let wide = vec![column("id", value("/id"), ColumnType::BigInt, Merge::Last)];
    let narrow = vec![column("id", value("/id"), ColumnType::SmallInt, Merge::Last)];
    let tables = vec![table("wide", WriteMode::Append, &[], wide), table("narrow", WriteMode::Append, &[], narrow)];
    DirectKafkaInputDStream::new(&graph).save_records(InputFormat::Json, OnError::DeadLetter, tables);
    let (prepared, rows) = prepare(&graph, &batch).unwrap();
    assert_eq!(rows, [[[Field::Integer(1)]], [[Field::Integer(1)]]]);
    let letters: Vec<_> =
        prepared.dead_letters.iter().map(|l| (l.offset.get(), l.output.as_deref(), l.reason.as_str())).collect();
    let expected = [
        (1, Some("wide"), "bigint cannot hold a string column=1"),
        (2, None, "the JSON ends early line=1 column=1"),
        (3, Some("narrow"), "the number is out of range for smallint column=1"),
    ];
    assert_eq!(letters, expected);
    assert_eq!(prepared.dead_letters[1].value.as_deref(), Some(&b"{"[..]));
}

#[test]
fn under_fail_the_error_names_topic_partition_and_offset_and_no_payload() {
    let graph = Graph::default();
    let columns = vec![column("id", value("/id"), ColumnType::BigInt, Merge::Last)];
    let tables = vec![table("t", WriteMode::Append, &[], columns)];
    DirectKafkaInputDStream::new(&graph).save_records(InputFormat::Json, OnError::Fail, tables);
    let error = prepare(&graph, &scope(&[&[r#"{"id":1}"#, r#"{"id":"secret"}"#]])).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Transform);
    let expected = "a record is refused: bigint cannot hold a string column=1 table=t offset=1 topic=t partition=0";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn save_to_table_merges_keys_over_partitions() {
    let graph = Graph::default();
    let upsert = Upsert::into("counts").key("word").of_type(ColumnType::Text).add("n").of_type(ColumnType::BigInt);
    texts(&graph).map(|word| (word, 1_i64)).save_to_table(upsert).unwrap();
    let (_, rows) = prepare(&graph, &scope(&[&["b", "a"], &["a"]])).unwrap();
    let row = |word: &'static str, n| vec![Field::Text(word.into()), Field::Integer(n)];
    assert_eq!(rows[0], [row("a", 2), row("b", 1)]);
}

#[test]
fn offset_ranges_belong_to_their_own_batch() {
    let graph = Graph::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let stream = DirectKafkaInputDStream::new(&graph);
    {
        let seen = Arc::clone(&seen);
        stream.foreach_direct_rdd(move |rdd| {
            assert_eq!(rdd.partitions(), rdd.offset_ranges().len());
            seen.lock().unwrap().push(rdd.offset_ranges().iter().map(OffsetRange::count).collect::<Vec<_>>());
            Ok(())
        });
    }
    let [Output::SideEffect(effect)] = &graph.outputs()[..] else { panic!("one output") };
    // The later batch runs first: each sees its own ranges all the same.
    let (earlier, later) = (scope(&[&["1"]]), scope(&[&["1", "2"], &[]]));
    effect.run(&later).unwrap();
    effect.run(&earlier).unwrap();
    assert_eq!(*seen.lock().unwrap(), [vec![2, 0], vec![1]]);
}
