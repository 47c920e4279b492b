//! A context from its making to its end: Spark's states, and what may be done in each of them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use directstream::{
    BatchTime, Error, ErrorKind, Offset, OffsetRange, Stage,
    report::{BatchProgress, StreamingListener},
    stream::{DirectStream, StreamingContext, StreamingContextState, Termination},
    transform::{Append, CanCommitOffsets, DirectKafkaInputDStream, HasOffsetRanges},
    types::ColumnType,
};

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};

use super::tables::Tables;
use crate::support::{Kafka, record, shared_kafka, unique, wait_until};

const INTERVAL: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(60);

/// A job that writes each record's offset.
fn job(kafka: &Kafka, tables: &Tables, topic: &str, until_latest: bool) -> (StreamingContext, DirectKafkaInputDStream) {
    let context = StreamingContext::builder("life", INTERVAL)
        .store(&tables.url())
        .unwrap()
        .until_latest(until_latest)
        .build()
        .unwrap();
    let stream = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(kafka.brokers())).unwrap();
    stream.map(|record| (record.offset().get(),)).save_to_table(offsets()).unwrap();
    (context, stream)
}

fn offsets() -> Append {
    Append::into("offs").typed_column("off", ColumnType::BigInt).create()
}

async fn topic(kafka: &Kafka, records: usize) -> String {
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, (0..records).map(|n| record(n.to_string())).collect()).await;
    topic
}

