//! A process of its own that commits batches to a checkpoint folder: for tests that kill it, stop it, or break its disk.
//!
//! It is this very test binary, started on a test that does nothing otherwise.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use directstream::{
    clock::SystemClock,
    commit::{CommitOutcome, Committer, Inspector, Ownership, StoreHealth, StoreSettings},
    types::{SegmentKind, StateSegment},
};
use tempfile::TempDir;
use tokio::sync::watch;

use super::world::{APPLICATION, batch, moved, position};
use crate::support::{wait_for, wait_until};

const TEST: &str = "store::worker::commits_in_a_process_of_its_own";
/// Offsets of each batch.
const OFFSETS: i64 = 10;
/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder for one test, without a disk where that is possible: only what processes leave behind matters here.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// How a worker is started.
#[derive(Clone)]
pub(crate) struct Job<'a> {
    pub(crate) folder: &'a Path,
    /// The last batch to commit.
    pub(crate) batches: u64,
    pub(crate) failpoints: String,
    /// A shell script that prepares what the worker runs in and ends with `exec "$@"`.
    pub(crate) around: Option<&'a str>,
    /// `hold`: owns the application until it is killed. `full`: fills its disk before the last batch.
    pub(crate) mode: &'a str,
    pub(crate) take_over: bool,
    pub(crate) unavailable_max: Duration,
}

impl<'a> Job<'a> {
    pub(crate) fn new(folder: &'a Path, batches: u64) -> Self {
        let unavailable_max = Duration::from_secs(20);
        Self { folder, batches, failpoints: String::new(), around: None, mode: "", take_over: false, unavailable_max }
    }

    pub(crate) fn start(&self) -> Worker {
        let exe = env::current_exe().unwrap();
        let mut command = match self.around {
            None => Command::new(exe),
            Some(script) => {
                let mut command = Command::new("sh");
                command.args(["-c", script, "sh"]).arg(exe);
                command
            }
        };
        command.args([TEST, "--exact", "--ignored", "--nocapture"]);
        command.env("WORKER_FOLDER", self.folder).env("WORKER_BATCHES", self.batches.to_string());
        command.env("WORKER_MODE", self.mode).env("FAILPOINTS", &self.failpoints);
        command.env("WORKER_UNAVAILABLE_MS", self.unavailable_max.as_millis().to_string());
        if self.take_over {
            command.env("WORKER_TAKE_OVER", "yes");
        }
        let told = tempfile::NamedTempFile::new().unwrap();
        // Both append: neither writes over the other.
        let file = fs::OpenOptions::new().append(true).open(told.path()).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Worker { child: command.spawn().unwrap(), told }
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Ended {
        self.start().ended()
    }
}

/// A running worker. Dropped, it is killed.
pub(crate) struct Worker {
    child: Child,
    told: tempfile::NamedTempFile,
}

/// What is left of one.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) told: String,
}

impl Worker {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn told(&self) -> String {
        fs::read_to_string(self.told.path()).unwrap()
    }

    pub(crate) async fn until_it_tells(&self, word: &str) {
        wait_until(word, LIMIT, async || self.told().contains(word)).await;
    }

