//! Folders of files of a program that is killed again and again, between and inside its batches: together they hold what Kafka
//! holds, each record once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use directstream::{commit::Inspector, transform::Rdd};
use tempfile::TempDir;

use super::windows::batches;
use crate::{
    main_job::tables::Tables,
    support::{Kafka, Process, death, example_program, record, shared_kafka, unique, wait_until},
};

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 3;
/// Batches of each life: at least so many, for each part is awaited.
const PARTS: i64 = 8;
/// Partition, offset, value.
type Place = (i32, i64, String);

/// A death: at a failpoint, after it was passed so often, or from outside; and whether it leaves a folder of a batch that is never
/// committed. Of each batch there are two folders, the lines' first, with three parts each.
struct Death {
    point: &'static str,
    passed: u32,
    orphans: &'static [&'static str],
}

const fn dies(point: &'static str, passed: u32, orphans: &'static [&'static str]) -> Death {
    Death { point, passed, orphans }
}

const OUTSIDE: Death = dies("", 0, &[]);
const DEATHS: &[Death] = &[
    dies("files::mid_write", 20, &[]),
    OUTSIDE,
    dies("files::before_flush", 22, &["lines"]),
    dies("files::before_rename", 6, &[]),
    dies("files::before_rename", 7, &["lines"]),
    dies("files::after_rename", 6, &["lines"]),
    // That folder is in the way of the next one, which dies of removing it.
    dies("files::mid_remove", 0, &[]),
    dies("files::after_rename", 7, &["lines", "objects"]),
    OUTSIDE,
    dies("stream::hand_over", 3, &["lines", "objects"]),
    dies("commit::before_commit", 3, &["lines", "objects"]),
    // Both are in the way: the next one has written its own lines when it dies of removing the objects.
    dies("files::mid_remove", 1, &["lines"]),
    dies("commit::after_commit", 3, &[]),
    dies("stream::acknowledge", 3, &[]),
    OUTSIDE,
];

/// A topic, a store, and the folder of the program's results.
struct Field {
    kafka: Kafka,
    topic: String,
    tables: Tables,
    folder: TempDir,
    produced: i64,
}

impl Field {
    async fn new(tables: Tables) -> Self {
        let kafka = shared_kafka().await;
        let topic = kafka.topic(PARTITIONS).await;
        Self { kafka, topic, tables, folder: tempfile::tempdir().unwrap(), produced: 0 }
    }

    fn program(&self, environment: &[(&str, &str)]) -> Process {
        let mut program = Command::new(example_program("save_as_files"));
        program.env("BOOTSTRAP_SERVERS", self.kafka.brokers()).env("DATABASE_URL", self.tables.url());
        program.env("TOPIC", &self.topic).env("OUTPUT", self.output()).envs(environment.iter().copied());
        Process::start(program, self.folder.path().join(unique("stderr")))
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    async fn produce(&mut self, count: i64) {
        let line = |n: i64| record(format!("line {}", self.produced + n));
        let lines = (0..count).map(line).collect();
        self.kafka.produce(&self.topic, lines).await;
        self.produced += count;
    }

    async fn is_committed(&self) -> bool {
        self.tables.committed().await == Some(self.produced)
    }

    /// The times of the folders of that prefix.
    fn times(&self, prefix: &str) -> BTreeSet<i64> {
        let time = |name: &str| name.strip_prefix(prefix)?.strip_prefix('-')?.split('.').next()?.parse().ok();
        names(&self.output()).iter().filter_map(|name| time(name)).collect()
    }

    /// The times of the batches that the store has.
    async fn committed_times(&self) -> BTreeSet<i64> {
        // Right after a kill a SQLite file wants recovery: a look with the right to write does that.
        let mut look = Inspector::open(&self.tables.url().parse().unwrap(), "save-as-files").await.unwrap();
        look.known().await.unwrap();
        batches(&self.tables).await.into_values().collect()
    }

    /// All folders together hold what Kafka's own console consumer gives; and there are no others than those of the ledger.
    async fn compare(&self) {
        let mut expected: Vec<Place> = Vec::new();
        for seen in self.kafka.recount(&self.topic).await {
            expected.push((seen.partition, seen.offset, seen.value.unwrap()));
        }
        expected.sort();
        assert_eq!(expected.len(), usize::try_from(self.produced).unwrap());
        let names = names(&self.output());
        let (mut lines, mut objects) = (Vec::new(), Vec::new());
        for name in names.iter().filter(|name| !name.starts_with('.')) {
            let path = self.output().join(name);
            assert!(path.join("_SUCCESS").exists(), "{name}");
            if name.starts_with("objects-") {
                objects.extend(Rdd::<Place>::object_file(path.to_str().unwrap()).unwrap().collect().unwrap());
            } else {
                assert!(name.starts_with("lines-") && name.ends_with(".txt"), "{name}");
                lines.extend(parts(&path).iter().flat_map(|text| text.lines()).map(place_of));
            }
        }
        lines.sort();
        objects.sort();
        let (missing, doubled) = difference(&expected, &lines);
        assert_eq!((missing, doubled), (0, 0), "missing and doubled lines of {}", expected.len());
        let (missing, doubled) = difference(&expected, &objects);
        assert_eq!((missing, doubled), (0, 0), "missing and doubled objects of {}", expected.len());
        let committed = self.committed_times().await;
        assert_eq!((self.times("lines"), self.times("objects")), (committed.clone(), committed));
        let hidden: Vec<_> = names.iter().filter(|name| name.starts_with('.')).collect();
        assert_eq!(hidden, [".lines-TIME.txt.owner", ".objects-TIME.owner"], "nothing unfinished is left");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The texts of all parts, read without the library.
fn parts(folder: &Path) -> Vec<String> {
    let parts = names(folder).into_iter().filter(|name| name.starts_with("part-"));
    parts.map(|name| fs::read_to_string(folder.join(name)).unwrap()).collect()
}

fn place_of(line: &str) -> Place {
    let mut words = line.splitn(3, ' ');
    let mut word = || words.next().unwrap();
    (word().parse().unwrap(), word().parse().unwrap(), word().to_owned())
}

/// How many `expected` places are not among the `found` ones, and how many found ones are too many.
fn difference(expected: &[Place], found: &[Place]) -> (usize, usize) {
    let mut counts = BTreeMap::<&Place, i64>::new();
    expected.iter().for_each(|place| *counts.entry(place).or_default() += 1);
    found.iter().for_each(|place| *counts.entry(place).or_default() -= 1);
    (counts.values().filter(|n| **n > 0).count(), counts.values().filter(|n| **n < 0).count())
}

#[test]
fn the_comparison_sees_a_missing_and_a_doubled_line() {
    let both = [1, 2].map(|offset| (0, offset, "a".to_owned()));
    let twice = [both[0].clone(), both[0].clone()];
    assert_eq!(difference(&both, &both), (0, 0));
    assert_eq!(difference(&both, &both[..1]), (1, 0));
    assert_eq!(difference(&both[..1], &twice), (0, 1));
}

async fn files_survive(tables: Tables) {
    let mut field = Field::new(tables).await;
    for (round, Death { point, passed, orphans }) in DEATHS.iter().enumerate() {
        let failpoints = death(point, *passed);
        let mut running = field.program(&[("RUN_ON", "1"), ("FAILPOINTS", &failpoints)]);
        for part in 0..PARTS {
            field.produce(11 + part + i64::try_from(round).unwrap()).await;
            wait_until("the part is committed, or the program killed", LIMIT, async || {
                running.has_ended() || field.is_committed().await
            })
            .await;
        }
        running.dies(point, LIMIT).await;
        let committed = field.committed_times().await;
        assert!(!committed.is_empty(), "the ledger can be read");
        for prefix in ["lines", "objects"] {
            let uncommitted = field.times(prefix).difference(&committed).count();
            let expected = usize::from(orphans.contains(&prefix));
            assert_eq!(uncommitted, expected, "folders of {prefix} without a batch after death {round} at {point:?}");
            assert_eq!(committed.difference(&field.times(prefix)).count(), 0, "a committed batch has its folder");
        }
    }
    let running = field.program(&[("RUN_ON", "1")]);
    field.produce(100).await;
    wait_until("all is committed", LIMIT, async || field.is_committed().await).await;
    assert!(running.kill(), "it was alive");
    assert!(field.committed_times().await.len() > DEATHS.len() * 3);
    field.compare().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_hold_each_record_once_however_often_the_process_is_killed_with_postgres() {
    files_survive(Tables::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_hold_each_record_once_however_often_the_process_is_killed_with_sqlite() {
    files_survive(Tables::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_for_a_while_is_waited_for() {
    let mut field = Field::new(Tables::sqlite()).await;
    field.produce(1_000).await;
    for point in ["files::mid_write", "files::before_flush"] {
        let failpoints = format!("{point}=8*off->2*return(errno:28)->off");
        let (code, told) = field.program(&[("FAILPOINTS", &failpoints)]).ended().await;
        assert_eq!(code, 0, "{told}");
        assert_eq!(told.matches(&format!("failpoint {point}: errno:28")).count(), 2, "{told}");
        field.compare().await;
        field.produce(500).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_may_not_be_written_to_ends_the_program_with_its_path() {
    let mut field = Field::new(Tables::sqlite()).await;
    field.produce(1_000).await;
    let (code, told) = field.program(&[("FAILPOINTS", "files::before_flush=20*off->return(errno:13)")]).ended().await;
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("Config in transform: cannot write a part file path="), "{told}");
    assert!(told.contains("/output/."), "{told}");
    let (code, told) = field.program(&[]).ended().await;
    assert_eq!(code, 0, "{told}");
    field.compare().await;
}
