//! `directstream completions` and `directstream man`: made of the arguments' own descriptions.

use std::io::Write;

use clap::CommandFactory;

use super::{
    CommandEnd, Console,
    args::{Arguments, CompletionsArgs},
};
use crate::error::{Error, Result};

const NAME: &str = "directstream";

/// `completions`: a script for a shell.
pub(super) fn completions(args: &CompletionsArgs, console: &Console) -> Result<CommandEnd> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), NAME, &mut script);
    told(&script, console)
}

/// `man`: one page in roff, each command a section.
pub(super) fn man(console: &Console) -> Result<CommandEnd> {
    let mut program = Arguments::command().name(NAME);
    program.build();
    let mut page = Vec::new();
    let written = clap_mangen::Man::new(program.clone()).render(&mut page).and_then(|()| commands(&program, &mut page));
    written.map_err(|error| Error::internal("cannot make the manual page").caused_by(error))?;
    told(&page, console)
}

/// The help of each command and of those below it, as it is shown by `--help`.
fn commands(parent: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    for command in parent.get_subcommands().filter(|command| command.get_name() != "help") {
        let mut command = command.clone();
        let name = command.get_bin_name().unwrap_or(NAME).to_uppercase();
        let help = command.render_long_help().to_string();
        writeln!(page, ".SH \"{name}\"\n.nf")?;
        for line in help.lines() {
            // A line that begins with a dot or a quote would be a request.
            writeln!(page, "\\&{}", line.replace('\\', "\\e").replace('-', "\\-"))?;
        }
        writeln!(page, ".fi")?;
        commands(&command, page)?;
    }
    Ok(())
}

/// Text is text: with `--output json` it is one string.
fn told(text: &[u8], console: &Console) -> Result<CommandEnd> {
    console.print(&String::from_utf8_lossy(text), |text| text.clone().into_owned())?;
    Ok(CommandEnd::Done)
}
