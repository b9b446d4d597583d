//! The configuration of `rstscope run`: one TOML file.
//!
//! * `[agent]`: the flags of `rstscope run`, by their long names with `_` for `-`; the command line gives them their meaning,
//!   a flag or a variable of the environment wins over the file;
//! * `[sinks.NAME]`: a sink each, see [`sink`]; flags and variables set single keys of it ([`overrides`]), which [`keys`] lists.
//!
//! A key that does not exist is refused with the nearest one that does ([`nearest`]). Secrets are never in the file
//! ([`crate::settings::secret`]), so that all of it can be shown.

pub mod keys;
pub mod nearest;
pub mod overrides;
pub mod schema;
pub mod sink;
pub mod watch;

use std::{collections::BTreeMap, fs, path::Path};

use self::{
    nearest::refuse_unknown,
    overrides::{Origin, Origins, Overrides},
    sink::SinkSettings,
};
use crate::settings::Wrong;

/// More than anybody writes: what is longer is not a configuration.
const LONGEST: usize = 1 << 20;

/// A file as it was read, checked as far as it can be without the command line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    /// The section `[agent]`.
    pub agent: toml::Table,
    /// The sinks by name.
    pub sinks: BTreeMap<String, SinkSettings>,
    /// Where the values of their keys are from.
    pub origins: BTreeMap<String, Origins>,
}

impl Configuration {
    /// Reads a file; `overrides` set keys of its sinks.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is wrong; one sentence that names the place.
    pub fn read(path: &Path, overrides: &Overrides) -> Result<Self, Wrong> {
        let at = |problem: String| Wrong(format!("{}: {problem}", path.display()));
        let bytes = fs::read(path).map_err(|error| {
            at(format!("cannot read the configuration: {error}; name it with --config, `rstscope config schema` says what goes into it"))
        })?;
        let text = String::from_utf8(bytes).map_err(|_| at("this is not text in UTF-8".to_owned()))?;
        Self::parse(&text, overrides).map_err(|Wrong(problem)| at(problem))
    }

    /// Reads a text.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn parse(text: &str, overrides: &Overrides) -> Result<Self, Wrong> {
        if text.len() > LONGEST {
            return Err(Wrong(format!("longer than a configuration can be ({LONGEST} bytes)")));
        }
        let table: toml::Table = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        let mut configuration = Self::default();
        let mut section_of_sinks = toml::Table::new();
        for (key, value) in table {
            let toml::Value::Table(section) = value else {
                refuse_unknown(&key, &["agent", "sinks"], "the file")?;
                return Err(Wrong(format!("{key} is a section: write [{key}]")));
            };
            match key.as_str() {
                "agent" => configuration.agent = section,
                "sinks" => section_of_sinks = section,
                _ => refuse_unknown(&key, &["agent", "sinks"], "the file")?,
            }
        }
        configuration.origins = overrides.apply(&mut section_of_sinks)?;
        configuration.sinks = sinks(section_of_sinks, &configuration.origins)?;
        Ok(configuration)
    }
}

fn sinks(section: toml::Table, origins: &BTreeMap<String, Origins>) -> Result<BTreeMap<String, SinkSettings>, Wrong> {
    let mut sinks = BTreeMap::new();
    for (name, value) in section {
        if !is_name(&name) {
            return Err(Wrong(format!("sinks.{name}: use up to 64 letters, digits, - and _ for a sink's name")));
        }
        let toml::Value::Table(table) = value else {
            return Err(Wrong(format!("sinks.{name} is a section: write [sinks.{name}] with a `type`")));
        };
        let from_elsewhere =
            origins.get(&name).is_some_and(|origins| origins.values().any(|origin| *origin != Origin::File));
        let settings = SinkSettings::from_table(&name, table).map_err(|Wrong(problem)| {
            let hint = if from_elsewhere { " (flags or variables set some of its keys)" } else { "" };
            Wrong(format!("{problem}{hint}"))
        })?;
        sinks.insert(name, settings);
    }
    one_owner_each(&sinks)?;
    Ok(sinks)
}

/// The name becomes part of a path.
fn is_name(name: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '-' || character == '_';
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}

/// Two sinks in one file, or on standard output, would tear each other's lines.
fn one_owner_each(sinks: &BTreeMap<String, SinkSettings>) -> Result<(), Wrong> {
    let mut owners: BTreeMap<std::path::PathBuf, &str> = BTreeMap::new();
    for (name, settings) in sinks {
        let Some(place) = settings.place() else { continue };
        if let Some(other) = owners.insert(place.clone(), name) {
            return Err(Wrong(format!(
                "sinks.{other} and sinks.{name} both write to {}; give each its own",
                place.display()
            )));
        }
    }
    Ok(())
}

/// The parser would quote the line, and a secret may stand in it all the same.
fn syntax(text: &str, error: &toml::de::Error) -> Wrong {
    let offset = error.span().map_or(0, |span| span.start);
    let before = text.get(..offset).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
    Wrong(format!("line {line}, column {column}: {}", error.message().replace('\n', " ")))
}

#[cfg(test)]
mod tests;
