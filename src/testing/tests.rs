//! The kit tries itself, and whole streams with it: no server, and nobody sleeps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{Collected, MemoryBroker, ProducerRecord, RddQueue, TestContext};
use crate::{
    Error, ErrorKind, Offset, Record,
    clock::Clock,
    stream::StreamingContextBuilder,
    transform::{DStream, InputFormat, OnError, Upsert},
    types::{Column, ColumnSource, ColumnType, Merge, TableSpec, WriteMode},
};

const SECOND: Duration = Duration::from_secs(1);

fn broker(topic: &str, partitions: i32) -> MemoryBroker {
    let broker = MemoryBroker::new();
    broker.create_topic(topic, partitions).unwrap();
    broker
}

fn words(lines: &DStream<Record>) -> DStream<(String, i64)> {
    let words = lines.flat_map(|line| line.text().unwrap().split(' ').map(str::to_owned).collect::<Vec<_>>());
    words.map(|word| (word, 1))
}

/// The words of all lines in a table, added up.
fn count_words(context: &TestContext, broker: &MemoryBroker) {
    let counts = words(&context.memory_stream(broker, ["lines"]).unwrap()).reduce_by_key(|a, b| a + b);
    let table = Upsert::into("words").key("word").of_type(ColumnType::Text);
    counts.save_to_table(table.add("count").of_type(ColumnType::BigInt).create()).unwrap();
}

async fn counted(context: &TestContext) -> Vec<String> {
    context.store().rows("SELECT word, count FROM words ORDER BY word").await.unwrap()
}

fn times<T: Clone>(collected: &Collected<T>) -> Vec<i64> {
    collected.batches().iter().map(|(time, _)| time.as_ms()).collect()
}

fn named(pairs: &[(&str, i64)]) -> Vec<(String, i64)> {
    pairs.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
}

#[tokio::test]
async fn a_window_counts_the_words_of_its_intervals() {
    let broker = broker("lines", 2);
    let context = TestContext::new("windows", SECOND).unwrap();
    let lines = context.memory_stream(&broker, ["lines"]).unwrap();
    let counts = Collected::new();
    words(&lines).reduce_by_key_and_window(|a, b| a + b, 2 * SECOND, SECOND).unwrap().collect_into(&counts);
    for line in ["a b a", "b", "c"] {
        broker.send(("lines", line)).unwrap();
        assert_eq!(context.run_batch().await.unwrap(), 1);
    }
    let expected = [&[("a", 2), ("b", 1)][..], &[("a", 2), ("b", 2)], &[("b", 1), ("c", 1)]];
    assert_eq!(counts.sorted(), expected.map(named));
    assert_eq!(times(&counts), [1000, 2000, 3000]);
    // The window slides on over intervals without records, until nothing is left in it.
    assert_eq!(context.run_batches(4).await.unwrap(), 2);
    assert_eq!(counts.sorted()[3..], [named(&[("c", 1)]), named(&[])]);
}

#[tokio::test]
async fn a_restart_on_the_same_store_gives_the_same_totals() {
    let broker = broker("lines", 3);
    let whole = TestContext::new("words", SECOND).unwrap();
    count_words(&whole, &broker);
    let mut parts = TestContext::new("words", SECOND).unwrap();
    count_words(&parts, &broker);
    for line in ["to be", "or not", "to be", "that is", "the question"] {
        broker.send(("lines", line)).unwrap();
        whole.run_batch().await.unwrap();
        parts.run_batch().await.unwrap();
        parts = parts.restart().await.unwrap();
        count_words(&parts, &broker);
    }
    // Nothing is left over, and nothing is read again.
    assert_eq!(parts.run_batch().await.unwrap(), 0);
    let expected = ["be|2", "is|1", "not|1", "or|1", "question|1", "that|1", "the|1", "to|2"];
    assert_eq!(
        (counted(&whole).await, counted(&parts).await),
        (expected.map(str::to_owned).to_vec(), counted(&whole).await)
    );
    let batches = "SELECT batch_seq, batch_time FROM directstream_batches ORDER BY 1";
    assert_eq!(parts.store().rows(batches).await.unwrap(), whole.store().rows(batches).await.unwrap());
}

#[tokio::test]
async fn sc_16_a_restart_goes_on_at_the_time_of_the_last_batch_and_where_the_clock_is_moved_to() {
    let (broker, seen) = (broker("t", 1), Collected::new());
    let build = |context: &TestContext| {
        context.memory_stream(&broker, ["t"]).unwrap().map(|r| r.text().unwrap().to_owned()).collect_into(&seen);
    };
    let context = TestContext::new("jump", SECOND).unwrap();
    build(&context);
    broker.send(("t", "a")).unwrap();
    context.run_batches(3).await.unwrap();
    let context = context.restart().await.unwrap();
    build(&context);
    assert_eq!(context.clock().now_ms(), 3000);
    context.clock().advance(4 * SECOND);
    broker.send(("t", "b")).unwrap();
    context.run_batch().await.unwrap();
    assert_eq!((times(&seen), seen.all()), (vec![1000, 7000], vec!["a".to_owned(), "b".to_owned()]));
}

