//! User code that never returns: `stream.batch_deadline`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use directstream::{
    ErrorKind,
    stream::{DirectStream, StreamingContext},
    transform::Append,
    types::ColumnType,
};

use super::tables::Tables;
use crate::support::{record, shared_kafka, wait_until};

const DEADLINE: Duration = Duration::from_secs(1);
/// The deadline, the tasks' time to notice, and the rest of a stop.
const ENDED_MAX: Duration = Duration::from_secs(20);

/// How the stream is to end.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Deadline,
    /// A stop that is asked for once the user's code is stuck.
    Stop,
}

/// Runs a stream one of whose steps never returns, in a runtime of its own, and gives how it ended. The runtime's own end
/// is part of it: it must not wait for the stuck thread.
fn run(
    name: &'static str,
    [brokers, topic, store]: [String; 3],
    stuck_in_transform: bool,
    by: By,
) -> directstream::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let context = StreamingContext::builder(name, Duration::from_millis(50))
            .store(&store)
            .unwrap()
            .batch_deadline(if by == By::Deadline { DEADLINE } else { 10 * ENDED_MAX })
            .build()
            .unwrap();
        // A lock that is held for ever: whoever asks for it waits and uses no processor.
        let lock = Arc::new(Mutex::new(()));
        let held = Arc::clone(&lock);
        std::thread::spawn(move || {
            let _held = held.lock();
            loop {
                std::thread::park();
            }
        });
        while lock.try_lock().is_ok() {
            std::thread::yield_now();
        }
        let (at_it, stuck_now) = std::sync::mpsc::channel();
        let wait = move |stuck: bool| {
            if stuck {
                let _ = at_it.send(());
                drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
            }
        };
        let stream = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(brokers)).unwrap();
        let numbers = {
            let wait = wait.clone();
            stream.map(move |record| {
                wait(stuck_in_transform);
                (record.offset().get(),)
            })
        };
        let table = Append::into("numbers").typed_column("n", ColumnType::BigInt).create();
        numbers.save_to_table(table).unwrap();
        stream.foreach_rdd(move |_| {
            wait(!stuck_in_transform);
            Ok(())
        });
        context.start().await.unwrap();
        if by == By::Stop {
            tokio::task::spawn_blocking(move || stuck_now.recv_timeout(ENDED_MAX).unwrap()).await.unwrap();
            context.stop();
        }
        context.await_termination().await.map(drop)
    })
}

async fn ends(name: &'static str, stuck_in_transform: bool, by: By) -> directstream::Result<()> {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, (0..3).map(|n| record(n.to_string())).collect()).await;
    let tables = Tables::sqlite();
    let servers = [kafka.brokers().to_owned(), topic, tables.url().to_owned()];
    let started = Instant::now();
    let ended = tokio::task::spawn_blocking(move || run(name, servers, stuck_in_transform, by)).await.unwrap();
    let took = started.elapsed();
    assert!(took > DEADLINE && took < ENDED_MAX, "{took:?}");
    wait_until("the file can be read", ENDED_MAX, async || tables.committed().await.is_some()).await;
    // The first positions are committed, and nothing of the batch.
    assert_eq!((tables.offsets().await, tables.count("numbers").await), ([(0, 0)].into(), 0));
    ended
}

async fn ends_at_its_deadline(name: &'static str, stuck_in_transform: bool) -> String {
    let error = ends(name, stuck_in_transform, By::Deadline).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transform, "{error}");
    error.chain()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_never_returns_ends_the_stream_at_its_deadline() {
    let error = ends_at_its_deadline("stuck-step", true).await;
    assert!(error.contains("was not read and transformed within stream.batch_deadline"), "{error}");
    assert!(error.contains("[0 -> 3]") || error.contains("0..3"), "the range is named: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_effect_that_never_returns_ends_the_stream_at_its_deadline() {
    let error = ends_at_its_deadline("stuck-effect", false).await;
    assert!(error.contains("did not end its side effects within stream.batch_deadline"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_step_or_a_side_effect_that_never_returns() {
    ends("stopped-step", true, By::Stop).await.unwrap();
    ends("stopped-effect", false, By::Stop).await.unwrap();
}
