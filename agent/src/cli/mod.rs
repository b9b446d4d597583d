//! The command line: flags, and one module per command.

pub mod config;
pub mod doctor;
pub mod explain;
pub mod filter;
pub mod flags;
pub mod log;
pub mod pods;
pub mod run;
pub mod stages;
pub mod trace;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use self::flags::{Cli, Command};
use anyhow::Result;

/// Runs the program. Bad flags exit with 2, everything else that fails with 1 and one sentence.
#[must_use]
pub fn main() -> ExitCode {
    let cli = run::settings::parse(std::env::args_os());
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
        Command::Run(flags) => run::run(flags),
        Command::Config(command) => config::run(command),
        Command::Doctor(flags) => doctor::run(flags),
        Command::Explain(flags) => explain::run(flags),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut run::settings::command(), "rstscope", &mut script);
            print(&script)
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(run::settings::command()).render(&mut page)?;
            for command in run::settings::command().get_subcommands().filter(|command| command.get_name() != "help") {
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
