//! A job that writes down the partition and offset of each record, and runs of it whose words are kept.

use std::time::Duration;

use super::tables::Tables;
use crate::support::{JobFile, Kafka, Process, unique};

/// Enough for anything, on a machine that is busy with other tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// Where each record lies.
pub(crate) const OUTPUT: &str = r#"
[[output]]
table = "events"
create = true
[output.columns]
part = { from = "partition", type = "bigint" }
off = { from = "offset", type = "bigint" }
"#;

pub(crate) struct Job {
    folder: tempfile::TempDir,
    pub(crate) tables: Tables,
}

impl Job {
    /// Over one topic, into a SQLite file. `kafka_keys` are lines of its section `[kafka]`.
    pub(crate) fn new(kafka: &Kafka, topic: &str, kafka_keys: &str) -> Self {
        Self::at(kafka.brokers(), topic, kafka_keys)
    }

    /// The same at any address.
    pub(crate) fn at(bootstrap_servers: &str, topic: &str, kafka_keys: &str) -> Self {
        let (folder, tables) = (tempfile::tempdir().unwrap(), Tables::sqlite());
        let job = JobFile::new(bootstrap_servers, topic, &tables.url()).kafka(kafka_keys);
        job.input("format = \"text\"").outputs(OUTPUT).write(folder.path());
        Self { folder, tables }
    }

    /// Starts it in the background; each of `settings` is a key and its value.
    pub(crate) fn start(&self, settings: &[&str]) -> Process {
        self.start_under_fire(settings, "")
    }

    /// The same with faults: `FAILPOINTS` of the program.
    pub(crate) fn start_under_fire(&self, settings: &[&str], failpoints: &str) -> Process {
        let arguments: Vec<&str> = settings
            .iter()
            .flat_map(|setting| match setting.starts_with("--") {
                true => vec![*setting],
                false => vec!["--set", *setting],
            })
            .collect();
        let job = self.folder.path().join("job.toml");
        Process::under_fire(&job, &arguments, failpoints, self.folder.path().join(unique("stderr")))
    }

    /// Runs it up to the offsets that are latest at its start: its exit code, and what it said.
    pub(crate) async fn until_latest(&self, settings: &[&str]) -> (i32, String) {
        self.start(&[settings, &["--until-latest"]].concat()).ended().await
    }

    /// The same, and it ends well.
    pub(crate) async fn reads_all(&self, settings: &[&str]) {
        let (code, told) = self.until_latest(settings).await;
        assert_eq!(code, 0, "{told}");
    }
}