    /// Waits until it is stopped by SIGSTOP.
    pub(crate) async fn stopped(&self) {
        let stat = format!("/proc/{}/stat", self.id());
        wait_until("the worker is stopped", LIMIT, async || {
            let stat = fs::read_to_string(&stat).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
        .await;
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.id())]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn ended(mut self) -> Ended {
        let status = self.child.wait().unwrap();
        Ended { status, told: self.told() }
    }

    pub(crate) async fn ended_in_time(mut self) -> Ended {
        let status = wait_for("the worker ends", LIMIT, async || self.child.try_wait().unwrap()).await;
        Ended { status, told: self.told() }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The last batch that it told to be committed.
    pub(crate) fn committed(&self) -> u64 {
        let numbers = self.told.lines().filter_map(|line| line.strip_prefix("committed ")?.parse().ok());
        numbers.max().unwrap_or(0)
    }
}

fn url(folder: &Path) -> String {
    format!("checkpoint:{}/store", folder.display())
}

/// The state that batch `seq` stores: its bases take turns.
fn state_of(seq: u64) -> [StateSegment; 2] {
    [0, 1].map(|partition| StateSegment {
        operator: 1,
        partition,
        batch_seq: seq,
        kind: if seq == 1 || seq % 2 == u64::from(partition) { SegmentKind::Base } else { SegmentKind::Delta },
        keys: seq,
        data: seq.to_le_bytes().repeat(9),
    })
}

/// The last committed batch. Ledger, offsets and state must fit it: every batch once, each beginning where the one before it ended.
pub(crate) async fn committed(folder: &Path) -> u64 {
    if !folder.join("store").exists() {
        return 0;
    }
    let mut look = Inspector::open(&url(folder).parse().unwrap(), APPLICATION).await.unwrap();
    let Some(application) = look.application().await.unwrap() else { return 0 };
    let batches = look.batches(u32::MAX).await.unwrap();
    let ranges = batches.iter().map(|batch| (batch.batch_seq, batch.ranges[0].range.from_offset.get()));
    let expected = (1..=application.batch_seq).zip((0..).step_by(usize::try_from(OFFSETS).unwrap()));
    assert_eq!(ranges.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let until = look.offsets().await.unwrap().first().map_or(0, |position| position.until_offset.get());
    assert_eq!(until, i64::try_from(application.batch_seq).unwrap() * OFFSETS);
    let last = application.batch_seq;
    if last > 0 {
        let stored = look.state(1, 0..2).await.unwrap();
        let [zero, one] = [last, last.saturating_sub(1).max(1)].map(state_of);
        // The one that had its base with the last batch, and the other one.
        let [newer, older] = if last.is_multiple_of(2) || last == 1 { [0, 1] } else { [1, 0] };
        assert_eq!(stored[newer], [zero[newer].clone()]);
        match last {
            1 => assert_eq!(stored[older], [zero[older].clone()]),
            _ => assert_eq!(stored[older], [one[older].clone(), zero[older].clone()]),
        }
    }
    last
}

fn say(word: &str) {
    // At once, and not by way of the test harness: what comes next may be the end.
    let mut stdout = io::stdout();
    writeln!(stdout, "{word}").unwrap();
}

#[test]
#[ignore = "the process that the tests of the checkpoint folder start; by itself it does nothing"]
#[expect(clippy::exit, reason = "its exit code is what is tested")]
fn commits_in_a_process_of_its_own() {
    let Ok(folder) = env::var("WORKER_FOLDER") else { return };
    let _faults = fail::FailScenario::setup();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    if let Err(error) = runtime.block_on(work(PathBuf::from(folder))) {
        say(&format!("error: {error:?}"));
        std::process::exit(error.kind().exit_code().into());
    }
}

async fn work(folder: PathBuf) -> directstream::Result<()> {
    let number = |name: &str| env::var(name).unwrap().parse::<u64>().unwrap();
    let (mode, last) = (env::var("WORKER_MODE").unwrap(), number("WORKER_BATCHES"));
    let mut settings = StoreSettings::new(url(&folder).parse()?, APPLICATION);
    settings.unavailable_max = Duration::from_millis(number("WORKER_UNAVAILABLE_MS"));
    settings.start_timeout = settings.unavailable_max;
    if env::var("WORKER_TAKE_OVER").is_ok() {
        settings.ownership = Ownership::TakeOver;
    }
    let (health, _) = watch::channel(StoreHealth::Waiting);
    let (committer, recovered) = Committer::start(settings, SystemClock::shared(), health).await?;
    if recovered.positions.is_empty() {
        committer.initialize_positions(vec![position(0, 0)]).await?;
    }
    let mut seq = recovered.batch_seq;
    while seq < last {
        let fills = mode == "full" && seq + 1 == last;
        let emptied = fills.then(|| fill(&folder, seq));
        let from = i64::try_from(seq).unwrap() * OFFSETS;
        let mut next = batch(seq + 1, vec![moved(0, from, from + OFFSETS)], Vec::new());
        next.state = state_of(seq + 1).into();
        match committer.commit(next).await? {
            CommitOutcome::Committed(commit) => {
                seq = commit.batch_seq;
                say(&format!("committed {seq}"));
            }
            CommitOutcome::NotCommitted { error, .. } if error.kind().is_retryable() => {
                say(&format!("not committed: {}", error.chain()));
            }
            CommitOutcome::NotCommitted { error, .. } => return Err(error),
            CommitOutcome::Conflict { .. } => panic!("a conflict with nobody"),
        }
        if let Some(emptied) = emptied {
            emptied.await.unwrap();
        }
    }
    say("done");
    if mode == "hold" {
        std::future::pending::<()>().await;
    }
    committer.stop().await;
    Ok(())
}

/// Fills the disk, and makes room again after a second and a half. Until then the folder must be as it was.
fn fill(folder: &Path, seq: u64) -> tokio::task::JoinHandle<()> {
    let filler = folder.join("filler");
    if filler.exists() || fs::exists(folder.join("was-full")).unwrap() {
        return tokio::spawn(async {});
    }
    let mut file = fs::File::create(&filler).unwrap();
    fs::File::create(folder.join("was-full")).unwrap();
    let full = loop {
        if let Err(error) = file.write_all(&[1; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    say("full");
    let folder = folder.to_owned();
    let since = Instant::now();
    tokio::spawn(async move {
        while since.elapsed() < Duration::from_millis(1500) {
            assert_eq!(committed(&folder).await, seq);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        fs::remove_file(filler).unwrap();
        say("room");
    })
}
