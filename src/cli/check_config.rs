//! `directstream check-config`: every value of a job and where it came from.

use serde::Serialize;

use super::{CommandEnd, Console, Table, args::JobArgs, job::load_job};
use crate::{config::effective, error::Result};

#[derive(Serialize)]
struct Setting {
    key: String,
    value: Option<String>,
    origin: String,
}

/// Prints the settings in effect and where each came from. Connects to nothing.
pub(super) fn check_config(args: &JobArgs, console: &Console) -> Result<CommandEnd> {
    let job = load_job(args)?;
    let settings: Vec<Setting> = effective(&job)
        .into_iter()
        .map(|value| Setting { key: value.path, value: value.value, origin: value.origin.to_string() })
        .collect();
    console.print(&settings, |settings| {
        let mut table = Table::new(["KEY", "VALUE", "ORIGIN"]);
        for setting in settings {
            table.row([setting.key.clone(), setting.value.clone().unwrap_or_default(), setting.origin.clone()]);
        }
        table.render()
    })?;
    Ok(CommandEnd::Done)
}
