//! Standard error, shared by logs and a progress bar without one writing over the other.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use indicatif::ProgressBar;

/// Standard error. Cheap to clone; all clones know of the same progress bar.
#[derive(Clone)]
pub struct Terminal {
    bar: Arc<Mutex<Option<ProgressBar>>>,
    is_terminal: bool,
}

impl Terminal {
    /// Standard error, be it a terminal or not.
    #[must_use]
    pub fn stderr() -> Self {
        Self { bar: Arc::default(), is_terminal: io::stderr().is_terminal() }
    }

    /// Whether a person sees it as it is written.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Writes whole lines, above the bar if there is one.
    pub fn write(&self, lines: &str) {
        // With stderr closed there is nobody left to tell.
        let write = || _ = io::stderr().write_all(lines.as_bytes());
        // A copy, so that the lock is not held while the system writes.
        let bar = self.bar().clone();
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Shows the bar below everything that is written from now on; `None` forgets it.
    pub(super) fn show(&self, bar: Option<ProgressBar>) {
        *self.bar() = bar;
    }

    fn bar(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").field("is_terminal", &self.is_terminal).finish_non_exhaustive()
    }
}
