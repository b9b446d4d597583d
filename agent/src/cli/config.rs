//! `rstscope config`: check, show or describe the configuration of `run`.

use std::{ffi::OsString, fmt::Write, process::ExitCode};

use anyhow::{Result, bail};

use super::{
    flags::{ConfigCommand, ConfigFlags},
    print,
    run::settings::{self, Effective, merge},
};
use crate::{
    config::{Configuration, schema::schema},
    settings::Wrong,
};

/// Runs `config`.
///
/// # Errors
///
/// If the configuration is wrong.
pub fn run(command: &ConfigCommand) -> Result<ExitCode> {
    match command {
        ConfigCommand::Check(flags) => {
            let (configuration, _) = checked(flags)?;
            print(
                format!("{}: {} sinks, nothing wrong\n", flags.config.display(), configuration.sinks.len()).as_bytes(),
            )
        }
        ConfigCommand::Show(flags) => {
            let (configuration, effective) = checked(flags)?;
            print(shown(&configuration, &effective)?.as_bytes())
        }
        ConfigCommand::Schema => {
            let mut text = serde_json::to_string_pretty(&schema(settings::schema()))?;
            text.push('\n');
            print(text.as_bytes())
        }
    }
}

fn checked(flags: &ConfigFlags) -> Result<(Configuration, Effective)> {
    let configuration = Configuration::read(&flags.config)?;
    let arguments = ["rstscope", "run"].map(OsString::from);
    let effective = merge(&arguments, &flags.config, &configuration)?;
    if configuration.sinks.is_empty() {
        bail!("{}: no sink; add a section [sinks.NAME] with a `type`", flags.config.display());
    }
    for (name, sink) in &configuration.sinks {
        sink.check_files()
            .map_err(|Wrong(problem)| Wrong(format!("{}: sinks.{name}: {problem}", flags.config.display())))?;
    }
    Ok((configuration, effective))
}

/// The configuration with its defaults, as a file that means the same.
fn shown(configuration: &Configuration, effective: &Effective) -> Result<String> {
    let mut text = "[agent]\n".to_owned();
    for (key, value, source) in &effective.shown {
        writeln!(text, "{key} = {value} # {source}")?;
    }
    for (name, sink) in &configuration.sinks {
        let sinks = toml::Table::from_iter([(name.clone(), toml::Value::try_from(sink)?)]);
        let section = toml::Table::from_iter([("sinks".to_owned(), toml::Value::Table(sinks))]);
        write!(text, "\n{}", toml::to_string(&section)?)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_shown_is_a_configuration_that_means_the_same_and_names_no_secret() {
        let text = "[agent]\nnode = \"n1\"\n[sinks.a]\ntype = \"loki\"\nurl = \"http://l:1\"\n\
                    bearer_token = { env = \"LOKI_TOKEN\" }\n[sinks.b]\ntype = \"file\"\npath = \"/x\"\nrotate_after = \"1h\"";
        let configuration = Configuration::parse(text).unwrap();
        let arguments = ["rstscope", "run"].map(OsString::from);
        let effective = merge(&arguments, Path::new("x"), &configuration).unwrap();
        let shown = shown(&configuration, &effective).unwrap();
        assert!(shown.contains("node = \"n1\" # the file"), "{shown}");
        assert!(shown.contains("LOKI_TOKEN"), "{shown}");
        let again = Configuration::parse(&shown).unwrap();
        assert_eq!(again.sinks, configuration.sinks, "{shown}");
        merge(&arguments, Path::new("x"), &again).unwrap();
    }
}
