//! A mirror's task: writes what is due, waits, and never hurries a server that is away.

use std::{sync::Arc, time::Duration};

use super::{MirrorEnd, MirrorState, MirrorTarget, Ownership, slot::Due};
use crate::{
    error::{Error, ErrorKind, Result},
    failpoint,
    report::RateLimit,
};

/// The pause after each write, and after each that failed: a server gets at most one request a second, however short the
/// batches are and however long it is away.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether what is kept beside the offsets is still there.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often all is written although nothing moved: Kafka forgets the offsets of a group without members after
/// `offsets.retention.minutes`, seven days by default.
const AGAIN_EVERY: Duration = Duration::from_secs(60 * 60);
/// Lines about one mirror come at most so often.
const LOG_EVERY: Duration = Duration::from_secs(30);

pub(super) struct Worker {
    shared: Arc<MirrorState>,
    target: Box<dyn MirrorTarget>,
    owner: Arc<dyn Ownership>,
    lines: RateLimit<bool>,
    failing: bool,
    /// When all was written last, in monotonic time.
    whole_at: Duration,
}

/// What a try came to.
enum Tried {
    Written,
    /// The target failed.
    Failed(Error),
    /// Nobody could say whose the application is, so nothing was written.
    NotProved,
    /// The application is another process's.
    Fenced,
}

impl Worker {
    pub(super) fn new(shared: Arc<MirrorState>, target: Box<dyn MirrorTarget>, owner: Arc<dyn Ownership>) -> Self {
        let whole_at = shared.clock.monotonic();
        Self { shared, target, owner, lines: RateLimit::every(LOG_EVERY), failing: false, whole_at }
    }

    pub(super) async fn run(mut self) {
        let mut last_try = false;
        loop {
            let end = *self.shared.end.borrow();
            let due = match end {
                Some(MirrorEnd::Abandon) => break,
                // At its end a mirror tries once more, and not twice.
                Some(MirrorEnd::Flush) if last_try => break,
                _ => self.shared.with(|told| told.slot.due()),
            };
            let Some(due) = due else {
                if end.is_some() {
                    break;
                }
                self.rest().await;
                continue;
            };
            last_try = end.is_some();
            match self.write(due).await {
                Tried::Written => self.succeeded(),
                Tried::Failed(error) => self.failed(&error),
                Tried::NotProved => {}
                Tried::Fenced => break,
            }
            self.pause().await;
        }
        self.target.close().await;
    }

    async fn write(&mut self, due: Due) -> Tried {
        if let Err(error) = failpoint::hit("mirror::before_write") {
            return Tried::Failed(error);
        }
        // A commit of a moment ago is no proof: the process may have stood still since, and another one may own the application.
        // The answer comes after any commit under way, so that it also keeps the mirror behind the store.
        let asked = if failpoint::mutant("mirror_before_commit") { Ok(()) } else { self.owner.check().await };
        match asked {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Fenced => return Tried::Fenced,
            Err(_) => return Tried::NotProved,
        }
        let now = self.shared.clock.monotonic();
        let written: Result<()> = self.target.write(&due.offsets).await;
        match written {
            Ok(()) => {
                if due.whole {
                    self.whole_at = now;
                }
                self.shared.with(|told| told.slot.wrote(due));
                Tried::Written
            }
            Err(error) => Tried::Failed(error),
        }
    }

    fn succeeded(&mut self) {
        self.shared.succeeded();
        if std::mem::take(&mut self.failing) && self.lines.admit(true, self.shared.clock.monotonic()).is_some() {
            tracing::info!(mirror = self.shared.kind.as_str(), "the committed offsets are mirrored again");
        }
    }

    fn failed(&mut self, error: &Error) {
        self.shared.failed();
        self.failing = true;
        if let Some(held_back) = self.lines.admit(false, self.shared.clock.monotonic()) {
            let lag = self.shared.with(|told| told.slot.lag());
            let held_back = Some(held_back).filter(|count| *count > 0);
            let mirror = self.shared.kind.as_str();
            tracing::warn!(mirror, lag, held_back, error = error.chain(), "the committed offsets are not mirrored");
        }
    }

    /// Nothing is due. Ends when something is, or may be.
    async fn rest(&mut self) {
        let mut end = self.shared.end.subscribe();
        tokio::select! {
            () = self.shared.changed.notified() => {}
            _ = end.wait_for(Option::is_some) => {}
            () = self.shared.clock.sleep(LOOK_EVERY) => {
                let since = self.shared.clock.monotonic().saturating_sub(self.whole_at);
                if since >= AGAIN_EVERY || !self.target.is_whole() {
                    self.shared.with(|told| told.slot.again());
                }
            }
        }
    }

    /// Ends early when the mirror does.
    async fn pause(&mut self) {
        let mut end = self.shared.end.subscribe();
        tokio::select! {
            _ = end.wait_for(Option::is_some) => {}
            () = self.shared.clock.sleep(PAUSE) => {}
        }
    }
}
