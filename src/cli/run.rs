//! `directstream run`: one job, until a signal or the latest offsets end it.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{CommandEnd, Console, args::RunArgs, job::load_job, systemd};
use crate::{
    commit::Ownership,
    error::{Error, Result},
    stream::{Termination, context_of},
};

/// How often the progress of `--until-latest` is looked at.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Runs a job until a signal comes, `--until-latest` is reached, or something ends it.
pub(super) async fn run(args: RunArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(&args.job)?;
    let name = job.name.clone();
    let ownership = match (args.standby, args.take_over) {
        (true, _) => Ownership::Standby,
        (_, true) => Ownership::TakeOver,
        _ => Ownership::Wait,
    };
    let context = context_of(job, |builder| builder.ownership(ownership).until_latest(args.until_latest))?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let life = async {
        context.start().await?;
        context.await_termination().await
    };
    tokio::pin!(life);
    let mut progress = args.until_latest.then(|| console.progress(&name, None));
    let mut look = tokio::time::interval(PROGRESS_INTERVAL);
    let service_manager = systemd::tell_of(context.reporter().clone());
    let mut signalled = None;
    let ended = loop {
        let end = tokio::select! {
            ended = &mut life => break ended,
            _ = interrupt.recv() => CommandEnd::Interrupted,
            _ = terminate.recv() => CommandEnd::Terminated,
            _ = look.tick(), if progress.is_some() => {
                if let Some(progress) = &mut progress {
                    progress.follow(context.reporter());
                }
                continue;
            }
        };
        if signalled.is_some() {
            // A second signal: at once. What is not committed is abandoned whole, as after a crash.
            return Ok(end);
        }
        tracing::info!("asked to stop: finishing the batch in hand");
        signalled = Some(end);
        if let Some(service_manager) = &service_manager {
            service_manager.stopping();
        }
        context.stop();
    };
    drop(progress);
    if let Some(end) = signalled {
        // A signal is always answered by its own exit code; what else went wrong is in the log.
        if let Err(error) = ended {
            tracing::error!("{}", error.chain());
        }
        return Ok(end);
    }
    let reason = match ended? {
        Termination::Stopped => "stopped",
        Termination::ReachedLatest => "reached_latest",
    };
    let totals = context.reporter().totals();
    let document = serde_json::json!({
        "application": name,
        "reason": reason,
        "batches": totals.batches,
        "records": totals.records,
    });
    console.print(&document, |document| {
        format!("{}: {} batches, {} records committed ({reason})", name, document["batches"], document["records"])
    })?;
    Ok(CommandEnd::Done)
}

/// A signal, as it comes.
pub(super) fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal> {
    signal(kind).map_err(|error| Error::internal("cannot listen for signals").caused_by(error))
}
