//! From the arguments to a job: file, environment and `--set`, all faults at once.

use super::args::JobArgs;
use crate::{
    config::{Environment, Job, LoadOptions, load},
    error::{Error, Result},
    report::printable,
};

/// Reads the job file with environment and `--set`. Warnings go to the log; all faults come in one error, each on a line
/// of its own.
pub(super) fn load_job(args: &JobArgs) -> Result<Job> {
    let options = LoadOptions {
        environment: Environment::of_process(),
        sets: args.set.clone(),
        allow_unsafe_kafka_options: args.allow_unsafe_kafka_options,
    };
    let loaded = load(&args.job, &options).map_err(|faults| Error::config(faults.to_string()))?;
    for warning in &loaded.warnings {
        tracing::warn!("{}", printable(&warning.to_string()));
    }
    Ok(loaded.job)
}
