//! `cargo xtask run`.

use std::os::unix::process::CommandExt;

use anyhow::{Error, Result};

use crate::{
    cargo, child,
    cli::Run,
    setup::{self, Scope},
};

/// rstscope's sub-commands. Anything else that follows `--` is for `trace`.
const SUBCOMMANDS: [&str; 10] =
    ["completions", "doctor", "explain", "help", "man", "report", "run", "timeouts", "top", "trace"];

/// Builds rstscope and becomes it, as root: signals and the exit status are rstscope's own then.
pub fn perform(options: &Run) -> Result<()> {
    setup::perform_if_missing(Scope::Build)?;
    let program = cargo::build_rstscope(true, false)?;
    let mut command = child::as_root(&program)?;
    command.args(subcommand(&options.arguments)).args(&options.arguments);
    eprintln!("     Running `{}`", child::shown(&command));
    Err(Error::new(command.exec()).context(format!("cannot run `{}`", child::shown(&command))))
}

/// The sub-command to put before the arguments, where they do not bring one.
fn subcommand(arguments: &[String]) -> Option<&'static str> {
    let brought = arguments.first().is_some_and(|first| SUBCOMMANDS.contains(&first.as_str()));
    (!brought).then_some("trace")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(arguments: &[&str]) -> Option<&'static str> {
        subcommand(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_for_trace() {
        assert_eq!(given(&[]), Some("trace"));
        assert_eq!(given(&["--port", "443"]), Some("trace"));
        assert_eq!(given(&["--help"]), Some("trace"));
    }

    #[test]
    fn unless_they_name_a_sub_command() {
        assert_eq!(given(&["doctor", "--json"]), None);
        assert_eq!(given(&["trace", "--port", "443"]), None);
    }
}
