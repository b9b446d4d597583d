//! `rstscope config`: check, show or describe the configuration of `run`.

use std::{ffi::OsString, fmt::Write, process::ExitCode};

use anyhow::{Result, bail};

use super::{
    flags::{ConfigCommand, ConfigFlags},
    print,
    run::settings::{self, Effective, merge},
};
use crate::{
    config::{
        Configuration,
        overrides::{Origin, Overrides, leaves},
        schema::schema,
    },
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
    let overrides = Overrides::of_this_process(flags.sink.clone())?;
    let configuration = Configuration::read(&flags.config, &overrides)?;
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
        writeln!(text, "\n[sinks.{name}]")?;
        let origins = configuration.origins.get(name);
        for (path, value) in leaves(&toml::Table::try_from(sink)?) {
            let origin =
                origins.and_then(|origins| origins.get(&path)).map_or("default", |origin| Origin::name(*origin));
            let key = path.iter().map(|name| quoted_if_needed(name)).collect::<Vec<_>>().join(".");
            writeln!(text, "{key} = {value} # {origin}")?;
        }
    }
    Ok(text)
}

/// A key as TOML has it: names of labels and headers may have a dot in them.
fn quoted_if_needed(name: &str) -> String {
    let is_bare = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    if !name.is_empty() && name.chars().all(is_bare) {
        return name.to_owned();
    }
    toml::Value::from(name).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_shown_is_a_configuration_that_means_the_same_and_names_no_secret() {
        let text = "[agent]\nnode = \"n1\"\n[sinks.a]\ntype = \"loki\"\nurl = \"http://l:1\"\n\
                    bearer_token = { env = \"LOKI_TOKEN\" }\n[sinks.b]\ntype = \"file\"\npath = \"/x\"\nrotate_after = \"1h\"\n\
                    [sinks.c]\ntype = \"otlp\"\nurl = \"http://o:1\"\nresource = { \"k8s.cluster.name\" = \"prod\" }";
        let variables =
            [("RSTSCOPE_SINK_A_URL", "http://other:1"), ("RSTSCOPE_SINK_C_HEADERS_AUTHORIZATION", "hunter2")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let overrides = Overrides::new(vec!["a.batch.lines=7".to_owned()], variables.into());
        let configuration = Configuration::parse(text, &overrides).unwrap();
        let arguments = ["rstscope", "run"].map(OsString::from);
        let effective = merge(&arguments, Path::new("x"), &configuration).unwrap();
        let shown = shown(&configuration, &effective).unwrap();
        for line in [
            "node = \"n1\" # the file",
            "url = \"http://other:1\" # the environment",
            "batch.lines = 7 # the command line",
            "batch.wait = \"1s\" # default",
            "bearer_token = { env = \"LOKI_TOKEN\" } # the file",
            "resource.\"k8s.cluster.name\" = \"prod\" # the file",
            "headers.authorization = { env = \"RSTSCOPE_SINK_C_HEADERS_AUTHORIZATION\" } # the environment",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
        }
        assert!(!shown.contains("hunter2"), "{shown}");
        let again = Configuration::parse(&shown, &Overrides::default()).unwrap();
        assert_eq!(again.sinks, configuration.sinks, "{shown}");
        merge(&arguments, Path::new("x"), &again).unwrap();
    }
}
