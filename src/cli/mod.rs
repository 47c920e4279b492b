//! The command line: arguments in, one command run, its document to stdout, an exit code out.
//!
//! Not part of the library's promise: names here follow the commands.

pub mod args;
mod batches;
mod bytes;
mod check_config;
mod console;
mod dead_letters;
mod demo;
mod health;
mod job;
mod lag;
mod manual;
mod migrate;
mod offsets;
mod peek;
mod run;
mod systemd;
mod verify;

use std::{
    any::Any,
    ffi::OsString,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;

use crate::{
    clock::SystemClock,
    error::{Error, ErrorKind, Result},
    failpoint,
    kafka::give_large_blocks_back,
    report::{LogSettings, Terminal, init_logs, printable, shortened},
};
use args::{Arguments, Command, DeadLettersCommand, MigrateCommand, OffsetsCommand};
pub use console::{Console, Table};

/// An error's line is cut there: a server may answer with a whole page.
const ERROR_BYTES_MAX: usize = 4 * 1024;

/// How a command ended when nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandEnd {
    /// It did what it was asked.
    Done,
    /// SIGINT came, and the batch in hand was finished or abandoned whole.
    Interrupted,
    /// SIGTERM came, likewise.
    Terminated,
}

impl CommandEnd {
    /// 0, or 128 plus the signal's number.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// Runs the command that `arguments` (the program's name first) ask for, and gives the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(told) => return told_by_clap(&told),
    };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        to_stderr(&format!("panic: {} thread={thread} at={place}", panic_text(panic.payload())));
    }));
    failpoint::arm();
    give_large_blocks_back();
    // The hook has told of the panic.
    let ended = catch_unwind(AssertUnwindSafe(|| start(arguments)));
    let code = match ended {
        Ok(Ok(end)) => end.exit_code(),
        Ok(Err(error)) => {
            for line in error_lines(&error) {
                to_stderr(&line);
            }
            error.kind().exit_code()
        }
        Err(_panic) => ErrorKind::Internal.exit_code(),
    };
    ExitCode::from(code)
}

fn start(arguments: Arguments) -> Result<CommandEnd> {
    let (terminal, clock) = (Terminal::stderr(), SystemClock::shared());
    let log = LogSettings::read(|name| std::env::var(name).ok(), terminal.is_terminal())?;
    init_logs(log, terminal.clone(), Arc::clone(&clock))?;
    let console = Console::new(arguments.output, terminal, clock);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal("cannot start the runtime").caused_by(error))?;
    let end = runtime.block_on(dispatch(arguments.command, &console));
    // What a command left running, such as a name lookup, must not hold its end up.
    runtime.shutdown_background();
    end
}

async fn dispatch(command: Command, console: &Console) -> Result<CommandEnd> {
    match command {
        Command::Demo(args) => demo::demo(args, console).await,
        Command::Run(args) => run::run(args, console).await,
        Command::Offsets { command: OffsetsCommand::Show(args) } => offsets::show(args, console).await,
        Command::Offsets { command: OffsetsCommand::Reset(args) } => offsets::reset(args, console).await,
        Command::Offsets { command: OffsetsCommand::Set(args) } => offsets::set(args, console).await,
        Command::Offsets { command: OffsetsCommand::Export(args) } => offsets::export(args, console).await,
        Command::Health(args) => health::health(args, console).await,
        Command::Lag(args) => lag::lag(args, console).await,
        Command::Batches(args) => batches::batches(args, console).await,
        Command::Verify(args) => verify::verify(args, console).await,
        Command::DeadLetters { command: DeadLettersCommand::List(args) } => dead_letters::list(args, console).await,
        Command::DeadLetters { command: DeadLettersCommand::Show(args) } => dead_letters::show(args, console).await,
        Command::DeadLetters { command: DeadLettersCommand::Replay(args) } => dead_letters::replay(args, console).await,
        Command::DeadLetters { command: DeadLettersCommand::Discard(args) } => {
            dead_letters::discard(args, console).await
        }
        Command::Peek(args) => peek::peek(args, console).await,
        Command::Migrate { command: MigrateCommand::Up(args) } => migrate::up(args, console).await,
        Command::Migrate { command: MigrateCommand::Down(args) } => migrate::down(args, console).await,
        Command::Migrate { command: MigrateCommand::Status(args) } => migrate::status(args, console).await,
        Command::CheckConfig(args) => check_config::check_config(&args, console),
        Command::Completions(args) => manual::completions(&args, console),
        Command::Man => manual::man(console),
    }
}

