//! The arguments of `health`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::{JobArgs, offsets};

/// `health`
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// The job file, for its report.listen.
    #[arg(value_name = "JOB.toml", required_unless_present = "address")]
    pub job: Option<PathBuf>,

    /// Where the job listens, instead of what its file says.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "job")]
    pub address: Option<SocketAddr>,

    /// Ask whether it does its work: it owns the application and has planned a batch. A standby does not.
    #[arg(long)]
    pub ready: bool,

    /// How long to wait for the answer.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = offsets::duration)]
    pub timeout: Duration,
}

impl HealthArgs {
    /// Which job, as other commands are told.
    #[must_use]
    pub fn job_args(&self) -> JobArgs {
        let job = self.job.clone().unwrap_or_default();
        JobArgs { job, set: Vec::new(), allow_unsafe_kafka_options: true }
    }
}
