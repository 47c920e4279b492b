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

#[derive(Debug, Clone)]
enum Stage {
    Initialized,
    Active,
    Stopped(Result<Termination>),
}

/// A stream's life, for whoever wants to know of it.
#[derive(Debug)]
pub(super) struct Life {
    stage: watch::Sender<Stage>,
}

impl Life {
    pub(super) fn new() -> Self {
        Self { stage: watch::Sender::new(Stage::Initialized) }
    }

    pub(super) fn state(&self) -> StreamingContextState {
        match &*self.stage.borrow() {
            Stage::Initialized => StreamingContextState::Initialized,
            Stage::Active => StreamingContextState::Active,
            Stage::Stopped(_) => StreamingContextState::Stopped,
        }
    }

    /// Begins it; gives what it was before. Only what was [`Initialized`](StreamingContextState::Initialized) begins.
    pub(super) fn begin(&self) -> StreamingContextState {
        let before = self.state();
        let begins = |stage: &mut Stage| match stage {
            Stage::Initialized => {
                *stage = Stage::Active;
                true
            }
            Stage::Active | Stage::Stopped(_) => false,
        };
        if self.stage.send_if_modified(begins) { StreamingContextState::Initialized } else { before }
    }

    /// What was not begun never will be.
    pub(super) fn stop(&self) {
        self.stage.send_if_modified(|stage| match stage {
            Stage::Initialized => {
                *stage = Stage::Stopped(Ok(Termination::Stopped));
                true
            }
            Stage::Active | Stage::Stopped(_) => false,
        });
    }

    pub(super) fn end(&self, ended: Result<Termination>) {
        self.stage.send_replace(Stage::Stopped(ended));
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What ended it; [`Config`](crate::ErrorKind::Config) if it was not begun.
    pub(super) async fn ended(&self) -> Result<Termination> {
        let mut stage = self.stage.subscribe();
        loop {
            match &*stage.borrow_and_update() {
                Stage::Initialized => return Err(Error::config("the context was not started")),
                Stage::Active => {}
                Stage::Stopped(ended) => return ended.clone(),
            }
            if stage.changed().await.is_err() {
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
