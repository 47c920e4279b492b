//! `directstream offsets`

use super::{CommandEnd, Console, args::OffsetsShowArgs};
use crate::error::{Error, Result};

#[expect(clippy::unused_async, reason = "the command is not there yet")]
pub(super) async fn show(_args: OffsetsShowArgs, _console: &Console) -> Result<CommandEnd> {
    Err(Error::internal("this command is not built yet command=offsets"))
}
