//! Programs that read files of a folder, and what a receiver stored, killed again and again: every line is there once. No server
//! is needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use sqlx::{Connection as _, SqliteConnection};

use crate::support::{Process, example_program, unique, wait_until};

const LIMIT: Duration = Duration::from_secs(120);
const KILLS: u64 = 10;

/// Numbers that look as if they were random.
fn random(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % below
}

/// The rows of a table, or none while there is no table.
async fn rows<T>(file: &Path, sql: &str) -> Vec<T>
where
    T: for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow> + Send + Unpin,
{
    let Ok(mut connection) = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await else {
        return Vec::new();
    };
    sqlx::query_as(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await.unwrap_or_default()
}

/// Lives of random length; each must have lived until it was killed.
async fn kill_again_and_again(start: impl Fn() -> Process, seed: &mut u64, longest_ms: u64) {
    for kill in 0..KILLS {
        let mut process = start();
        tokio::time::sleep(Duration::from_millis(50 + random(seed, longest_ms))).await;
        process.runs();
        assert!(process.kill(), "kill {kill}");
    }
}

/// A file's lines: of any length, some empty, some with the other ending, and perhaps none at the end.
fn text(number: u64, seed: &mut u64) -> String {
    let mut text = String::new();
    for line in 0..random(seed, 60) {
        let word = "x".repeat(usize::try_from(random(seed, 40)).unwrap());
        let filled = if random(seed, 5) == 0 { String::new() } else { format!("{number}-{line}-{word}") };
        text.push_str(&filled);
        text.push_str(if random(seed, 4) == 0 { "\r\n" } else { "\n" });
    }
    if random(seed, 2) == 0 {
        text.push_str("the end");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_files_that_are_moved_in_meanwhile_is_there_once_after_ten_kills() {
    let folder = tempfile::tempdir().unwrap();
    let (incoming, table) = (folder.path().join("incoming"), folder.path().join("lines.db"));
    fs::create_dir(&incoming).unwrap();
    let program = || {
        let mut program = Command::new(example_program("text_files"));
        program.env("FOLDER", &incoming).env("SQLITE_FILE", &table).env("FOLLOW", "1");
        // A batch has about a hundred bytes of each file: the cuts are anywhere in a line.
        program.env("BYTES_PER_SECOND_MAX", "2017");
        Process::start(program, folder.path().join(unique("stderr")))
    };
    let done = Arc::new(AtomicBool::new(false));
    let mover = thread::spawn({
        let (incoming, done) = (incoming.clone(), Arc::clone(&done));
        move || {
            let (mut seed, mut expected) = (7, Vec::new());
            for number in 0.. {
                if done.load(Ordering::SeqCst) {
                    return expected;
                }
                let (name, text) = (format!("{number}.txt"), text(number, &mut seed));
                let unfinished = incoming.join(format!("{name}.tmp"));
                fs::write(&unfinished, &text).unwrap();
                fs::rename(unfinished, incoming.join(&name)).unwrap();
                let mut at = 0;
                for line in text.split_inclusive('\n') {
                    let bare = line.trim_end_matches(['\r', '\n']);
                    expected.push((name.clone(), i64::try_from(at).unwrap(), bare.to_owned()));
                    at += line.len();
                }
                thread::sleep(Duration::from_millis(40));
            }
            expected
        }
    });
    let mut seed = 11;
    kill_again_and_again(program, &mut seed, 1_200).await;
    done.store(true, Ordering::SeqCst);
    let mut expected: Vec<(String, i64, String)> = mover.join().unwrap();
    expected.sort();
    let mut last = program();
    let found = || rows::<(String, i64, String)>(&table, "SELECT file, off, line FROM lines ORDER BY file, off");
    wait_until("all lines are there", LIMIT, async || {
        last.runs();
        found().await.len() >= expected.len()
    })
    .await;
    assert!(last.kill());
    assert_eq!(found().await, expected);
    // Something was cut: there were far more batches with a range of a file than files.
    let ranges = rows::<(i64,)>(&table, "SELECT count(*) FROM directstream_batch_ranges").await;
    let files = expected.iter().map(|(file, ..)| file).collect::<BTreeSet<_>>().len();
    eprintln!("{} lines of {files} files in {} ranges", expected.len(), ranges[0].0);
    assert!(ranges[0].0 > 3 * i64::try_from(files).unwrap());
}

/// Sends each number once, as a word in a line, and keeps those that were acknowledged.
#[derive(Default)]
struct SenderOfLines {
    acknowledged: Mutex<BTreeSet<u64>>,
    sent: AtomicU64,
    connections: AtomicU64,
    done: AtomicBool,
}

impl SenderOfLines {
    /// One connection to its end; what was not acknowledged then is not sent again.
    fn serve(&self, mut connection: TcpStream, seed: &mut u64) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let first = self.sent.load(Ordering::SeqCst);
        let acknowledgements = BufReader::new(connection.try_clone().unwrap());
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut before = 0;
                for line in acknowledgements.lines().map_while(Result::ok) {
                    let count: u64 = line.parse().unwrap();
                    self.acknowledged.lock().unwrap().extend(first + before..first + count);
                    before = count;
                }
            });
            while !self.done.load(Ordering::SeqCst) {
                let from = self.sent.load(Ordering::SeqCst);
                let until = from + 1 + random(seed, 20);
                let lines: String = (from..until).map(|number| format!("w{number}\n")).collect();
                // In two pieces, so that a line is cut now and then.
                let cut = usize::try_from(random(seed, lines.len() as u64)).unwrap();
                self.sent.store(until, Ordering::SeqCst);
                let sent = connection.write_all(&lines.as_bytes()[..cut]).and_then(|()| {
                    thread::sleep(Duration::from_millis(random(seed, 4)));
                    connection.write_all(&lines.as_bytes()[cut..])
                });
                if sent.is_err() {
                    break;
                }
            }
            let _ = connection.shutdown(Shutdown::Write);
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_acknowledged_is_counted_once_and_nothing_twice_after_ten_kills() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("words.db");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sender = Arc::new(SenderOfLines::default());
    let program = || {
        let mut program = Command::new(example_program("receiver_socket"));
        program.env("ADDRESS", &address).env("WAL", folder.path().join("wal")).env("SQLITE_FILE", &table);
        Process::start(program, folder.path().join(unique("stderr")))
    };
    thread::spawn({
        let sender = Arc::clone(&sender);
        move || {
            let mut seed = 5;
            while let Ok((connection, _)) = listener.accept() {
                sender.serve(connection, &mut seed);
            }
        }
    });
    let mut seed = 3;
    kill_again_and_again(program, &mut seed, 1_500).await;
    let acknowledged = || sender.acknowledged.lock().unwrap().clone();
    let before = acknowledged().len();
    let mut last = program();
    wait_until("more is acknowledged", LIMIT, async || {
        last.runs();
        acknowledged().len() > before
    })
    .await;
    sender.done.store(true, Ordering::SeqCst);
    let counts = || rows::<(String, i64)>(&table, "SELECT word, count FROM word_counts");
    let missing = async || {
        let there: BTreeMap<String, i64> = counts().await.into_iter().collect();
        let numbers = acknowledged().into_iter();
        numbers.filter(|number| !there.contains_key(&format!("w{number}"))).count()
    };
    wait_until("all that was acknowledged is counted", LIMIT, async || {
        last.runs();
        missing().await == 0
    })
    .await;
    assert!(last.kill());
    let counts = counts().await;
    let twice: Vec<_> = counts.iter().filter(|(_, count)| *count != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let sent = sender.sent.load(Ordering::SeqCst);
    let known: BTreeSet<String> = (0..sent).map(|number| format!("w{number}")).collect();
    let invented: Vec<_> = counts.iter().filter(|(word, _)| !known.contains(word)).collect();
    assert!(invented.is_empty(), "{invented:?}");
    let connections = sender.connections.load(Ordering::SeqCst);
    eprintln!(
        "{sent} sent over {connections} connections, {} acknowledged, {} counted",
        acknowledged().len(),
        counts.len()
    );
    assert!(connections > 3 && !acknowledged().is_empty());
}
