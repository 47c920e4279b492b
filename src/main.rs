//! The `directstream` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    directstream::cli::main(std::env::args_os())
}
