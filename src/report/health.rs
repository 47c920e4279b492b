//! Whether the process is alive and makes progress, and whether it does its work: pure judgements over what the driver
//! told.

use std::{fmt, time::Duration};

use super::metrics::kind_label;
use crate::error::ErrorKind;

/// A process whose driver has stood still for so long is not healthy. It tells progress at least once a second, also while it waits
/// for servers, for user code and for commits, each of which has a limit of its own.
pub const STALL_MAX: Duration = Duration::from_secs(120);

/// What the process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Connecting, migrating, restoring.
    Starting,
    /// Waiting for the application's owner to leave.
    Standby,
    /// Owner of the application, planning and committing.
    Running,
    /// Finishing or abandoning the batch in hand.
    Stopping,
    /// Ended by an error.
    Failed,
}

impl Status {
    pub(super) const ALL: [Self; 5] = [Self::Starting, Self::Standby, Self::Running, Self::Stopping, Self::Failed];
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
        })
    }
}

/// The answer to a health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthAnswer {
    /// Whether the check passed: 200 or 503.
    pub ok: bool,
    /// One line of JSON.
    pub body: String,
}

/// What the judgements rest on.
#[derive(Debug, Clone)]
pub(super) struct Health {
    pub(super) status: Status,
    pub(super) last_progress: Duration,
    pub(super) plans: u64,
    pub(super) batch_seq: u64,
    pub(super) failure: Option<ErrorKind>,
    pub(super) stall_max: Duration,
}

impl Health {
    pub(super) fn starting_at(now: Duration) -> Self {
        Self {
            status: Status::Starting,
            last_progress: now,
            plans: 0,
            batch_seq: 0,
            failure: None,
            stall_max: STALL_MAX,
        }
    }

    /// `/healthz`: alive and making progress. Servers that are away do not count against it: a restart brings none back.
    pub(super) fn healthy(&self, now: Duration) -> HealthAnswer {
        let idle = now.saturating_sub(self.last_progress);
        let reason = match (self.status, self.failure) {
            (Status::Failed, Some(kind)) => Some(kind_label(kind)),
            (Status::Failed, None) => Some("failed"),
            _ if idle > self.stall_max => Some("no_progress"),
            _ => None,
        };
        self.answer(reason, idle)
    }

    /// `/readyz`: owner of the application, and at least one plan succeeded.
    pub(super) fn ready(&self, now: Duration) -> HealthAnswer {
        let idle = now.saturating_sub(self.last_progress);
        let reason = match self.status {
            Status::Running if self.plans > 0 => None,
            Status::Running | Status::Starting => Some("starting"),
            Status::Standby => Some("standby"),
            Status::Stopping => Some("stopping"),
            Status::Failed => Some("failed"),
        };
        self.answer(reason, idle)
    }

    fn answer(&self, reason: Option<&'static str>, idle: Duration) -> HealthAnswer {
        let ok = reason.is_none();
        let body = serde_json::json!({
            "ok": ok,
            "status": self.status.to_string(),
            "reason": reason,
            "batch_seq": self.batch_seq,
            "last_progress_ms": u64::try_from(idle.as_millis()).unwrap_or(u64::MAX),
        });
        HealthAnswer { ok, body: body.to_string() }
    }
}
