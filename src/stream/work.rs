//! Work of a batch that may wait, or never return.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    error::{Error, Result},
    transform::panic_text,
};

/// Runs `work` on a thread of its own, inside the runtime that called. Not on one of the runtime's threads for blocking
/// work: the runtime's end would wait for user code that never returns, and the process with it.
///
/// The future that comes back may be dropped: the thread goes on, and what it gives is thrown away.
pub(super) fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T>> + Unpin {
    let (give, mut given) = oneshot::channel();
    let runtime = Handle::current();
    let started = std::thread::Builder::new().name("batch".to_owned()).spawn(move || {
        let _inside = runtime.enter();
        let done = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
            // The user's code has its own net, nearer to it: what gets here is a defect of ours.
            Error::internal(format!("a panic in the batch's own work: {}", panic_text(&*panic)))
        });
        // Nobody waits any more: the batch was given up.
        let _ = give.send(done);
    });
    if started.is_err() {
        given.close();
    }
    Box::pin(async move { given.await.unwrap_or_else(|_| Err(Error::internal("cannot start a thread for the batch"))) })
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test]
    async fn what_the_work_gives_comes_back_and_a_panic_is_ours() {
        assert_eq!(on_own_thread(|| 7).await.unwrap(), 7);
        let error = on_own_thread(|| -> u8 { panic!("no good") }).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (ErrorKind::Internal, "a panic in the batch's own work: no good".into())
        );
    }

    #[test]
    fn work_that_never_returns_does_not_hold_the_runtime_up() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (starts, started) = mpsc::channel();
        let (_never, stuck) = mpsc::channel::<()>();
        let inside = runtime.enter();
        let work = on_own_thread(move || {
            let _ = starts.send(());
            stuck.recv()
        });
        // A runtime does not wait for work that has not begun.
        started.recv().unwrap();
        drop(work);
        drop(inside);
        let (ends, ended) = mpsc::channel();
        std::thread::spawn(move || {
            drop(runtime);
            let _ = ends.send(());
        });
        ended.recv_timeout(Duration::from_secs(10)).expect("the runtime ends");
    }
}
