use std::{
    ops::ControlFlow,
    sync::mpsc::{Receiver as Inbox, Sender, channel},
    thread::sleep,
};

use super::*;
use crate::{
    clock::SystemClock,
    report::{ReceiverInfo, StreamingListener},
    types::{Record, TopicId},
};

const LIMIT: Duration = Duration::from_secs(20);

/// Hands each start's supervisor out, and runs until it is stopped.
#[derive(Debug)]
struct Handing(Mutex<Sender<ReceiverSupervisor>>);

impl Receiver for Handing {
    fn name(&self) -> &str {
        "hand"
    }

    fn on_start(&self, supervisor: ReceiverSupervisor) -> Result<()> {
        self.0.lock().unwrap().send(supervisor.clone()).unwrap();
        while !supervisor.is_stopped() {
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn on_stop(&self) {}
}

fn source(log: ReceiverLog) -> (ReceiverSource, Inbox<ReceiverSupervisor>) {
    let (sender, inbox) = channel();
    let receiver = Arc::new(Handing(Mutex::new(sender)));
    (ReceiverSource::new(receiver, log, SystemClock::shared()).unwrap(), inbox)
}

async fn next(inbox: &Inbox<ReceiverSupervisor>) -> ReceiverSupervisor {
    for _ in 0..LIMIT.as_millis() / 10 {
        if let Ok(supervisor) = inbox.try_recv() {
            return supervisor;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the receiver was not started");
}

fn tp() -> TopicPartition {
    TopicPartition::new("receiver:hand", 0)
}

/// Earliest and latest offset, and the log's id.
async fn told(source: &ReceiverSource) -> (i64, i64, Option<TopicId>) {
    let answers = source.ask().await.unwrap();
    let id = answers.partitions(source.filter()).pop().unwrap().1;
    (answers.earliest[&tp()].get(), answers.latest[&tp()].get(), id)
}

fn read(source: &ReceiverSource, from: i64, until: i64) -> (Vec<String>, RangeCounts) {
    let mut found: Vec<Record> = Vec::new();
    let range = OffsetRange::new(tp(), Offset::clamped(from), Offset::clamped(until));
    let counts = source.read(&range, &|| false, &mut |chunk: Arc<Chunk>| {
        found.extend(chunk.records());
        ControlFlow::Continue(())
    });
    assert_eq!(found.iter().map(|record| record.offset().get()).collect::<Vec<_>>(), (from..until).collect::<Vec<_>>());
    (found.iter().map(|record| record.text().unwrap().to_owned()).collect(), counts.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_is_told_read_and_there_for_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let (first, inbox) = source(folder.path().into());
    assert!(first.ask().await.unwrap().topics.is_empty());
    first.open("an app", &[]).await.unwrap();
    assert!(folder.path().join("an%20app").join("hand").is_dir());
    let supervisor = next(&inbox).await;
    supervisor.store(&["a", "b"]).unwrap();
    supervisor.store(&["c"]).unwrap();
    supervisor.store(&[""; 0]).unwrap();
    let (earliest, latest, id) = told(&first).await;
    assert_eq!((earliest, latest), (0, 3));
    let (records, counts) = read(&first, 1, 3);
    assert_eq!((records, counts.records, counts.gaps), (vec!["b".to_owned(), "c".to_owned()], 2, 0));
    first.close().await;
    assert!(supervisor.is_stopped());
    assert_eq!(supervisor.store(&["late"]).unwrap_err().kind(), ErrorKind::Unavailable);
    let (second, inbox) = source(folder.path().into());
    second.open("an app", &[]).await.unwrap();
    next(&inbox).await.store(&["d"]).unwrap();
    assert_eq!(told(&second).await, (0, 4, id));
    assert_eq!(read(&second, 0, 4).0.concat(), "abcd");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_waits_until_the_log_is_let_go_of() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _inbox) = source(folder.path().into());
    first.open("app", &[]).await.unwrap();
    let (second, _second_inbox) = source(folder.path().into());
    let (opened, ()) = tokio::join!(second.open("app", &[]), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        first.close().await;
    });
    opened.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn store_waits_while_the_log_has_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let (source, inbox) = source(ReceiverLog::in_folder(folder.path()).unread_bytes_max(200).segment_bytes_max(100));
    source.open("app", &[]).await.unwrap();
    let supervisor = next(&inbox).await;
    // Alone, a block may be larger than all the room there is.
    supervisor.store(&["x".repeat(300)]).unwrap();
    let waiting = tokio::task::spawn_blocking({
        let supervisor = supervisor.clone();
        move || supervisor.store(&["y"])
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!waiting.is_finished());
    assert_eq!(told(&source).await.1, 1);
    source.forget_before(&[(tp(), Offset::clamped(1))].into());
    waiting.await.unwrap().unwrap();
    assert_eq!(told(&source).await.1, 2);
    source.forget_before(&[(tp(), Offset::clamped(2))].into());
    assert_eq!(told(&source).await.0, 1);
    // A stop ends the wait of whoever has no room.
    supervisor.store(&["x".repeat(300)]).unwrap();
    let waiting = tokio::task::spawn_blocking(move || supervisor.store(&["z"]));
    source.close().await;
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_asks_for_it_is_started_again_and_its_old_start_stores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (source, inbox) = source(folder.path().into());
    source.open("app", &[]).await.unwrap();
    let first = next(&inbox).await;
    first.store(&["a"]).unwrap();
    first.restart("the connection is lost");
    assert!(first.is_stopped() && first.store(&["b"]).is_err());
    let second = next(&inbox).await;
    second.store(&["c"]).unwrap();
    first.restart("it is not this one's to say");
    assert!(!second.is_stopped());
    assert_eq!(read(&source, 0, 2).0.concat(), "ac");
    source.close().await;
}

#[derive(Debug)]
struct Failing(std::sync::atomic::AtomicU32);

impl Receiver for Failing {
    fn name(&self) -> &str {
        "failing"
    }

    fn on_start(&self, supervisor: ReceiverSupervisor) -> Result<()> {
        match self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => panic!("at first"),
            1 => supervisor.store(&["stored"]),
            _ => Err(Error::unavailable("later")),
        }
    }

    fn on_stop(&self) {}
}

/// Writes down what it is told of receivers.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn note(&self, what: &str, receiver: &ReceiverInfo) {
        let ReceiverInfo { stream_id, name, is_active, last_error, .. } = receiver;
        let error = last_error.as_deref().unwrap_or("-");
        self.0.lock().unwrap().push(format!("{what} {stream_id} {name} {is_active} {error}"));
    }
}

impl StreamingListener for Notes {
    fn on_receiver_started(&mut self, receiver: &ReceiverInfo) {
        self.note("started", receiver);
    }

