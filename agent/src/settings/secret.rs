//! Secrets: in a file or in the environment, never in the configuration, and never printed.

use std::{env, fs, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::Wrong;

/// Where a secret is, written `{ file = "PATH" }` or `{ env = "VARIABLE" }`. A file is read again for every request, so that a
/// new secret takes effect by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Secret {
    /// In this file; white space around it does not count.
    File(PathBuf),
    /// In this variable of the environment.
    Env(String),
}

impl Secret {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// If it is not there or empty; the sentence names the place and never the secret.
    pub fn read(&self) -> Result<String, Wrong> {
        let (place, found) = match self {
            Self::File(path) => {
                (path.display().to_string(), fs::read_to_string(path).map_err(|error| error.to_string()))
            }
            Self::Env(name) => (format!("${name}"), env::var(name).map_err(|error| error.to_string())),
        };
        let secret = found.map_err(|error| Wrong(format!("cannot read the secret in {place}: {error}")))?;
        let secret = secret.trim();
        if secret.is_empty() {
            return Err(Wrong(format!("the secret in {place} is empty")));
        }
        Ok(secret.to_owned())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

const REMEDY: &str =
    "a secret does not stand in the configuration: write { file = \"PATH\" } or { env = \"VARIABLE\" }";

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Secret;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("{ file = \"PATH\" } or { env = \"VARIABLE\" }")
    }

    // Serde's own message would quote it.
    fn visit_str<E: de::Error>(self, _secret: &str) -> Result<Secret, E> {
        Err(E::custom(REMEDY))
    }

    fn visit_i64<E: de::Error>(self, _secret: i64) -> Result<Secret, E> {
        Err(E::custom(REMEDY))
    }

    fn visit_f64<E: de::Error>(self, _secret: f64) -> Result<Secret, E> {
        Err(E::custom(REMEDY))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let first = map.next_entry::<String, String>()?;
        let more = map.next_key::<String>()?.is_some();
        match (first, more) {
            (Some((key, path)), false) if key == "file" => Ok(Secret::File(path.into())),
            (Some((key, name)), false) if key == "env" => Ok(Secret::Env(name)),
            _ => Err(de::Error::custom(REMEDY)),
        }
    }
}
