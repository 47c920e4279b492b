//! Streams that are not Kafka's in one context with others: stopped, started again, and looked back on by windows. No server is
//! needed.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use directstream::{
    Error, ErrorKind, Result,
    config::{OnDataLoss, StreamConfig},
    stream::{Receiver, ReceiverLog, ReceiverSupervisor, StreamingContext, TextFiles},
    transform::{Append, DStream},
    types::ColumnType,
};

use super::tables::Tables;
use crate::support::wait_until;

const INTERVAL: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(60);

fn context(tables: &Tables) -> StreamingContext {
    StreamingContext::builder("inputs", INTERVAL).store(&tables.url()).unwrap().build().unwrap()
}

fn save(lines: &DStream<String>, table: &str) {
    let output = Append::into(table).typed_column("line", ColumnType::Text).create();
    lines.map(|line| (line,)).save_to_table(output).unwrap();
}

async fn lines(tables: &Tables, table: &str) -> Vec<String> {
    let rows = tables.rows::<(String,)>(format!("SELECT line FROM {table} ORDER BY line")).await;
    rows.unwrap_or_default().into_iter().map(|(line,)| line).collect()
}

async fn await_lines(tables: &Tables, table: &str, expected: &[&str]) {
    wait_until("all lines are there", LIMIT, async || lines(tables, table).await.len() >= expected.len()).await;
    assert_eq!(lines(tables, table).await, expected);
}

async fn stop(context: &StreamingContext) {
    context.stop();
    context.await_termination().await.unwrap();
}

/// Moves a file into a folder.
fn put(folder: &Path, name: &str, text: &str) {
    let unfinished = folder.join(format!("{name}.tmp"));
    fs::write(&unfinished, text).unwrap();
    fs::rename(unfinished, folder.join(name)).unwrap();
}

/// Stores what the test says.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Option<ReceiverSupervisor>>>);

impl Told {
    async fn store(&self, records: Vec<String>) {
        wait_until("the receiver is started", LIMIT, async || self.0.lock().unwrap().is_some()).await;
        let supervisor = self.0.lock().unwrap().clone().unwrap();
        tokio::task::spawn_blocking(move || supervisor.store(&records)).await.unwrap().unwrap();
    }
}

impl Receiver for Told {
    fn name(&self) -> &str {
        "told"
    }

    fn on_start(&self, supervisor: ReceiverSupervisor) -> Result<()> {
        *self.0.lock().unwrap() = Some(supervisor);
        Ok(())
    }

