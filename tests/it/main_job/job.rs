//! A job that writes down the partition and offset of each record, and runs of it whose words are kept.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::tables::Tables;
use crate::support::{Kafka, unique, wait_for};

/// Enough for anything, on a machine that is busy with other tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

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
        let text = format!(
            r#"name = "job"
[kafka]
bootstrap_servers = "{bootstrap_servers}"
topics = ["{topic}"]
{kafka_keys}
[stream]
batch_interval = "50ms"
[input]
format = "text"
[store]
url = "{}"
[report]
listen = "off"
[[output]]
table = "events"
create = true
[output.columns]
part = {{ from = "partition", type = "bigint" }}
off = {{ from = "offset", type = "bigint" }}
"#,
            tables.url()
        );
        fs::write(folder.path().join("job.toml"), text).unwrap();
        Self { folder, tables }
    }

    /// Starts it in the background; each of `settings` is a key and its value.
    pub(crate) fn start(&self, settings: &[&str]) -> Running {
        self.start_under_fire(settings, "")
    }

    /// The same with faults: `FAILPOINTS` of the program.
    pub(crate) fn start_under_fire(&self, settings: &[&str], failpoints: &str) -> Running {
        let stderr = self.folder.path().join(unique("stderr"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_directstream"));
        command.arg("run").arg(self.folder.path().join("job.toml")).env("DIRECTSTREAM_LOG", "warn");
        command.env("FAILPOINTS", failpoints);
        for setting in settings {
            if setting.starts_with("--") {
                command.arg(setting)
            } else {
                command.args(["--set", setting])
            };
        }
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&stderr).unwrap());
        Running { child: command.spawn().unwrap(), stderr }
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

/// A process of `directstream run`. Dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    stderr: PathBuf,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Makes sure that it has not ended by itself; panics with what it said.
    pub(crate) fn runs(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{status}: {}", fs::read_to_string(&self.stderr).unwrap());
        }
    }

    /// Waits for its end: its exit code, and what it said.
    pub(crate) async fn ended(mut self) -> (i32, String) {
        let status = wait_for("the program ends", LIMIT, async || self.child.try_wait().unwrap()).await;
        (status.code().unwrap(), fs::read_to_string(&self.stderr).unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
