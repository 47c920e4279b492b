//! The program as a person or a script meets it: arguments, stdout, stderr, exit code.

mod bad_data;
mod checkpoint;
mod database;
mod dead_letters;
mod exit_codes;
mod help;
mod job;
mod lag;
mod life;
mod looks;
mod offsets;
mod peek;
mod pooler;
mod recovery;
mod refused;
mod rivals;
mod service;
mod tried_wrong;
mod verify;
mod world;

use std::process::{Command, Output};

use crate::support::directstream;

/// What a run of it left.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(mut command: Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code().unwrap_or_else(|| panic!("{status}")), stdout: text(stdout), stderr: text(stderr) }
}