    fn on_stop(&self) {
        *self.0.lock().unwrap() = None;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_folders_and_a_receiver_are_read_side_by_side_and_go_on_after_a_restart() {
    let (tables, folder) = (Tables::sqlite(), tempfile::tempdir().unwrap());
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    let job = || {
        let (context, told) = (context(&tables), Told::default());
        save(&context.text_file_stream(&*one).unwrap(), "lines_one");
        save(&context.text_file_stream(&*two).unwrap(), "lines_two");
        let stored = context.receiver_stream(told.clone(), folder.path().join("wal")).unwrap();
        save(&stored.map(|record| record.text().unwrap().to_owned()), "stored");
        (context, told)
    };
    put(&one, "same.txt", "a\nb\n");
    put(&two, "same.txt", "c\n");
    let (first, told) = job();
    first.start().await.unwrap();
    told.store(vec!["x".to_owned(), "y".to_owned()]).await;
    await_lines(&tables, "lines_one", &["a", "b"]).await;
    await_lines(&tables, "lines_two", &["c"]).await;
    await_lines(&tables, "stored", &["x", "y"]).await;
    // The last records may be in no batch yet: they are the next start's.
    told.store(vec!["z".to_owned()]).await;
    stop(&first).await;
    put(&two, "later.txt", "d");
    fs::remove_file(one.join("same.txt")).unwrap();
    let (second, told) = job();
    second.start().await.unwrap();
    told.store(vec!["zz".to_owned()]).await;
    await_lines(&tables, "lines_two", &["c", "d"]).await;
    await_lines(&tables, "stored", &["x", "y", "z", "zz"]).await;
    assert_eq!(lines(&tables, "lines_one").await, ["a", "b"]);
    stop(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_streams_of_one_folder_are_refused() {
    let (tables, folder) = (Tables::sqlite(), tempfile::tempdir().unwrap());
    put(folder.path(), "a.txt", "a\n");
    let context = context(&tables);
    for table in ["one", "two"] {
        save(&context.text_file_stream(folder.path()).unwrap(), table);
    }
    let error = match context.start().await {
        Ok(()) => context.await_termination().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_not_there_ends_the_start() {
    let tables = Tables::sqlite();
    let context = context(&tables);
    save(&context.text_file_stream("no/such/folder").unwrap(), "lines");
    let error = context.start().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("path=no/such/folder"), "{error}");
}

/// A job on a folder whose files are read slowly, until the first line of `a.txt` is committed; then `meanwhile`. How it ends.
async fn in_the_middle(
    files: impl Fn(TextFiles) -> TextFiles,
    meanwhile: impl FnOnce(&Path),
) -> (Tables, Option<Error>) {
    let (tables, folder) = (Tables::sqlite(), tempfile::tempdir().unwrap());
    put(folder.path(), "a.txt", &"0123456\n".repeat(10_000));
    let config =
        StreamConfig { batch_interval: INTERVAL, unavailable_max: Duration::from_secs(2), ..StreamConfig::default() };
    let builder = StreamingContext::builder("inputs", INTERVAL).stream_config(config).store(&tables.url()).unwrap();
    let context = builder.build().unwrap();
    let settings = files(TextFiles::in_folder(folder.path()).bytes_per_second_max(500));
    save(&context.text_file_stream(settings).unwrap(), "lines");
    context.start().await.unwrap();
    wait_until("it has begun", LIMIT, async || !lines(&tables, "lines").await.is_empty()).await;
    meanwhile(folder.path());
    let ended = context.await_termination_or_timeout(Duration::from_secs(8)).await;
    stop_anyhow(&context).await;
    (tables, ended.err())
}

async fn stop_anyhow(context: &StreamingContext) {
    context.stop();
    let _ = context.await_termination().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_changed_after_it_was_begun_ends_the_stream() {
    let append = |folder: &Path| {
        fs::OpenOptions::new().append(true).open(folder.join("a.txt")).unwrap().write_all(b"more\n").unwrap();
    };
    let (_, error) = in_the_middle(|files| files, append).await;
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::OffsetsLost, "{error}");
    assert!(error.to_string().contains("a.txt"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_is_read_as_a_new_one_where_that_is_asked_for() {
    let replace = |folder: &Path| put(folder, "a.txt", "new\n");
    let (tables, error) = in_the_middle(|files| files.on_data_loss(OnDataLoss::Skip), replace).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(lines(&tables, "lines").await.last().unwrap(), "new");
    let lost = format!("SELECT reason FROM {}", tables.own("lost_ranges"));
    assert_eq!(tables.rows::<(String,)>(lost).await.unwrap(), [("topic_recreated".to_owned(),)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_before_its_end_ends_the_stream_after_a_while() {
    let remove = |folder: &Path| fs::remove_file(folder.join("a.txt")).unwrap();
    let (_, error) = in_the_middle(|files| files, remove).await;
    let error = error.unwrap();
    assert!(error.kind() == ErrorKind::Unavailable, "{error}");
    assert!(
        error.chain().contains("the file is gone") || error.chain().contains("cannot read a text file"),
        "{}",
        error.chain()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_look_back_on_files_and_logs_after_a_restart() {
    let (tables, folder) = (Tables::sqlite(), tempfile::tempdir().unwrap());
    let incoming = folder.path().join("incoming");
    fs::create_dir(&incoming).unwrap();
    let span = INTERVAL * 10;
    let job = || {
        let (context, told) = (context(&tables), Told::default());
        let files = TextFiles::in_folder(&incoming).bytes_per_second_max(4_000);
        let log = ReceiverLog::in_folder(folder.path().join("wal")).segment_bytes_max(200);
        let stored =
            context.receiver_stream(told.clone(), log).unwrap().map(|record| record.text().unwrap().to_owned());
        let all = context.union([context.text_file_stream(files).unwrap(), stored]).unwrap();
        // Side by side, so that each record is in exactly one window.
        save(&all.window(span, span).unwrap(), "windows");
        (context, told)
    };
    let mut expected = Vec::new();
    for life in 0..4 {
        let (context, told) = job();
        context.start().await.unwrap();
        for step in 0..8 {
            let line = format!("{life}-{step} of a file, with more words than fit into one batch of so few bytes");
            put(&incoming, &format!("{life}-{step}.txt"), &format!("{line}\n{line}\n"));
            let record = format!("{life}-{step} of a receiver");
            told.store(vec![record.clone()]).await;
            expected.extend([line.clone(), line, record]);
            tokio::time::sleep(INTERVAL).await;
        }
        // In the middle of a window.
        stop(&context).await;
    }
    expected.sort();
    let (context, _told) = job();
    context.start().await.unwrap();
    wait_until("all windows are told", LIMIT, async || lines(&tables, "windows").await.len() >= expected.len()).await;
    tokio::time::sleep(2 * span).await;
    assert_eq!(lines(&tables, "windows").await, expected);
    stop(&context).await;
    // What no window looks back on is deleted.
    let log = fs::read_dir(folder.path().join("wal/inputs/told")).unwrap().count();
    assert!(log < 2 + expected.len() / 3, "{log} files");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_a_socket_come_over_one_connection_after_another() {
    let (tables, folder) = (Tables::sqlite(), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let sender = tokio::task::spawn_blocking(move || {
        for text in ["one\ntw".as_bytes(), b"o\r\nthr\xffee\nat the end", b"again\n"] {
            let (mut connection, _) = listener.accept().unwrap();
            connection.write_all(text).unwrap();
        }
        listener
    });
    let context = context(&tables);
    save(&context.socket_text_stream("127.0.0.1", port, folder.path()).unwrap(), "lines");
    context.start().await.unwrap();
    await_lines(&tables, "lines", &["again", "at the end", "o", "one", "thr\u{fffd}ee", "tw"]).await;
    let _listener = sender.await.unwrap();
    stop(&context).await;
}
