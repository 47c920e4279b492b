//! Waiting for a condition, with a deadline, instead of sleeping for a time.

use std::time::{Duration, Instant};

/// How often a condition is looked at: short beside what tests wait for, long beside what a look costs.
const LOOK: Duration = Duration::from_millis(20);

/// What `look` finds, as soon as it finds something; panics with `what` after `limit`.
pub(crate) async fn wait_for<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Returns once `condition` holds; panics with `what` after `limit`.
pub(crate) async fn wait_until(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    wait_for(what, limit, async || condition().await.then_some(())).await;
}

/// Returns once a process stands still, which it does not yet when SIGSTOP has been sent.
pub(crate) async fn wait_until_stopped(process: u32, limit: Duration) {
    wait_until("the process stands still", limit, async || {
        // "pid (command) state ..."
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
    .await;
}
