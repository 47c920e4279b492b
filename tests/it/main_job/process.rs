//! A run of the program.

use std::{
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use crate::support::{wait_for, wait_until_stopped};

/// A process of `directstream run`. Dropped, it is killed.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Runs a job file with further arguments; what it logs goes to the test's own stderr.
    pub(crate) fn run(job: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_directstream"));
        command.arg("run").arg(job).args(arguments).env("DIRECTSTREAM_LOG", "warn");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        Self { child }
    }

    /// The same with faults: `FAILPOINTS` of the program, which says in `log` (its stderr) that one fired.
    pub(crate) fn under_fire(job: &Path, arguments: &[&str], failpoints: &str, log: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_directstream"));
        command.arg("run").arg(job).args(arguments).env("DIRECTSTREAM_LOG", "warn").env("FAILPOINTS", failpoints);
        let log = std::fs::File::create(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child }
    }

    /// Another program with faults.
    pub(crate) fn program(mut command: Command, failpoints: &str, log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        command.env("FAILPOINTS", failpoints).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self { child: command.spawn().unwrap() }
    }

    /// Waits until it is stopped by SIGSTOP.
    pub(crate) async fn stopped(&mut self, limit: Duration) {
        wait_until_stopped(self.id(), limit).await;
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lets it go on after SIGSTOP.
    pub(crate) fn go_on(&self) {
        let done = Command::new("sh").args(["-c", &format!("kill -CONT {}", self.id())]).status().unwrap();
        assert!(done.success());
    }

    /// Waits for its end, whatever it is.
    pub(crate) async fn end(mut self, limit: Duration) -> ExitStatus {
        wait_for("the program ends", limit, async || self.ended()).await
    }

    /// Whether it ended by itself, and how.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// SIGKILL; whether it hit a live process.
    pub(crate) fn kill(mut self) -> bool {
        let lived = self.ended().is_none();
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        lived && std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
    }

    /// Waits for its end; its exit code.
    pub(crate) async fn code(mut self, limit: Duration) -> i32 {
        let status = wait_for("the program ends", limit, async || self.ended()).await;
        status.code().unwrap_or_else(|| panic!("{status}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
