//! `directstream migrate`: makes, removes or shows the store's own tables.

use serde::Serialize;

use super::{
    CommandEnd, Console, Table,
    args::{JobArgs, MigrateDownArgs},
    job::load_job,
};
use crate::{
    commit::{MigrationStatus, migrate_down, migrate_up, migration_status},
    config::Job,
    error::Result,
    stream::in_time,
};

/// What changed, and what the store has now.
#[derive(Debug, Serialize)]
struct Migrated {
    store: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<Vec<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<Vec<i64>>,
    migrations: Vec<Migration>,
}

#[derive(Debug, Serialize)]
struct Migration {
    version: i64,
    name: String,
    applied: bool,
}

/// Creates the tables, or brings them up to this version's shape.
pub(super) async fn up(args: JobArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(&args)?;
    let applied = in_time(&job, migrate_up(&job.store.url)).await?;
    print(&job, Some(applied), None, console).await
}

/// Removes what is above a version, and what it holds.
pub(super) async fn down(args: MigrateDownArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(&args.job)?;
    let removed = in_time(&job, migrate_down(&job.store.url, args.to)).await?;
    print(&job, None, Some(removed), console).await
}

/// Shows which migrations are applied.
pub(super) async fn status(args: JobArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(&args)?;
    print(&job, None, None, console).await
}

async fn print(
    job: &Job,
    applied: Option<Vec<i64>>,
    removed: Option<Vec<i64>>,
    console: &Console,
) -> Result<CommandEnd> {
    let migrations = in_time(job, migration_status(&job.store.url)).await?.into_iter().map(Migration::of).collect();
    let document = Migrated { store: job.store.url.to_string(), applied, removed, migrations };
    console.print(&document, text)?;
    Ok(CommandEnd::Done)
}

impl Migration {
    fn of(status: MigrationStatus) -> Self {
        Self { version: status.version, name: status.name, applied: status.applied }
    }
}

fn text(document: &Migrated) -> String {
    let mut table = Table::new(["VERSION", "NAME", "APPLIED"]).right([0]);
    for migration in &document.migrations {
        let applied = if migration.applied { "yes" } else { "no" };
        table.row([migration.version.to_string(), migration.name.clone(), applied.to_owned()]);
    }
    let (what, versions) = match (&document.applied, &document.removed) {
        (Some(versions), _) => ("applied", versions),
        (_, Some(versions)) => ("removed", versions),
        _ => return table.render(),
    };
    let versions: Vec<String> = versions.iter().map(i64::to_string).collect();
    let versions = if versions.is_empty() { "nothing".to_owned() } else { versions.join(", ") };
    format!("{}\n{what}: {versions}", table.render())
}
