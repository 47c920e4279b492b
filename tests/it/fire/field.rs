//! The topic that all faults are tried on, and one store's job over it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::files;
use crate::{
    main_job::{
        recount::{OUTPUTS, Recount},
        tables::Tables,
    },
    support::{JobFile, Kafka, Process, example_program, record, shared_kafka, wait_for},
};

const PARTITIONS: i64 = 4;
const RECORDS: i64 = 1200;
const USERS: i64 = 40;
/// One in so many is no JSON.
const BAD_EVERY: i64 = 40;
/// Offsets of a partition in one batch of 20 ms, so that there are 25 batches.
const RATE_PER_SECOND: i64 = 600;
/// How long a run may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

struct Topic {
    kafka: Kafka,
    name: String,
    recount: Recount,
}

/// Produced and recounted once: the topic stays as it is.
async fn topic() -> &'static Topic {
    static TOPIC: OnceCell<Topic> = OnceCell::const_new();
    let make = async || {
        let kafka = shared_kafka().await;
        let name = kafka.topic(i32::try_from(PARTITIONS).unwrap()).await;
        let numbered = |id: i64| {
            let user = id * 7919 % USERS;
            let value = if id % BAD_EVERY == 0 {
                format!("no JSON {id}")
            } else {
                format!(r#"{{"id":{id},"user":"user-{user}","amount":{}}}"#, id % 97)
            };
            record(value).partition(i32::try_from(user % PARTITIONS).unwrap())
        };
        kafka.produce(&name, (0..RECORDS).map(numbered).collect()).await;
        let recount = Recount::of(&kafka, &name, PARTITIONS).await;
        Topic { kafka, name, recount }
    };
    TOPIC.get_or_init(make).await
}

/// Where a job's results are.
enum Results {
    Tables(Tables),
    /// Offsets in a checkpoint folder, results in files beside it.
    Files,
}

/// A job over the topic, into a store of its own.
pub(crate) struct Field {
    results: Results,
    pub(crate) job: PathBuf,
    topic: &'static Topic,
    folder: TempDir,
}

impl Field {
    pub(crate) async fn new(tables: Tables) -> Self {
        Self::with(Results::Tables(tables)).await
    }

    pub(crate) async fn on(store: &str) -> Self {
        Self::with(match store {
            "postgres" => Results::Tables(Tables::postgres().await),
            "sqlite" => Results::Tables(Tables::sqlite()),
            _ => Results::Files,
        })
        .await
    }

    async fn with(results: Results) -> Self {
        let (topic, folder) = (topic().await, tempfile::tempdir().unwrap());
        let job = folder.path().join("job.toml");
        if let Results::Tables(tables) = &results {
            job_file(folder.path(), topic, tables);
        }
        Self { results, job, topic, folder }
    }

    /// Starts the job with faults.
    pub(crate) fn run(&self, failpoints: &str) -> Process {
        self.run_with(&[], failpoints)
    }

    /// The same with settings: each a key and its value.
    pub(crate) fn run_with(&self, settings: &[&str], failpoints: &str) -> Process {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let arguments: Vec<_> = settings.chain(["--until-latest"]).collect();
        match &self.results {
            Results::Tables(_) => Process::under_fire(&self.job, &arguments, failpoints, self.log()),
            Results::Files => self.example(failpoints, self.log()),
        }
    }

    /// Starts the job once more, beside the one that runs.
    pub(crate) fn rival(&self) -> Process {
        Process::under_fire(&self.job, &["--until-latest"], "", self.rival_log())
    }

    fn rival_log(&self) -> PathBuf {
        self.folder.path().join("rival.txt")
    }

    /// What the last rival wrote to stderr.
    pub(crate) fn rival_said(&self) -> String {
        std::fs::read_to_string(self.rival_log()).unwrap()
    }

    fn example(&self, failpoints: &str, log: PathBuf) -> Process {
        let path = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(example_program("checkpoint_recovery"));
        command.env("BOOTSTRAP_SERVERS", self.topic.kafka.brokers()).env("TOPIC", &self.topic.name);
        command.env("CHECKPOINT", path("checkpoint")).env("OUTPUT", path("output"));
        command.env("FAILPOINTS", failpoints);
        Process::start(command, log)
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("stderr.txt")
    }

    /// What the faulty run wrote to stderr.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap()
    }

    /// A clean run finishes alone.
    pub(crate) async fn finish(&self) {
        let clean = match &self.results {
            Results::Tables(_) => Process::run(&self.job, &["--until-latest"]),
            Results::Files => self.example("", self.folder.path().join("clean.txt")),
        };
        assert_eq!(clean.code(LIMIT).await, 0);
    }

    /// The tables of a job that has some.
    pub(crate) fn tables(&self) -> &Tables {
        let Results::Tables(tables) = &self.results else { panic!("files only") };
        tables
    }

    /// Every record is there once.
    pub(crate) async fn compare(&self) {
        match &self.results {
            Results::Tables(tables) => self.topic.recount.compare(tables).await,
            Results::Files => files::compare(&self.topic.recount, self.folder.path()).await,
        }
    }

    /// Records that were committed by the process that finished the work.
    pub(crate) async fn committed_last(&self) -> i64 {
        match &self.results {
            Results::Tables(tables) => tables.committed_last().await,
            Results::Files => files::committed_last(self.folder.path()).await,
        }
    }

    /// How many of them are committed.
    pub(crate) async fn committed(&self) -> i64 {
        wait_for("a look at the store", LIMIT, async || self.tables().committed().await).await
    }

    /// All records of the topic.
    pub(crate) fn records(&self) -> i64 {
        self.topic.recount.end()
    }
}

fn job_file(folder: &Path, topic: &Topic, tables: &Tables) {
    let stream = format!("batch_interval = \"20ms\"\nmax_rate_per_partition = {RATE_PER_SECOND}");
    let job = JobFile::new(topic.kafka.brokers(), &topic.name, &tables.url()).name("fire").stream(stream);
    job.input("on_error = \"dead_letter\"").outputs(OUTPUTS).write(folder);
}