/// Help and version go to stdout and end with 0, anything else is a wrong command line: stderr, 2, and one line. A command that lacks
/// all of its arguments is told its help.
fn told_by_clap(told: &clap::Error) -> ExitCode {
    // A closed pipe, as in `directstream --help | head -1`, is no reason to fail.
    if told.use_stderr() && told.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = writeln!(std::io::stderr(), "directstream: error: {}", in_one_line(&told.render().to_string()));
    } else {
        let _ = told.print();
    }
    ExitCode::from(if told.use_stderr() { ErrorKind::Config.exit_code() } else { 0 })
}

/// What clap says in paragraphs: the error, tips, and the usage.
fn in_one_line(told: &str) -> String {
    let mut line = String::new();
    let told = told.lines().map(str::trim).filter(|part| !part.is_empty() && !part.starts_with("For more information"));
    for part in told {
        let part = part.strip_prefix("error: ").unwrap_or(part);
        let between = match line.chars().last() {
            None => "",
            Some(':') => " ",
            Some(_) => "; ",
        };
        line.push_str(between);
        line.push_str(part);
    }
    line + "; --help tells more"
}

/// The error and its causes in one line, and what to do about it. Only an error that lists several faults, such as those
/// of a job file, has a line for each, and then one with what to do.
fn error_lines(error: &Error) -> Vec<String> {
    let remedy = match error.kind() {
        ErrorKind::Config => "mend the settings and start again, directstream check-config shows them",
        ErrorKind::Unavailable | ErrorKind::OutcomeUnknown => "nothing is lost: start again when the server answers",
        ErrorKind::OffsetsLost => "choose with kafka.on_data_loss, or move the committed offsets",
        ErrorKind::Corrupt => "nothing was changed: compare the store with Kafka before starting again",
        ErrorKind::Conflict => {
            "somebody else moves the stored offsets: find out who, nothing was committed against them"
        }
        ErrorKind::Fenced => "another process does the work: stop it first, or leave this one stopped",
        ErrorKind::Transform => "mend the record, the code or input.on_error, and start again",
        ErrorKind::Internal => "this is a defect of directstream: please report it with this line",
    };
    let mut lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
    if lines.len() > 1 {
        lines.push(format!("{} faults ({remedy})", lines.len()));
        lines
    } else {
        vec![format!("{} ({remedy})", error.chain())]
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "panic",
    }
}

fn to_stderr(line: &str) {
    let line = shortened(line, ERROR_BYTES_MAX);
    // With stderr closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "directstream: error: {}", printable(&line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes_and_what_to_do() {
        let error = Error::unavailable("cannot connect host=db").caused_by(Error::internal("refused\nby the server"));
        let expected =
            "cannot connect host=db: refused by the server (nothing is lost: start again when the server answers)";
        assert_eq!(error_lines(&error), [expected]);
    }

    #[test]
    fn several_faults_are_a_line_each() {
        let lines = error_lines(&Error::config("job.toml:1:1: name: is empty\njob.toml:2:1: kafkaa: unknown key"));
        assert_eq!(lines[..2], ["job.toml:1:1: name: is empty", "job.toml:2:1: kafkaa: unknown key"]);
        assert!(lines.len() == 3 && lines[2].starts_with("2 faults ("), "{lines:?}");
    }
}
