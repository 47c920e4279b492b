//! `directstream check-config`

use super::{CommandEnd, Console, args::JobArgs};
use crate::error::{Error, Result};

pub(super) fn check_config(_args: &JobArgs, _console: &Console) -> Result<CommandEnd> {
    Err(Error::internal("this command is not built yet command=check-config"))
}
