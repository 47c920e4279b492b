//! `directstream run`

use super::{CommandEnd, Console, args::RunArgs};
use crate::error::{Error, Result};

#[expect(clippy::unused_async, reason = "the command is not there yet")]
pub(super) async fn run(_args: RunArgs, _console: &Console) -> Result<CommandEnd> {
    Err(Error::internal("this command is not built yet command=run"))
}
