//! What a service manager is told (`sd_notify`): that the job has started, that it makes progress, that it stops.
//! Without `NOTIFY_SOCKET` in the environment nobody is told anything.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

use crate::report::{Reporter, Status};

/// How often the job is looked at; a watchdog that wants to hear more often is told more often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The variable that names whom to tell.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Tells, until it is dropped.
#[derive(Debug)]
pub(super) struct ServiceManager {
    task: JoinHandle<()>,
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ServiceManager {
    /// The job was asked to stop, which it may have done before the next look.
    pub(super) fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }
}

/// Begins to tell of a job, if there is somebody who wants to hear it.
pub(super) fn tell_of(reporter: Reporter) -> Option<ServiceManager> {
    std::env::var_os(SOCKET)?;
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(LOOK_EVERY, |limit| LOOK_EVERY.min(limit / 3));
    Some(ServiceManager { task: tokio::spawn(follow(reporter, every, watchdog.is_some())) })
}

async fn follow(reporter: Reporter, every: Duration, watched: bool) {
    let mut look = tokio::time::interval(every);
    let mut ready = false;
    loop {
        look.tick().await;
        let doing = reporter.current_status();
        let totals = reporter.totals();
        let (batches, records, lag) = (totals.batches, totals.records, reporter.lag());
        let status = format!("{doing}: {batches} batches, {records} records, {lag} offsets behind");
        let mut states = vec![NotifyState::Status(&status)];
        // A standby has started as well: it does what it is for.
        if !ready && (doing == Status::Standby || reporter.ready().ok) {
            ready = true;
            states.push(NotifyState::Ready);
        }
        // Who makes no progress falls silent, and is started again.
        if watched && reporter.healthy().ok {
            states.push(NotifyState::Watchdog);
        }
        notify(&states);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager cannot be told: {error}");
    }
}