#[tokio::test]
async fn an_error_in_user_code_ends_the_stream_and_the_call() {
    for panics in [false, true] {
        let broker = broker("t", 1);
        let context = TestContext::new("failing", SECOND).unwrap();
        context.memory_stream(&broker, ["t"]).unwrap().foreach_rdd(move |rdd| match rdd.is_empty()? {
            true => Ok(()),
            false if panics => panic!("no good"),
            false => Err(Error::transform("no good")),
        });
        assert_eq!(context.run_batch().await.unwrap(), 0);
        broker.send(("t", "x")).unwrap();
        // Whoever asks again is told the same.
        for _ in 0..2 {
            let error = context.run_batch().await.unwrap_err();
            assert!(error.kind() == ErrorKind::Transform && error.chain().contains("no good"), "{error:?}");
        }
        let offset = "SELECT until_offset FROM directstream_offsets";
        assert_eq!(context.store().rows(offset).await.unwrap(), ["0"]);
    }
}

#[tokio::test]
async fn nothing_to_read_is_no_batch() {
    let broker = broker("lines", 1);
    let context = TestContext::new("idle", SECOND).unwrap();
    count_words(&context, &broker);
    assert_eq!(context.run_batches(5).await.unwrap(), 0);
    assert_eq!(context.clock().now_ms(), 5000);
    context.stop().await.unwrap();
    let error = context.run_batch().await.unwrap_err();
    assert_eq!((error.kind(), context.clock().now_ms()), (ErrorKind::Config, 5000));
}

#[tokio::test]
async fn offsets_without_a_record_are_gone_over_and_deleted_ones_end_the_stream() {
    let (broker, seen) = (broker("t", 1), Collected::new());
    let context = TestContext::new("gaps", SECOND).unwrap();
    context.memory_stream(&broker, ["t"]).unwrap().map(|record| record.offset().get()).collect_into(&seen);
    broker.send(("t", "0")).unwrap();
    broker.send_gap("t", 0, 5).unwrap();
    broker.send(("t", "6")).unwrap();
    broker.send_gap("t", 0, 1).unwrap();
    context.run_batch().await.unwrap();
    assert_eq!(seen.values(), [[0, 6]]);
    let ledger = "SELECT records, gaps FROM directstream_batches";
    assert_eq!(context.store().rows(ledger).await.unwrap(), ["2|6"]);
    for n in ["8", "9", "10"] {
        broker.send(("t", n)).unwrap();
    }
    broker.delete_records("t", 0, Offset::clamped(10)).unwrap();
    assert_eq!(context.run_batch().await.unwrap_err().kind(), ErrorKind::OffsetsLost);
}

