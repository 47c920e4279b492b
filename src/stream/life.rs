//! Where a stream is in its life, and how it ended.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Error, Result};

/// Why a stream ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Termination {
    /// It was stopped.
    Stopped,
    /// The offsets that were latest at start are committed.
    ReachedLatest,
}

/// Where a [`StreamingContext`](super::StreamingContext) is in its life. Spark: `StreamingContextState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamingContextState {
    /// It is being built: streams and outputs can be added.
    Initialized,
    /// It was started, and has not ended.
    Active,
    /// It has ended, or was stopped before it was started. It cannot be started again.
    Stopped,
}

/// Nothing is under way, and the driver sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resting {
    /// When it goes on, in monotonic time.
    pub(crate) until: Duration,
    /// Whether the batch before was dropped, and is then planned again.
    pub(crate) again: bool,
    /// How many intervals it has begun since its start.
    pub(crate) intervals: u64,
}

#[derive(Debug, Clone)]
enum Phase {
    Initialized,
    Active,
    Stopped(Result<Termination>),
}

impl Phase {
    fn state(&self) -> StreamingContextState {
        match self {
            Self::Initialized => StreamingContextState::Initialized,
            Self::Active => StreamingContextState::Active,
            Self::Stopped(_) => StreamingContextState::Stopped,
        }
    }
}

/// A stream's life, for whoever wants to know of it.
#[derive(Debug)]
pub(super) struct Life {
    phase: watch::Sender<Phase>,
}

impl Life {
    pub(super) fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Initialized) }
    }

    pub(super) fn state(&self) -> StreamingContextState {
        self.phase.borrow().state()
    }

    /// Begins it; gives what it was before. Only what was [`Initialized`](StreamingContextState::Initialized) begins.
    pub(super) fn begin(&self) -> StreamingContextState {
        let mut before = StreamingContextState::Initialized;
        self.phase.send_if_modified(|phase| {
            before = phase.state();
            let begins = before == StreamingContextState::Initialized;
            if begins {
                *phase = Phase::Active;
            }
            begins
        });
        before
    }

    /// What was not begun never will be.
    pub(super) fn stop(&self) {
        self.phase.send_if_modified(|phase| match phase {
            Phase::Initialized => {
                *phase = Phase::Stopped(Ok(Termination::Stopped));
                true
            }
            Phase::Active | Phase::Stopped(_) => false,
        });
    }

    pub(super) fn end(&self, ended: Result<Termination>) {
        self.phase.send_replace(Phase::Stopped(ended));
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What ended it; [`Config`](crate::ErrorKind::Config) if it was not begun.
    pub(super) async fn ended(&self) -> Result<Termination> {
        let mut phase = self.phase.subscribe();
        loop {
            match &*phase.borrow_and_update() {
                Phase::Initialized => return Err(Error::config("the context was not started")),
                Phase::Active => {}
                Phase::Stopped(ended) => return ended.clone(),
            }
            if phase.changed().await.is_err() {
                return Err(Error::internal("the context is gone"));
            }
        }
    }

    /// The same, for so long at most; `None`: it goes on.
    pub(super) async fn ended_within(&self, timeout: Duration) -> Result<Option<Termination>> {
        match tokio::time::timeout(timeout, self.ended()).await {
            Ok(ended) => ended.map(Some),
            Err(_elapsed) => Ok(None),
        }
    }
}
