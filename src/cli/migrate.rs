//! `directstream migrate`

use super::{CommandEnd, Console, args::JobArgs};
use crate::error::{Error, Result};

#[expect(clippy::unused_async, reason = "the command is not there yet")]
pub(super) async fn up(_args: JobArgs, _console: &Console) -> Result<CommandEnd> {
    Err(Error::internal("this command is not built yet command=migrate"))
}

#[expect(clippy::unused_async, reason = "the command is not there yet")]
pub(super) async fn down(_args: JobArgs, _console: &Console) -> Result<CommandEnd> {
    Err(Error::internal("this command is not built yet command=migrate"))
}

#[expect(clippy::unused_async, reason = "the command is not there yet")]
pub(super) async fn status(_args: JobArgs, _console: &Console) -> Result<CommandEnd> {
    Err(Error::internal("this command is not built yet command=migrate"))
}
