//! Work that waits, for stores whose clients know no other way: on a thread that may.

use super::store::not_connected;
use crate::error::{Error, Result};

/// Runs `work` on such a thread. A panic of it is one of this task.
pub(super) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Error::unavailable("the program is ending").caused_by(error)),
    }
}

/// The same with a session, which is gone after a panic.
pub(super) async fn with_session<S: Send + 'static, T: Send + 'static>(
    session: &mut Option<S>,
    work: impl FnOnce(&mut S) -> Result<T> + Send + 'static,
) -> Result<T> {
    let mut lent = session.take().ok_or_else(not_connected)?;
    let done = on_a_thread(move || {
        let done = work(&mut lent);
        (lent, done)
    });
    let (given_back, done) = done.await?;
    *session = Some(given_back);
    done
}
