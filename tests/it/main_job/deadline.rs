//! User code that never returns: `stream.batch_deadline`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use directstream::{
    ErrorKind,
    stream::{DirectStream, StreamingContext},
    transform::Append,
    types::{BatchTransaction, ColumnType},
};

use super::tables::Tables;
use crate::support::{record, shared_kafka, wait_until};

const DEADLINE: Duration = Duration::from_secs(1);
/// The deadline, the tasks' time to notice, and the rest of a stop.
const ENDED_MAX: Duration = Duration::from_secs(20);

/// A query that the database is at for an hour, or for ever.
const SLEEPS: &str = "SELECT CAST(pg_sleep(3600) AS text)";
const COUNTS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";

/// How the stream is to end.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Deadline,
    /// A stop that is asked for once the user's code is stuck.
    Stop,
}

/// Where the user's code is stuck.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Stuck {
    Step,
    Effect,
    /// In the batch's transaction, and its thread is blocked.
    Transaction,
    /// ... and it waits for something that never comes.
    TransactionWaiting,
    /// ... and it waits for the database.
    TransactionAt(&'static str),
}

/// A lock that is held for ever: whoever asks for it waits and uses no processor.
fn held_lock() -> Arc<Mutex<()>> {
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
    lock
}

/// Writes a row in the batch's transaction, and is stuck.
async fn in_transaction(
    stuck: Stuck,
    transaction: &mut BatchTransaction<'_>,
    blocks: impl FnOnce() + Send,
) -> directstream::Result<()> {
    if !matches!(stuck, Stuck::Step | Stuck::Effect) {
        transaction.execute("INSERT INTO numbers (n) VALUES (99)", &[]).await?;
        blocks();
    }
    match stuck {
        Stuck::TransactionWaiting => std::future::pending().await,
        Stuck::TransactionAt(sql) => transaction.fetch(sql, &[]).await.map(drop),
        _ => Ok(()),
    }
}

/// Runs a stream whose user's code never returns, in a runtime of its own, and gives how it ended. The runtime's own end
/// is part of it: it must not wait for the stuck thread.
fn run(name: &'static str, [brokers, topic, store]: [String; 3], stuck: Stuck, by: By) -> directstream::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let context = StreamingContext::builder(name, Duration::from_millis(50))
            .store(&store)
            .unwrap()
            .batch_deadline(if by == By::Deadline { DEADLINE } else { 10 * ENDED_MAX })
            .build()
            .unwrap();
        let lock = held_lock();
        let (at_it, stuck_now) = std::sync::mpsc::channel();
        let wait = move |here: bool, blocks: bool| {
            if here {
                let _ = at_it.send(());
            }
            if here && blocks {
                drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
            }
        };
        let stream = context.direct_stream(DirectStream::topics([topic]).bootstrap_servers(brokers)).unwrap();
        let numbers = {
            let wait = wait.clone();
            stream.map(move |record| {
                wait(stuck == Stuck::Step, true);
                (record.offset().get(),)
            })
        };
        let table = Append::into("numbers").typed_column("n", ColumnType::BigInt).create();
        numbers.save_to_table(table).unwrap();
        let waits = wait.clone();
        stream.foreach_rdd(move |_| {
            waits(stuck == Stuck::Effect, true);
            Ok(())
        });
        stream.count().foreach_rdd_in(move |_, transaction| {
            let wait = wait.clone();
            Box::pin(in_transaction(stuck, transaction, move || wait(true, stuck == Stuck::Transaction)))
        });
        context.start().await.unwrap();
        if by == By::Stop {
            tokio::task::spawn_blocking(move || stuck_now.recv_timeout(ENDED_MAX).unwrap()).await.unwrap();
            context.stop();
        }
        context.await_termination().await.map(drop)
    })
}

async fn ends(name: &'static str, tables: Tables, stuck: Stuck, by: By) -> directstream::Result<()> {
    let kafka = shared_kafka().await;
    let topic = kafka.topic(1).await;
    kafka.produce(&topic, (0..3).map(|n| record(n.to_string())).collect()).await;
    let servers = [kafka.brokers().to_owned(), topic, tables.url()];
    let started = Instant::now();
    let ended = tokio::task::spawn_blocking(move || run(name, servers, stuck, by)).await.unwrap();
    let took = started.elapsed();
    eprintln!("{stuck:?}: ended after {took:?}");
    assert!(took > DEADLINE && took < ENDED_MAX, "{took:?}");
    wait_until("the tables can be read", ENDED_MAX, async || tables.committed().await.is_some()).await;
    // The first positions are committed, and nothing of the batch.
    assert_eq!((tables.offsets().await, tables.count("numbers").await), ([(0, 0)].into(), 0));
    ended
}

async fn ends_at_its_deadline(name: &'static str, tables: Tables, stuck: Stuck) -> String {
    let error = ends(name, tables, stuck, By::Deadline).await.unwrap_err();
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Transform, 6), "{error}");
    let told = error.chain();
    assert!(told.contains("[0 -> 3]") || told.contains("0..3"), "the range is named: {told}");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_never_returns_ends_the_stream_at_its_deadline() {
    let error = ends_at_its_deadline("stuck-step", Tables::sqlite(), Stuck::Step).await;
    assert!(error.contains("was not read and transformed within stream.batch_deadline"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_effect_that_never_returns_ends_the_stream_at_its_deadline() {
    let error = ends_at_its_deadline("stuck-effect", Tables::sqlite(), Stuck::Effect).await;
    assert!(error.contains("did not end its side effects within stream.batch_deadline"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn user_sql_that_never_returns_ends_the_stream_at_its_deadline() {
    const OVER: &str = "did not end its SQL within stream.batch_deadline";
    for stuck in [Stuck::Transaction, Stuck::TransactionWaiting, Stuck::TransactionAt(COUNTS)] {
        let error = ends_at_its_deadline("stuck-sql", Tables::sqlite(), stuck).await;
        assert!(error.contains(OVER), "{error}");
    }
    for stuck in [Stuck::Transaction, Stuck::TransactionWaiting, Stuck::TransactionAt(SLEEPS)] {
        let tables = Tables::postgres().await;
        let Tables::Postgres(database) = &tables else { unreachable!() };
        let name = database.url().rsplit('/').next().unwrap().to_owned();
        let mut looks = database.connect().await;
        let error = ends_at_its_deadline("stuck-sql", tables, stuck).await;
        assert!(error.contains(OVER), "{error}");
        // The server has noticed that its client is gone.
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()";
        let left: i64 = sqlx::query_scalar(others).bind(name).fetch_one(&mut looks).await.unwrap();
        assert_eq!(left, 0, "{stuck:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_user_code_that_never_returns() {
    for stuck in [Stuck::Step, Stuck::Effect, Stuck::Transaction, Stuck::TransactionAt(COUNTS)] {
        ends("stopped", Tables::sqlite(), stuck, By::Stop).await.unwrap();
    }
    for stuck in [Stuck::Transaction, Stuck::TransactionAt(SLEEPS)] {
        ends("stopped", Tables::postgres().await, stuck, By::Stop).await.unwrap();
    }
}
