//! A job file as a stream: the same settings and the same graph that a Rust program would build.

use super::{DirectStream, StreamingContext, StreamingContextBuilder};
use crate::{
    config::{self, Job},
    error::Result,
    transform::{InputFormat, OnError},
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
    let format = format_of(&job);
    let builder = StreamingContext::builder(&job.name, job.stream.batch_interval)
        .stream_config(job.stream)
        .store_config(job.store)
        .report_config(job.report);
    let context = adjust(builder).build()?;
    let records = context.direct_stream(DirectStream { kafka: job.kafka })?;
    let on_error = match job.input.on_error {
        config::OnError::Fail => OnError::Fail,
        config::OnError::DeadLetter => OnError::DeadLetter,
    };
    records.save_records(format, on_error, job.outputs);
    Ok(context)
}

/// What a record's value is, in the transform's words.
pub(super) fn format_of(job: &Job) -> InputFormat {
    match job.input.format {
        config::InputFormat::Json => InputFormat::Json,
        config::InputFormat::Text => InputFormat::Text,
        config::InputFormat::Bytes => InputFormat::Bytes,
    }
}
