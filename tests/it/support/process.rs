//! The program in the background, or another one, and what it said.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use super::{unique, wait_for, wait_until_stopped};

/// Enough for the end of anything, on a machine that is busy with other tests.
const ENDED_WITHIN: Duration = Duration::from_secs(90);

/// The program, with nothing of this machine's settings in its environment but the defect that the tests are to find.
pub(crate) fn directstream(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_directstream"));
    for (name, _) in std::env::vars() {
        let ours = name.starts_with("DIRECTSTREAM") && name != "DIRECTSTREAM_MUTANT" || name.starts_with("OTEL_");
        if ours || ["RUST_LOG", "RUST_BACKTRACE", "NO_COLOR", "COLUMNS"].contains(&&*name) {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// The `FAILPOINTS` of a program that dies at `point` once it has passed it so often; none for no point.
pub(crate) fn death(point: &str, passed: u32) -> String {
    match (point, passed) {
        ("", _) => String::new(),
        (point, 0) => format!("{point}=1*return(kill)->off"),
        (point, passed) => format!("{point}={passed}*off->1*return(kill)->off"),
    }
}

/// A process whose stderr goes to a file. Dropped, it is killed.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Any program.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Self { child: command.spawn().unwrap(), log }
    }

    /// `directstream run` on a job file; it says warnings and errors.
    pub(crate) fn run(job: &Path, arguments: &[&str]) -> Self {
        Self::under_fire(job, arguments, "", job.with_file_name(unique("stderr")))
    }

    /// The same with faults: `FAILPOINTS` of the program, which says in its log that one fired.
    pub(crate) fn under_fire(job: &Path, arguments: &[&str], failpoints: &str, log: PathBuf) -> Self {
        let mut command = directstream(&["run"]);
        command.arg(job).args(arguments).env("DIRECTSTREAM_LOG", "warn").env("FAILPOINTS", failpoints);
        Self::start(command, log)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    pub(crate) fn told(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// How it ended, if it has.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.status().is_some()
    }

    /// Makes sure that it has not ended by itself; panics with what it said.
    pub(crate) fn runs(&mut self) {
        if let Some(status) = self.status() {
            panic!("{status}: {}", self.told());
        }
    }

    /// Sends a signal, by its name without SIG. By the shell: a small system has no program for it.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.id())]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until it is stopped by SIGSTOP.
    pub(crate) async fn stopped(&self, limit: Duration) {
        wait_until_stopped(self.id(), limit).await;
    }

    /// SIGKILL; whether that is what it died of.
    pub(crate) fn kill(mut self) -> bool {
        let lived = !self.has_ended();
        self.child.kill().unwrap();
        lived && self.child.wait().unwrap().signal() == Some(9)
    }

    /// Its death: at a failpoint that [`death`] set, which is waited for, or now and from outside where there is none. Panics if it
    /// died of anything else, or before its time.
    pub(crate) async fn dies(mut self, point: &str, limit: Duration) {
        if point.is_empty() {
            assert!(self.kill(), "it was alive");
            return;
        }
        let status = wait_for("it is killed", limit, async || self.status()).await;
        let told = self.told();
        assert_eq!(status.signal(), Some(9), "{status}: {told}");
        assert!(told.contains(&format!("failpoint {point}: kill")), "{told}");
    }

    /// Waits for its end, whatever it is.
    pub(crate) async fn end(mut self, limit: Duration) -> ExitStatus {
        self.wait(limit).await
    }

    async fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait_for("the program ends", limit, async || self.status()).await
    }

    /// Waits for its end: its exit code. What it said is among the test's own words.
    pub(crate) async fn code(mut self, limit: Duration) -> i32 {
        let status = self.wait(limit).await;
        eprint!("{}", self.told());
        status.code().unwrap_or_else(|| panic!("{status}"))
    }

    /// Waits for its end: its exit code, and what it said.
    pub(crate) async fn ended(mut self) -> (i32, String) {
        let status = self.wait(ENDED_WITHIN).await;
        let told = self.told();
        (status.code().unwrap_or_else(|| panic!("{status}: {told}")), told)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
