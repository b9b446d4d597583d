//! The settings of `run`: the command line, else the environment, else the file's section `[agent]`, else the default.
//!
//! The keys of the section are the flags themselves, so that each is defined, explained and checked in one place: what the file
//! says and nothing stronger contradicts is put before the command line's own flags, and everything is parsed once more.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use anyhow::{Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command as Parser, CommandFactory, FromArgMatches, parser::ValueSource};
use serde_json::{Map, Value, json};

use crate::{
    cli::flags::{Cli, Command, RunFlags},
    config::{Configuration, nearest::refuse_unknown},
    settings::Wrong,
};

/// The flag that cannot stand in the file, for it names it.
const CONFIG: &str = "config";
/// The flag that cannot either: it sets what stands in the file's other sections, and each of its keys has a variable.
const SINK: &str = "sink";

/// Parses a command line; ends the program where it is wrong, as for `--help`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Cli {
    let matches = command().get_matches_from(arguments);
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The command line, where every flag of `run` has a variable of the environment. Those of `doctor` have the same, so that in
/// the place of a `run` that is set by them it examines what that does.
#[must_use]
pub fn command() -> Parser {
    Cli::command().mut_subcommand("run", with_variables).mut_subcommand("doctor", with_variables)
}

fn with_variables(command: Parser) -> Parser {
    command.mut_args(|flag| {
        if flag.get_id() == SINK {
            return flag;
        }
        let flag = if matches!(flag.get_action(), ArgAction::Append) { flag.value_delimiter(',') } else { flag };
        let has_none = flag.get_env().is_none() && flag.get_long().is_some();
        if has_none && !matches!(flag.get_id().as_str(), "help" | "version" | "json") {
            let name = variable(flag.get_id().as_str());
            flag.env(name).hide_env_values(true)
        } else {
            flag
        }
    })
}

fn variable(id: &str) -> &'static str {
    match id {
        // Kubernetes sets RSTSCOPE_PORT in every pod beside a Service named rstscope.
        "port" => "RSTSCOPE_PORTS",
        _ => format!("RSTSCOPE_{}", id.to_uppercase()).leak(),
    }
}