    fn on_receiver_error(&mut self, receiver: &ReceiverInfo) {
        self.note("error", receiver);
    }

    fn on_receiver_stopped(&mut self, receiver: &ReceiverInfo) {
        self.note("stopped", receiver);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_panics_is_started_again_and_listeners_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Failing(0.into()));
    let source = ReceiverSource::new(receiver, folder.path().into(), SystemClock::shared()).unwrap();
    let (reporter, notes) = (Reporter::new("app", SystemClock::shared()), Notes::default());
    reporter.listeners().add(Box::new(notes.clone())).unwrap();
    source.reports_to(3, &reporter);
    source.open("app", &[]).await.unwrap();
    let stored = TopicPartition::new("receiver:failing", 0);
    let is_stored = async || source.ask().await.unwrap().latest[&stored].get() == 1;
    for _ in 0..LIMIT.as_millis() / 50 {
        if is_stored().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(is_stored().await, "it was not started again");
    source.close().await;
    reporter.listeners().close(LIMIT);
    let told = notes.0.lock().unwrap().clone();
    let panicked = "it panicked: at first";
    let expected = [
        "started 3 failing true -".to_owned(),
        format!("error 3 failing false {panicked}"),
        format!("started 3 failing true {panicked}"),
    ];
    assert_eq!(told[..3], expected);
    assert!(told.last().unwrap().starts_with("stopped 3 failing false"), "{told:?}");
}

#[test]
fn a_name_that_is_no_folders_name_is_refused() {
    #[derive(Debug)]
    struct Named(&'static str);
    impl Receiver for Named {
        fn name(&self) -> &str {
            self.0
        }
        fn on_start(&self, _supervisor: ReceiverSupervisor) -> Result<()> {
            Ok(())
        }
        fn on_stop(&self) {}
    }
    for (name, accepted) in [("a-b_c.1", true), ("", false), ("..", false), ("a/b", false), ("a b", false)] {
        let made = ReceiverSource::new(Arc::new(Named(name)), "wal".into(), SystemClock::shared());
        assert_eq!(made.is_ok(), accepted, "{name}");
    }
}
