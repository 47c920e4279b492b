//! `directstream demo`

use super::{CommandEnd, Console, args::DemoArgs};
use crate::error::{Error, Result};

#[expect(clippy::unused_async, reason = "the command is not there yet")]
pub(super) async fn demo(_args: DemoArgs, _console: &Console) -> Result<CommandEnd> {
    Err(Error::internal("this command is not built yet command=demo"))
}
