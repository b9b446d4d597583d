//! The section `[sinks.NAME]`: its `type` says which sink it is, and so which keys there are.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc::Receiver},
};

use serde::{Serialize, de::DeserializeOwned};

use super::nearest::{explained, refuse_unknown};
use crate::{
    settings::{Wrong, secret::Secret},
    sinks::{
        account::Account,
        file::{self, FileSettings},
        filter::Filter,
        loki::{self, LokiSettings},
        network::client::client,
        otlp::{self, OtlpSettings},
        outputs::Line,
        running::Running,
        splunk::{self, SplunkSettings},
        stdout::lines::{self as stdout, StdoutSettings},
    },
};

/// One sink's settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SinkSettings {
    /// Standard output.
    Stdout(StdoutSettings),
    /// A file.
    File(FileSettings),
    /// Grafana Loki.
    Loki(LokiSettings),
    /// Splunk's HTTP Event Collector.
    Splunk(SplunkSettings),
    /// OTLP over HTTP.
    Otlp(OtlpSettings),
}

/// The types there are.
pub const TYPES: [&str; 5] = ["stdout", "file", "loki", "splunk", "otlp"];

impl SinkSettings {
    /// Reads and checks a section.
    ///
    /// # Errors
    ///
    /// If a key does not exist or its value is wrong; the sentence names both.
    pub fn from_table(name: &str, mut table: toml::Table) -> Result<Self, Wrong> {
        let place = format!("sinks.{name}");
        let Some(toml::Value::String(kind)) = table.remove("type") else {
            return Err(Wrong(format!("{place} has no `type`; it is one of {}", TYPES.join(", "))));
        };
        let settings = match kind.as_str() {
            "stdout" => Self::Stdout(read(&place, table)?),
            "file" => Self::File(read(&place, table)?),
            "loki" => Self::Loki(read(&place, table)?),
            "splunk" => Self::Splunk(read(&place, table)?),
            "otlp" => Self::Otlp(read(&place, table)?),
            _ => {
                refuse_unknown(&kind, &TYPES, &format!("{place}.type"))
                    .map_err(|Wrong(problem)| Wrong(problem.replace("has no key", "has no value")))?;
                return Err(Wrong(format!("{place}.type is one of {}", TYPES.join(", "))));
            }
        };
        settings.check().map_err(|Wrong(problem)| Wrong(format!("{place}: {problem}")))?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Wrong> {
        match self {
            Self::Loki(settings) => settings.check(),
            Self::Splunk(settings) => settings.common().check(),
            Self::Otlp(settings) => settings.check(),
            Self::File(settings) if settings.rotate_bytes.0 < 4096 => {
                Err(Wrong("rotate_bytes is at least 4KiB: a line has about 2KiB".to_owned()))
            }
            Self::File(settings) if settings.keep > 1000 => Err(Wrong("keep is at most 1000".to_owned())),
            Self::File(_) | Self::Stdout(_) => Ok(()),
        }
    }

    /// Checks what else it needs: certificates and secrets that can be read.
    ///
    /// # Errors
    ///
    /// If one is missing; the sentence names it.
    pub fn check_files(&self) -> Result<(), Wrong> {
        let (common, secrets): (_, Vec<&Secret>) = match self {
            Self::Stdout(_) | Self::File(_) => return Ok(()),
            Self::Loki(settings) => {
                let password = settings.basic_auth.as_ref().map(|auth| &auth.password);
                (settings.common(), password.into_iter().chain(&settings.bearer_token).collect())
            }
            Self::Splunk(settings) => (settings.common(), vec![&settings.token]),
            Self::Otlp(settings) => (settings.common(), settings.headers.values().collect()),
        };
        client(common.http, common.tls)?;
        secrets.into_iter().try_for_each(|secret| secret.read().map(drop))
    }

    /// Starts the sink. One that spools does so in a folder of its name below `spools`; `predecessor` is the sink of this name
    /// that ran before and is ending.
    ///
    /// # Errors
    ///
    /// If it cannot be started; the sentence says why.
    pub fn start(
        &self,
        name: &str,
        spools: &Path,
        predecessor: Option<Running>,
        lines: Receiver<Line>,
        account: Arc<Account>,
    ) -> Result<Running, Wrong> {
        let no_thread = |error: std::io::Error| Wrong(format!("cannot start a thread: {error}"));
        match self {
            Self::Stdout(_) => stdout::start(name, predecessor, lines, account).map_err(no_thread),
            Self::File(settings) => file::start(name, settings, predecessor, lines, account).map_err(no_thread),
            Self::Loki(settings) => loki::start(name, settings, &spools.join(name), predecessor, lines, account),
            Self::Splunk(settings) => splunk::start(name, settings, &spools.join(name), predecessor, lines, account),
            Self::Otlp(settings) => otlp::start(name, settings, &spools.join(name), predecessor, lines, account),
        }
    }

    /// Which lines it wants.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        match self {
            Self::Stdout(settings) => &settings.filter,
            Self::File(settings) => &settings.filter,
            Self::Loki(settings) => &settings.filter,
            Self::Splunk(settings) => &settings.filter,
            Self::Otlp(settings) => &settings.filter,
        }
    }

    /// The file or the folder that it writes to; `spools` as for [`Self::start`].
    #[must_use]
    pub fn written(&self, name: &str, spools: &Path) -> Option<PathBuf> {
        match self {
            Self::Stdout(_) => None,
            Self::File(settings) => Some(settings.path.clone()),
            Self::Loki(_) | Self::Splunk(_) | Self::Otlp(_) => Some(spools.join(name)),
        }
    }

    /// What it must not share with another sink.
    #[must_use]
    pub fn place(&self) -> Option<PathBuf> {
        match self {
            Self::Stdout(_) => Some("standard output".into()),
            Self::File(settings) => Some(settings.path.clone()),
            Self::Loki(_) | Self::Splunk(_) | Self::Otlp(_) => None,
        }
    }
}

fn read<T: DeserializeOwned>(place: &str, table: toml::Table) -> Result<T, Wrong> {
    T::deserialize(toml::Value::Table(table)).map_err(|error| explained(place, error.message()))
}
