//! `directstream batches`

use super::{CommandEnd, Console, args::BatchesArgs};
use crate::error::{Error, Result};

#[expect(clippy::unused_async, reason = "the command is not there yet")]
pub(super) async fn batches(_args: BatchesArgs, _console: &Console) -> Result<CommandEnd> {
    Err(Error::internal("this command is not built yet command=batches"))
}
