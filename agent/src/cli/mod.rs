//! The command line: flags, and one module per command.

pub mod doctor;
pub mod explain;
pub mod filter;
pub mod flags;
pub mod pods;
pub mod trace;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Result;
use clap::{CommandFactory, Parser};

use self::flags::{Cli, Command};

/// Runs the program. Bad flags exit with 2, everything else that fails with 1 and one sentence.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            // The last place that could complain about standard error is gone with it.
            let _gone = writeln!(io::stderr(), "rstscope: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Trace(flags) => trace::run(flags),
        Command::Doctor(flags) => doctor::run(flags),
        Command::Explain(flags) => explain::run(flags),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "rstscope", &mut script);
            print(&script)
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
                let name: &'static str = format!("rstscope-{}", command.get_name()).leak();
                clap_mangen::Man::new(command.clone().name(name)).render(&mut page)?;
            }
            print(&page)
        }
    }
}

/// Writes a whole document; a reader that has seen enough is no failure.
pub(crate) fn print(document: &[u8]) -> Result<ExitCode> {
    match io::stdout().write_all(document).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