/// The settings, with what the file says in its section `[agent]`.
#[derive(Debug)]
pub struct Effective {
    /// As flags.
    pub flags: RunFlags,
    /// Every key, its value and where it is from.
    pub shown: Vec<(String, toml::Value, &'static str)>,
}

/// Merges.
///
/// # Errors
///
/// If the section has a key that is no flag, or a value that the flag does not take; one sentence that names both.
pub fn merge(arguments: &[OsString], file: &Path, configuration: &Configuration) -> Result<Effective> {
    let wrong = |problem: &str| Wrong(format!("{}: {problem}", file.display()));
    let matches = matches_of(arguments).map_err(|error| wrong(&sentence(&error)))?;
    let own = run_part(&matches)?;
    let mut from_file = Vec::new();
    let mut in_file = Vec::new();
    for (key, value) in &configuration.agent {
        let flags = command();
        let known: Vec<&str> = keys(&flags).map(|flag| flag.get_id().as_str()).collect();
        refuse_unknown(key, &known, "[agent]").map_err(|Wrong(problem)| wrong(&problem))?;
        let stronger = matches!(own.value_source(key), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        if !stronger {
            in_file.push(key.as_str());
            from_file.extend(as_flags(key, value).map_err(|Wrong(problem)| wrong(&problem))?);
        }
    }
    let position = arguments.iter().position(|argument| argument == "run").map_or(arguments.len(), |at| at + 1);
    let mut all = arguments.to_vec();
    all.splice(position..position, from_file);
    let matches = matches_of(&all).map_err(|error| wrong(&format!("[agent]: {}", sentence(&error))))?;
    let Command::Run(flags) = Cli::from_arg_matches(&matches)?.command else {
        bail!("these are not arguments of `run`")
    };
    let shown = shown(run_part(&matches)?, &in_file);
    Ok(Effective { flags: *flags, shown })
}

fn matches_of(arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    command().try_get_matches_from(arguments)
}

fn run_part(matches: &ArgMatches) -> Result<&ArgMatches> {
    match matches.subcommand() {
        Some(("run", run)) => Ok(run),
        _ => bail!("these are not arguments of `run`"),
    }
}

/// The flags that are keys as well.
fn keys(parser: &Parser) -> impl Iterator<Item = &Arg> {
    let run = parser.find_subcommand("run");
    let flags = run.into_iter().flat_map(Parser::get_arguments);
    flags.filter(|flag| {
        flag.get_long().is_some() && !matches!(flag.get_id().as_str(), CONFIG | SINK | "help" | "version")
    })
}

/// A key of the file as the flags it stands for.
fn as_flags(key: &str, value: &toml::Value) -> Result<Vec<OsString>, Wrong> {
    let flag = format!("--{}", key.replace('_', "-"));
    let one = |value: &toml::Value| match value {
        toml::Value::String(text) => Ok(OsString::from(format!("{flag}={text}"))),
        toml::Value::Integer(number) => Ok(OsString::from(format!("{flag}={number}"))),
        other => Err(Wrong(format!("[agent] {key}: {} is no value for it", other.type_str()))),
    };
    match value {
        toml::Value::Boolean(true) => Ok(vec![flag.into()]),
        toml::Value::Boolean(false) => Ok(Vec::new()),
        toml::Value::Array(values) => values.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

/// Clap's first sentence, without its usage.
fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

fn shown(matches: &ArgMatches, in_file: &[&str]) -> Vec<(String, toml::Value, &'static str)> {
    let parser = command();
    let shown = keys(&parser).filter_map(|flag| {
        let id = flag.get_id().as_str();
        let values: Vec<toml::Value> = matches.get_raw(id)?.map(value).collect();
        let value = match flag.get_action() {
            ArgAction::Append => toml::Value::Array(values),
            _ => values.into_iter().next()?,
        };
        let source = match matches.value_source(id)? {
            _ if in_file.contains(&id) => "the file",
            ValueSource::EnvVariable => "the environment",
            ValueSource::CommandLine => "the command line",
            _ => "default",
        };
        Some((id.to_owned(), value, source))
    });
    shown.collect()
}

fn value(raw: &OsStr) -> toml::Value {
    let text = raw.to_string_lossy();
    match (text.parse::<i64>(), text.parse::<bool>()) {
        (Ok(number), _) => toml::Value::Integer(number),
        (_, Ok(bool)) => toml::Value::Boolean(bool),
        _ => toml::Value::String(text.into_owned()),
    }
}

/// The JSON Schema of the section `[agent]`.
#[must_use]
pub fn schema() -> Value {
    let parser = command();
    let properties: Map<String, Value> = keys(&parser)
        .map(|flag| {
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            let scalar = json!(["string", "integer"]);
            let mut schema = match flag.get_action() {
                ArgAction::SetTrue => json!({ "type": "boolean" }),
                ArgAction::Append => json!({ "type": "array", "items": { "type": scalar } }),
                _ => json!({ "type": scalar }),
            };
            schema["description"] = help.into();
            (flag.get_id().to_string(), schema)
        })
        .collect();
    json!({
        "type": "object",
        "description": "The flags of `rstscope run`, with _ for -.",
        "additionalProperties": false,
        "properties": properties,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::overrides::Overrides;

    fn merged(arguments: &[&str], text: &str) -> Result<Effective> {
        let arguments: Vec<OsString> = ["rstscope", "run"].iter().chain(arguments).map(OsString::from).collect();
        merge(&arguments, Path::new("x.toml"), &Configuration::parse(text, &Overrides::default())?)
    }

    #[test]
    fn the_file_gives_what_the_command_line_does_not() {
        let file = "[agent]\nconnections = 5000\ninstance = \"file\"\nfacts = true\nport = [443, 80]\ngrace = \"3s\"";
        let flags = merged(&["--instance", "mine"], file).unwrap().flags;
        assert_eq!(
            (flags.follow.tuning.connections, flags.follow.tuning.instance.as_str(), flags.follow.facts),
            (5000, "mine", true)
        );
        assert_eq!(flags.follow.filters.port, [443, 80]);
        assert_eq!(flags.grace.as_secs(), 3);
        let flags = merged(&["--port", "22"], file).unwrap().flags;
        assert_eq!(flags.follow.filters.port, [22], "a flag replaces a list, it does not add to it");
    }

    #[test]
    fn a_key_that_is_no_flag_is_refused_with_the_nearest() {
        let refused = format!("{:#}", merged(&[], "[agent]\nconection = 5").unwrap_err());
        assert!(refused.contains("x.toml") && refused.contains("`connections`"), "{refused}");
        for key in ["config", "sink"] {
            let refused = format!("{:#}", merged(&[], &format!("[agent]\n{key} = \"y\"")).unwrap_err());
            assert!(refused.contains(&format!("no key `{key}`")), "{refused}");
        }
    }

    #[test]
    fn a_value_that_the_flag_does_not_take_is_refused_in_one_sentence() {
        for (text, word) in [
            ("connections = 0", "--connections"),
            ("port = [70000]", "--port"),
            ("grace = \"soon\"", "--grace"),
            ("connections = 1.5", "connections"),
            ("hooks = \"magic\"", "--hooks"),
        ] {
            let refused = format!("{:#}", merged(&[], &format!("[agent]\n{text}")).unwrap_err());
            assert!(refused.contains(word) && !refused.contains('\n'), "{refused}");
        }
    }

    #[test]
    fn every_flag_of_run_has_a_variable_and_is_in_the_schema() {
        let parser = command();
        let schema = schema();
        let mut count = 0;
        for flag in keys(&parser) {
            assert!(flag.get_env().is_some(), "{}", flag.get_id());
            assert!(schema["properties"][flag.get_id().as_str()].is_object(), "{}", flag.get_id());
            count += 1;
        }
        assert!(count > 15, "{count}");
        parser.debug_assert();
    }

    #[test]
    fn doctor_has_the_variables_of_run() {
        let parser = command();
        let variables = |name: &str| {
            let flags = parser.find_subcommand(name).unwrap().get_arguments();
            flags.filter_map(|flag| Some((flag.get_id().to_string(), flag.get_env()?.to_owned()))).collect::<Vec<_>>()
        };
        let (run, doctor) = (variables("run"), variables("doctor"));
        assert!(doctor.iter().any(|(flag, _)| flag == "no_conntrack"), "{doctor:?}");
        assert!(doctor.iter().all(|variable| run.contains(variable)), "{doctor:?}");
    }

    #[test]
    fn what_is_shown_says_where_it_is_from() {
        let shown = merged(&["--instance", "mine"], "[agent]\nconnections = 5000").unwrap().shown;
        let of = |key: &str| {
            shown.iter().find(|(name, ..)| name == key).map(|(_, value, source)| (value.to_string(), *source))
        };
        assert_eq!(of("connections"), Some(("5000".to_owned(), "the file")));
        assert_eq!(of("instance"), Some(("\"mine\"".to_owned(), "the command line")));
        assert_eq!(of("closed_connections"), Some(("65536".to_owned(), "default")));
    }
}