#[tokio::test]
async fn partitions_that_join_and_a_broker_that_was_away_lose_nothing() {
    let (broker, seen) = (broker("t", 1), Collected::new());
    let context = TestContext::new("joins", SECOND).unwrap();
    context.memory_stream(&broker, ["t"]).unwrap().map(|r| (r.partition(), r.offset().get())).collect_into(&seen);
    let to = |partition| broker.send(ProducerRecord::new("t", "x").partition(partition)).unwrap();
    to(0);
    context.run_batch().await.unwrap();
    broker.create_topic("t", 3).unwrap();
    to(2);
    broker.set_away(true);
    assert_eq!(context.run_batches(2).await.unwrap(), 0);
    broker.set_away(false);
    to(0);
    assert_eq!(context.run_batch().await.unwrap(), 1);
    assert_eq!(seen.values(), [vec![(0, 0)], vec![(0, 1), (2, 0)]]);
    // Away for longer than the stream waits.
    broker.set_away(true);
    context.clock().advance(3600 * SECOND);
    let mut ended = context.run_batch().await;
    while ended.is_ok() && context.clock().now_ms() < 7_300_000 {
        context.clock().advance(600 * SECOND);
        ended = context.run_batch().await;
    }
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn what_fails_for_a_passing_reason_is_tried_again_within_the_call() {
    let (broker, tries) = (broker("t", 1), Arc::new(AtomicU32::new(0)));
    let context = TestContext::new("passing", SECOND).unwrap();
    let counted = Arc::clone(&tries);
    context.memory_stream(&broker, ["t"]).unwrap().foreach_rdd(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
        0..=2 => Err(Error::unavailable("not yet")),
        _ => Ok(()),
    });
    broker.send(("t", "x")).unwrap();
    assert_eq!(context.run_batch().await.unwrap(), 1);
    assert_eq!(tries.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_record_that_the_database_refuses_becomes_a_dead_letter_within_the_call() {
    let broker = broker("t", 1);
    let context = TestContext::new("letters", SECOND).unwrap();
    context.store().execute("CREATE TABLE words (word TEXT CHECK (word <> 'bad'))").await.unwrap();
    let (source, merge) = (Some(ColumnSource::Value), Merge::default());
    let columns = vec![Column { name: "word".to_owned(), source, column_type: None, merge }];
    let (table, mode) = ("words".parse().unwrap(), WriteMode::Append);
    let table = TableSpec { table, mode, key: Vec::new(), create: false, columns };
    let records = context.memory_stream(&broker, ["t"]).unwrap();
    records.save_records(InputFormat::Text, OnError::DeadLetter, vec![table]);
    for word in ["good", "bad", "better"] {
        broker.send(("t", word)).unwrap();
    }
    assert_eq!(context.run_batch().await.unwrap(), 1);
    assert_eq!(context.store().rows("SELECT word FROM words").await.unwrap(), ["good", "better"]);
    let letters = "SELECT \"offset\" FROM directstream_dead_letters";
    assert_eq!(context.store().rows(letters).await.unwrap(), ["1"]);
}

#[tokio::test]
async fn cp_32_a_checkpoint_folder_has_no_past_for_a_queue_either() {
    let (folder, queue, seen) = (tempfile::tempdir().unwrap(), RddQueue::new(), Collected::new());
    let url = format!("checkpoint:{}", folder.path().join("checkpoint").display());
    let build = |context: &TestContext| context.queue_stream(&queue, false).unwrap().collect_into(&seen);
    let on_folder = move |builder: StreamingContextBuilder| builder.store(&url).unwrap();
    let context = TestContext::configured("queue", SECOND, on_folder).unwrap();
    build(&context);
    queue.push([1, 2]);
    assert_eq!(context.run_batches(2).await.unwrap(), 1);
    let context = context.restart().await.unwrap();
    build(&context);
    let error = context.run_batch().await.unwrap_err();
    assert!(error.to_string().contains("queueStream doesn't support checkpointing"), "{error}");
    assert_eq!((error.kind(), seen.values()), (ErrorKind::Config, vec![vec![1, 2]]));
}

/// What a queue's batches give, and their times.
async fn queued(one_at_a_time: bool, filled: &[&[i32]], intervals: u32) -> (Vec<Vec<i32>>, Vec<i64>) {
    let (queue, seen) = (RddQueue::new(), Collected::new());
    let context = TestContext::new("queue", SECOND).unwrap();
    context.queue_stream(&queue, one_at_a_time).unwrap().collect_into(&seen);
    filled.iter().for_each(|items| queue.push(items.iter().copied()));
    context.run_batches(intervals).await.unwrap();
    assert_eq!(queue.is_empty(), seen.all().len() == filled.concat().len());
    (seen.values(), times(&seen))
}

#[tokio::test]
async fn tr_32_a_queue_gives_one_item_per_batch_or_all_that_are_there() {
    let filled: [&[i32]; 3] = [&[1], &[2, 3], &[4]];
    let (values, times) = queued(true, &filled, 5).await;
    assert_eq!((values, times), (vec![vec![1], vec![2, 3], vec![4]], vec![1000, 2000, 3000]));
    assert_eq!(queued(false, &filled, 5).await, (vec![vec![1, 2, 3, 4]], vec![1000]));
    assert_eq!(queued(true, &filled, 2).await.0, [vec![1], vec![2, 3]]);
}

#[tokio::test]
async fn tr_32_two_items_pushed_per_interval_come_one_per_batch_and_none_is_lost() {
    let (queue, seen) = (RddQueue::new(), Collected::new());
    let context = TestContext::new("queue", SECOND).unwrap();
    context.queue_stream(&queue, true).unwrap().collect_into(&seen);
    for n in 1..=5 {
        queue.push([n]);
        queue.push([n + 100]);
        context.run_batch().await.unwrap();
    }
    assert_eq!((seen.all(), queue.len()), (vec![1, 101, 2, 102, 3], 5));
    context.run_batches(5).await.unwrap();
    assert_eq!((seen.all()[5..].to_vec(), queue.len()), (vec![103, 4, 104, 5, 105], 0));
}

#[tokio::test]
async fn a_batch_of_a_queue_that_fails_has_the_same_items_again() {
    let (queue, seen, failed) = (RddQueue::new(), Collected::new(), Arc::new(AtomicBool::new(false)));
    let context = TestContext::new("again", SECOND).unwrap();
    let stream = context.queue_stream(&queue, true).unwrap();
    stream.collect_into(&seen);
    let once = Arc::clone(&failed);
    stream.foreach_rdd(move |_| match once.swap(true, Ordering::SeqCst) {
        false => Err(Error::unavailable("once")),
        true => Ok(()),
    });
    queue.push(["a"]);
    queue.push(["b"]);
    assert_eq!(context.run_batch().await.unwrap(), 1);
    assert_eq!((seen.values(), queue.len(), failed.load(Ordering::SeqCst)), (vec![vec!["a"]], 1, true));
}

#[tokio::test]
async fn a_queue_joins_kafkas_records_and_its_windows_live_in_memory() {
    let (broker, queue, seen) = (broker("t", 1), RddQueue::new(), Collected::new());
    let context = TestContext::new("both", SECOND).unwrap();
    let records = context.memory_stream(&broker, ["t"]).unwrap().map(|record| record.text().unwrap().to_owned());
    let both = records.union(&context.queue_stream(&queue, true).unwrap());
    both.window(2 * SECOND, SECOND).unwrap().collect_into(&seen);
    queue.push(["q".to_owned()]);
    context.run_batch().await.unwrap();
    broker.send(("t", "k")).unwrap();
    context.run_batches(4).await.unwrap();
    let text: Vec<_> = seen.sorted().iter().map(|items| items.join(" ")).collect();
    assert_eq!(text, ["q", "k q", "k", ""]);
}

#[tokio::test]
async fn cp_32_an_application_with_committed_batches_cannot_go_on_with_a_queue() {
    let queue = RddQueue::new();
    let build = |context: &TestContext| context.queue_stream(&queue, true).unwrap().collect_into(&Collected::new());
    let context = TestContext::new("queue", SECOND).unwrap();
    build(&context);
    // Nothing is committed yet: it may begin again.
    assert_eq!(context.run_batch().await.unwrap(), 0);
    let context = context.restart().await.unwrap();
    build(&context);
    queue.push([1]);
    assert_eq!(context.run_batch().await.unwrap(), 1);
    let epoch = "SELECT epoch FROM directstream_applications";
    let before = context.store().rows(epoch).await.unwrap();
    let context = context.restart().await.unwrap();
    build(&context);
    let error = context.run_batch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("queueStream doesn't support checkpointing"), "{error}");
    // It was not even taken over.
    assert_eq!(context.store().rows(epoch).await.unwrap(), before);
}

#[tokio::test]
async fn tr_38_batches_have_the_times_of_the_grid_and_streams_only_those_of_their_slide() {
    let (broker, all, some) = (broker("t", 1), Collected::new(), Collected::new());
    let context = TestContext::new("grid", SECOND).unwrap();
    let records = context.memory_stream(&broker, ["t"]).unwrap().map(|record| record.offset().get());
    records.collect_into(&all);
    records.window(4 * SECOND, 2 * SECOND).unwrap().collect_into(&some);
    for _ in 0..5 {
        broker.send(("t", "x")).unwrap();
        context.run_batch().await.unwrap();
    }
    assert_eq!(times(&all), [1000, 2000, 3000, 4000, 5000]);
    assert_eq!(times(&some), [2000, 4000]);
    assert_eq!(some.values(), [vec![0, 1], vec![0, 1, 2, 3]]);
}

#[test]
fn what_no_broker_would_do_is_refused() {
    let broker = broker("t", 2);
    let config = [
        broker.send(("u", "x")).unwrap_err(),
        broker.send(ProducerRecord::new("t", "x").partition(2)).unwrap_err(),
        broker.create_topic("t", 1).unwrap_err(),
        broker.create_topic("u", 0).unwrap_err(),
        broker.delete_topic("u").unwrap_err(),
        TestContext::new("a", SECOND).unwrap().memory_stream(&broker, ["t", "u"]).unwrap_err(),
    ];
    assert!(config.iter().all(|error| error.kind() == ErrorKind::Config), "{config:?}");
}

#[tokio::test]
async fn a_topic_that_is_created_again_has_lost_the_offsets() {
    let broker = broker("lines", 1);
    let context = TestContext::new("again", SECOND).unwrap();
    count_words(&context, &broker);
    broker.send(("lines", "a")).unwrap();
    context.run_batch().await.unwrap();
    broker.delete_topic("lines").unwrap();
    broker.create_topic("lines", 1).unwrap();
    assert_eq!(context.run_batch().await.unwrap_err().kind(), ErrorKind::OffsetsLost);
}
