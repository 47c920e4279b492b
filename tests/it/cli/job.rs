//! What the commands do with a job file before any server answers.

use std::{fs, net::TcpListener, path::PathBuf};

use super::{Ran, directstream, run};

/// A job whose broker does not exist.
const JOB: &str = r#"
name = "orders"
[kafka]
bootstrap_servers = "127.0.0.1:1"
topics = ["orders"]
[stream]
start_timeout = "1s"
[store]
url = "sqlite:orders.db"
[[output]]
table = "orders"
create = true
columns.body.from = "value"
[report]
listen = "127.0.0.1:0"
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn with_job(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("job.toml"), text).unwrap();
        Self(folder)
    }

    /// Runs a command in the folder.
    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut command = directstream(arguments);
        command.current_dir(self.0.path()).envs(environment.iter().copied());
        run(command)
    }

    fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

fn error_lines(ran: &Ran) -> Vec<&str> {
    ran.stderr.lines().filter_map(|line| line.strip_prefix("directstream: error: ")).collect()
}

#[test]
fn every_fault_of_a_job_file_is_told_at_once_before_anything_is_touched() {
    let faulty = JOB.replace("topics", "topcis").replace("\"1s\"", "1").replace("create = true", "create = \"yes\"");
    let folder = Folder::with_job(&faulty);
    for command in ["check-config", "run"] {
        let ran = folder.run(&[command, "job.toml"], &[]);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{}", ran.stderr);
        let lines = error_lines(&ran);
        assert_eq!(lines.len(), ran.stderr.lines().count(), "{}", ran.stderr);
        for fault in ["kafka.topcis", "stream.start_timeout", "output.0.create"] {
            let told = lines.iter().any(|line| line.starts_with("job.toml:") && line.contains(fault));
            assert!(told, "{fault}: {}", ran.stderr);
        }
        assert_eq!(folder.files().len(), 1);
    }
}

#[test]
fn a_missing_job_file_is_one_line() {
    let ran = Folder::with_job(JOB).run(&["run", "other.toml"], &[]);
    assert_eq!((ran.code, &*ran.stdout, ran.stderr.lines().count()), (2, "", 1), "{}", ran.stderr);
    assert!(error_lines(&ran)[0].starts_with("other.toml: "), "{}", ran.stderr);
}

#[test]
fn check_config_says_where_each_value_came_from() {
    let folder = Folder::with_job(JOB);
    let arguments = ["check-config", "job.toml", "--set", "stream.batch_interval=3s", "--output", "json"];
    let ran = folder.run(&arguments, &[("DIRECTSTREAM__STREAM__MEMORY_MAX", "64MiB")]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let text = document.to_string();
    for word in ["stream.batch_interval", "3s", "--set", "64MiB", "DIRECTSTREAM__STREAM__MEMORY_MAX", "job.toml:2"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_taken_port_ends_with_2_and_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = Folder::with_job(JOB).run(&["run", "job.toml", "--set", &format!("report.listen={address}")], &[]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""), "{}", ran.stderr);
    assert!(error_lines(&ran)[0].contains(&format!("address={address}")), "{}", ran.stderr);
}

#[test]
fn a_broker_that_does_not_answer_ends_with_3_and_one_line() {
    let ran =
        Folder::with_job(JOB).run(&["run", "job.toml", "--output", "json"], &[("DIRECTSTREAM_LOG_FORMAT", "json")]);
    assert_eq!((ran.code, &*ran.stdout), (3, ""), "{}", ran.stderr);
    assert_eq!(error_lines(&ran).len(), 1, "{}", ran.stderr);
    for line in ran.stderr.lines().filter(|line| !line.starts_with("directstream: error: ")) {
        let logged: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(logged["time"].is_string() && logged["level"].is_string() && logged["message"].is_string(), "{line}");
    }
}
