//! A job file as a stream: the same settings and the same graph that a Rust program would build.

use super::{DirectStream, StreamingContext, StreamingContextBuilder};
use crate::{
    config::Job,
    error::{Error, Result, Stage},
};

/// The context of a job file, its outputs defined, ready to start.
///
/// `adjust` may still change the builder, as the command line's flags do.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) if the job contradicts itself in a way that its loading does not see.
pub fn context_of(
    job: Job,
    adjust: impl FnOnce(StreamingContextBuilder) -> StreamingContextBuilder,
) -> Result<StreamingContext> {
    if job.outputs.is_empty() {
        return Err(Error::config(
            "a job file has no output but tables, and a checkpoint folder has none: write the job in Rust, or take a \
             postgres: or sqlite: store",
        ));
    }
    let builder = StreamingContext::builder(&job.name, job.stream.batch_interval)
        .stream_config(job.stream)
        .store_config(job.store)
        .report_config(job.report);
    let context = adjust(builder).build()?;
    let records =
        context.direct_stream(DirectStream { kafka: job.kafka, max_rate_per_partition: None, group_id: None })?;
    records.save_records(job.input.format, job.input.on_error, job.outputs);
    Ok(context)
}

/// Waits for the job's store, looked at from outside, no longer than its `stream.start_timeout`.
pub(crate) async fn in_time<T>(job: &Job, answer: impl Future<Output = Result<T>>) -> Result<T> {
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
