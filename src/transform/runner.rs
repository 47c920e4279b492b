//! Where tasks run.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::error::{Error, ErrorKind, Result, Stage};

/// Runs the tasks of one stage. The driver's own process has [`LocalRunner`]; another runner may send stages elsewhere.
pub trait Runner: Send + Sync + fmt::Debug {
    /// Runs `task(0)` to `task(count - 1)`, each once and in any order, and waits for all that were started. After a
    /// failure no new one is started.
    ///
    /// # Errors
    /// What the failed task of the lowest index failed with. A panic is [`ErrorKind::Transform`].
    fn run(&self, count: usize, task: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()>;

    /// How many tasks can run at a time.
    fn parallelism(&self) -> usize;
}

/// Threads of this process, one per core by default: the async runtime only waits.
#[derive(Debug, Clone)]
pub struct LocalRunner {
    threads: usize,
}

impl LocalRunner {
    /// A runner with `threads` threads, at least one.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1) }
    }

    /// One thread per core that this process may use.
    #[must_use]
    pub fn per_core() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Runner for LocalRunner {
    fn run(&self, count: usize, task: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> {
        let next = AtomicUsize::new(0);
        let stopped = AtomicBool::new(false);
        let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let work = || {
            while !stopped.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                if let Err(error) = run_caught(task, index) {
                    stopped.store(true, Ordering::Relaxed);
                    let mut first = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    // The error of the lowest index: the same one whatever the threads' order, as far as that goes.
                    if first.as_ref().is_none_or(|(at, _)| index < *at) {
                        *first = Some((index, error));
                    }
                }
            }
        };
        // Starting a thread costs tens of microseconds, once per stage of a batch: cheaper than it is worth keeping a pool.
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(count) {
                scope.spawn(work);
            }
            work();
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    fn parallelism(&self) -> usize {
        self.threads
    }
}

/// A panic in the user's code fails its batch, not the process.
fn run_caught(task: &(dyn Fn(usize) -> Result<()> + Sync), index: usize) -> Result<()> {
    catch_unwind(AssertUnwindSafe(|| task(index))).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// The error that a caught panic is.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
    Error::new(ErrorKind::Transform, format!("the user's code panicked: {}", panic_text(panic))).at(Stage::Transform)
}

/// What a caught panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        let runs: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
        LocalRunner::new(3)
            .run(100, &|index| {
                runs[index].fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
            .unwrap();
        assert!(runs.iter().all(|run| run.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn a_panic_is_an_error_of_its_batch() {
        let error =
            LocalRunner::new(2).run(4, &|index| if index == 2 { panic!("no good") } else { Ok(()) }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transform);
        assert_eq!(error.to_string(), "the user's code panicked: no good");
    }
}