fn kind(error: &Error) -> (ErrorKind, String) {
    (error.kind(), error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn lc_01_02_12_13_a_context_is_initialized_active_and_stopped() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let topic = topic(&kafka, 10).await;
    let (context, stream) = job(&kafka, &tables, &topic, false);
    assert_eq!(context.state(), StreamingContextState::Initialized);
    let (error, text) = kind(&context.await_termination().await.unwrap_err());
    assert!(error == ErrorKind::Config && text.contains("was not started"), "{text}");
    context.start().await.unwrap();
    assert_eq!(context.state(), StreamingContextState::Active);
    // LC-02: a second start changes nothing.
    context.start().await.unwrap();
    assert_eq!(context.state(), StreamingContextState::Active);
    // LC-07: what is added now would not be run.
    let later = stream.map(|record| (record.offset().get(),)).save_to_table(offsets()).unwrap_err();
    assert!(later.to_string().contains("started"), "{later}");
    let another = context.direct_stream(DirectStream::topics(["other"])).unwrap_err();
    assert!(another.to_string().contains("started"), "{another}");
    // LC-13: for so long and no longer.
    assert_eq!(context.await_termination_or_timeout(Duration::from_millis(300)).await.unwrap(), None);
    wait_until("all is committed", LIMIT, async || tables.committed().await == Some(10)).await;
    // LC-12: whoever waits is told, and at once after the end.
    let waits = async || context.await_termination().await.unwrap();
    let stops = async {
        context.stop();
        context.stop();
        waits().await
    };
    let (one, other, third) = tokio::join!(waits(), waits(), stops);
    assert_eq!([one, other, third], [Termination::Stopped; 3]);
    assert_eq!(context.await_termination().await.unwrap(), Termination::Stopped);
    let within = context.await_termination_or_timeout(Duration::ZERO).await.unwrap();
    assert_eq!((within, context.state()), (Some(Termination::Stopped), StreamingContextState::Stopped));
    // LC-04: it does not start again.
    let (error, text) = kind(&context.start().await.unwrap_err());
    assert!(error == ErrorKind::Config && text.contains("already"), "{text}");
    assert_eq!(context.state(), StreamingContextState::Stopped);
    assert_eq!(tables.count("offs").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn lc_03_a_stop_before_the_start_is_no_error_and_the_end() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let topic = topic(&kafka, 1).await;
    let (context, stream) = job(&kafka, &tables, &topic, true);
    context.stop();
    context.stop();
    assert_eq!(context.state(), StreamingContextState::Stopped);
    assert_eq!(context.await_termination().await.unwrap(), Termination::Stopped);
    let later = stream.map(|record| (record.offset().get(),)).save_to_table(offsets()).unwrap_err();
    assert!(later.to_string().contains("stopped"), "{later}");
    assert_eq!(kind(&context.start().await.unwrap_err()).0, ErrorKind::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn lc_05_and_08_what_a_context_lacks_is_told_by_its_start() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let build = || StreamingContext::builder("life", INTERVAL).store(&tables.url()).unwrap().build().unwrap();
    let nothing_read = build();
    let (_, text) = kind(&nothing_read.start().await.unwrap_err());
    assert!(text.contains("has no stream"), "{text}");
    assert_eq!(nothing_read.state(), StreamingContextState::Stopped);
    // LC-14: whoever waits is told what the start was.
    assert_eq!(kind(&nothing_read.await_termination().await.unwrap_err()).1, text);
    let nothing_done = build();
    let servers = kafka.brokers();
    let stream = nothing_done.direct_stream(DirectStream::topics(["any"]).bootstrap_servers(servers)).unwrap();
    let _ = stream.map(|record| record.partition());
    let (_, text) = kind(&nothing_done.start().await.unwrap_err());
    assert!(text.contains("no output operation"), "{text}");
    // No store is the counterpart of no checkpoint directory.
    let (_, text) = kind(&StreamingContext::builder("life", INTERVAL).build().unwrap_err());
    assert!(text.contains("needs a store"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lc_14_an_error_of_user_code_reaches_every_waiter_with_its_place() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let topic = topic(&kafka, 10).await;
    let context = StreamingContext::builder("life", INTERVAL).store(&tables.url()).unwrap().build().unwrap();
    let stream = context.direct_stream(DirectStream::topics([&*topic]).bootstrap_servers(kafka.brokers())).unwrap();
    stream
        .try_map(|record| match record.offset().get() {
            7 => Err(Error::transform("the seventh is not wanted")),
            offset => Ok((offset,)),
        })
        .save_to_table(offsets())
        .unwrap();
    context.start().await.unwrap();
    let waits = async || context.await_termination().await.unwrap_err();
    let (one, other) = tokio::join!(waits(), waits());
    for error in [one, other, waits().await] {
        assert_eq!((error.kind(), error.stage()), (ErrorKind::Transform, Some(Stage::Transform)), "{error:?}");
        assert!(error.chain().contains("the seventh is not wanted"), "{}", error.chain());
    }
    assert_eq!(tables.count("offs").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lc_17_to_20_a_stop_right_after_the_start_returns_and_what_was_begun_is_whole() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let topic = topic(&kafka, 500).await;
    for round in 0..4 {
        let (context, _) = job(&kafka, &tables, &topic, round == 3);
        context.start().await.unwrap();
        if round < 3 {
            context.stop();
        }
        let ended = tokio::time::timeout(LIMIT, context.await_termination()).await.unwrap().unwrap();
        assert_eq!(ended, if round < 3 { Termination::Stopped } else { Termination::ReachedLatest });
        let (rows, committed) = (tables.count("offs").await, tables.committed().await);
        assert_eq!(Some(rows), committed, "round {round}");
    }
    assert_eq!(tables.count("offs").await, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn lc_27_a_stream_that_no_output_uses_does_no_harm() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let topic = topic(&kafka, 10).await;
    let (context, stream) = job(&kafka, &tables, &topic, true);
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let _ = stream.map(move |_| *count.lock().unwrap_or_else(PoisonError::into_inner) += 1);
    context.start().await.unwrap();
    assert_eq!(context.await_termination().await.unwrap(), Termination::ReachedLatest);
    assert_eq!((tables.count("offs").await, *asked.lock().unwrap()), (10, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn lc_11_the_active_context_of_an_application_is_found() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let topic = topic(&kafka, 10).await;
    let name = unique("active");
    let found = || {
        let builder = StreamingContext::builder(&name, INTERVAL).store(&tables.url()).unwrap();
        builder.get_or_create(|context| {
            let stream = DirectStream::topics([&*topic]).bootstrap_servers(kafka.brokers());
            let stream = context.direct_stream(stream)?;
            stream.map(|record| (record.offset().get(),)).save_to_table(offsets())
        })
    };
    let context = found().unwrap();
    context.start().await.unwrap();
    // Its store and its streams are those of the one that runs; nothing of the other is made.
    assert!(Arc::ptr_eq(&context, &found().unwrap()));
    wait_until("all is committed", LIMIT, async || tables.committed().await == Some(10)).await;
    context.stop();
    context.await_termination().await.unwrap();
    let later = found().unwrap();
    assert!(!Arc::ptr_eq(&context, &later));
    assert_eq!(later.state(), StreamingContextState::Initialized);
}

#[tokio::test(flavor = "multi_thread")]
async fn tr_31_slices_of_remembered_batches_also_after_a_restart() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let topic = topic(&kafka, 30).await;
    let job = || {
        // Five records a batch.
        let builder = StreamingContext::builder("slices", INTERVAL).store(&tables.url()).unwrap();
        let context = builder.until_latest(true).max_rate_per_partition(100).build().unwrap();
        let stream = DirectStream::topics([&*topic]).bootstrap_servers(kafka.brokers());
        let recorded = context.direct_stream(stream).unwrap().map(|record| (record.offset().get(),));
        recorded.save_to_table(offsets()).unwrap();
        (context, recorded.remember(Duration::from_secs(60)).unwrap())
    };
    let (first, until) = (BatchTime::from_ms(0), BatchTime::from_ms(i64::MAX));
    let (context, recent) = job();
    let error = recent.slice(first, until).unwrap_err();
    assert!(error.to_string().contains("has not been initialized"), "{error}");
    context.start().await.unwrap();
    context.await_termination().await.unwrap();
    let slices = recent.slice(first, until).unwrap();
    assert_eq!(slices.len(), 6);
    for ((time, rdd), number) in slices.iter().zip(0_i64..) {
        let expected: Vec<_> = (number * 5..number * 5 + 5).map(|offset| (offset,)).collect();
        assert_eq!(rdd.collect().unwrap(), expected);
        // Both ends are included.
        assert_eq!(recent.slice(*time, *time).unwrap().len(), 1);
    }
    let between = recent.slice(slices[1].0, slices[3].0).unwrap();
    assert_eq!(between.iter().map(|(time, _)| *time).collect::<Vec<_>>(), [slices[1].0, slices[2].0, slices[3].0]);
    // The next process remembers them too, and goes on.
    kafka.produce(&topic, (0..5).map(|n| record(n.to_string())).collect()).await;
    let (context, recent) = job();
    context.start().await.unwrap();
    context.await_termination().await.unwrap();
    let again = recent.slice(first, until).unwrap();
    assert_eq!(
        again.iter().take(6).map(|(time, _)| *time).collect::<Vec<_>>(),
        slices.iter().map(|(time, _)| *time).collect::<Vec<_>>()
    );
    let offsets: Vec<_> = again.iter().flat_map(|(_, rdd)| rdd.collect().unwrap()).collect();
    assert_eq!(offsets, (0..35).map(|offset| (offset,)).collect::<Vec<_>>());
}

/// What a listener was told: which event, how many records, and the delays.
type Told = (&'static str, u64, [Option<u64>; 3]);

struct Totals(Arc<Mutex<Vec<Told>>>);

impl Totals {
    fn note(&self, event: &'static str, batch: &BatchProgress) {
        let delays = [batch.scheduling_delay_ms(), batch.processing_delay_ms(), batch.total_delay_ms()];
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((event, batch.num_records(), delays));
        let streams: Vec<_> = batch.inputs.iter().map(|input| input.stream_id).collect();
        assert_eq!(streams, [0]);
    }
}

impl StreamingListener for Totals {
    fn on_batch_submitted(&mut self, batch: &BatchProgress) {
        self.note("submitted", batch);
    }

    fn on_batch_started(&mut self, batch: &BatchProgress) {
        self.note("started", batch);
    }

    fn on_batch_completed(&mut self, batch: &BatchProgress) {
        self.note("completed", batch);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dk_73_ui_02_all_three_events_of_a_batch_tell_its_records_and_what_is_known_of_its_times() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let topic = topic(&kafka, 16).await;
    let told = Arc::default();
    let builder = StreamingContext::builder("life", INTERVAL).store(&tables.url()).unwrap();
    let context = builder.until_latest(true).max_rate_per_partition(100).build().unwrap();
    let stream = context.direct_stream(DirectStream::topics([&*topic]).bootstrap_servers(kafka.brokers())).unwrap();
    stream.map(|record| (record.offset().get(),)).save_to_table(offsets()).unwrap();
    context.add_listener(Box::new(Totals(Arc::clone(&told)))).unwrap();
    context.start().await.unwrap();
    context.await_termination().await.unwrap();
    let count = || told.lock().unwrap_or_else(PoisonError::into_inner).len();
    wait_until("all is told", LIMIT, async || count() == 12).await;
    let told = told.lock().unwrap().clone();
    for (event, known) in [("submitted", 0), ("started", 1), ("completed", 3)] {
        let of: Vec<_> = told.iter().filter(|(of, ..)| *of == event).collect();
        assert_eq!(of.iter().map(|(_, records, _)| records).sum::<u64>(), 16, "{event}");
        for (_, _, delays) in of {
            assert_eq!(delays.iter().flatten().count(), known, "{event} {delays:?}");
        }
    }
}

/// What a group has committed for partition 0.
fn group_offset(kafka: &Kafka, group: &str, topic: &str) -> Option<i64> {
    let consumer: BaseConsumer = kafka.client().set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    let committed = consumer.committed_offsets(list, LIMIT).unwrap();
    committed.find_partition(topic, 0).and_then(|found| found.offset().to_raw()).filter(|offset| *offset >= 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn dk_67_dk_70_offsets_are_committed_to_a_group_with_the_next_batch_and_never_before_their_own() {
    let (kafka, tables) = (shared_kafka().await, Tables::sqlite());
    let (topic, group) = (topic(&kafka, 40).await, unique("group"));
    let builder = StreamingContext::builder("life", INTERVAL).store(&tables.url()).unwrap();
    // Four records a batch.
    let context = builder.max_rate_per_partition(80).build().unwrap();
    let stream = DirectStream::topics([&*topic]).bootstrap_servers(kafka.brokers()).group_id(&group);
    let stream = context.direct_stream(stream).unwrap();
    stream.map(|record| (record.offset().get(),)).save_to_table(offsets()).unwrap();
    let commits = stream.clone();
    stream.foreach_direct_rdd(move |rdd| {
        // What was queued before and is lower changes nothing.
        commits.commit_async(rdd.offset_ranges());
        let lower = rdd.offset_ranges().iter().map(|range| OffsetRange { until_offset: Offset::ZERO, ..range.clone() });
        commits.commit_async(&lower.collect::<Vec<_>>());
        Ok(())
    });
    context.start().await.unwrap();
    let look = async || {
        let (kafka, group, topic) = (kafka.clone(), group.clone(), topic.clone());
        let of_group = tokio::task::spawn_blocking(move || group_offset(&kafka, &group, &topic)).await.unwrap();
        // Looked at afterwards: the store is never behind the group.
        let stored = tables.committed().await;
        assert!(stored.is_none() || of_group <= stored, "{of_group:?} {stored:?}");
        of_group
    };
    wait_until("the group moves", LIMIT, async || look().await.is_some_and(|offset| offset > 0 && offset % 4 == 0))
        .await;
    wait_until("all is committed", LIMIT, async || tables.committed().await == Some(40)).await;
    context.stop();
    context.await_termination().await.unwrap();
    // The last batch's go with the end of the stream.
    assert_eq!(look().await, Some(40));
}
