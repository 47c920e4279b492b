//! A job's store, looked at from outside.

use crate::{
    commit::{Inspector, StoreUrl},
    config::Job,
    error::{Error, Result, Stage},
};

/// The store's URL as the commit stage takes it.
pub(super) fn store_url(job: &Job) -> Result<StoreUrl> {
    job.store.url.expose().parse()
}

/// Waits for the store no longer than the job's `stream.start_timeout`.
pub(super) async fn in_time<T>(job: &Job, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = job.stream.start_timeout;
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_elapsed) => {
            let waited = limit.as_millis();
            Err(Error::unavailable(format!("the store does not answer url={} waited_ms={waited}", job.store.url)))
        }
    }
    .map_err(|error| error.at(Stage::Start))
}

/// The job's store with its offsets and ledger, if the job has ever run there.
pub(super) async fn open(job: &Job) -> Result<Inspector> {
    Inspector::open(&store_url(job)?, &job.name).await
}

/// The store is there, but the job never was.
pub(super) fn never_ran(job: &Job) -> Error {
    Error::config(format!("the store knows no application of this name: has it run yet? application={}", job.name))
}
