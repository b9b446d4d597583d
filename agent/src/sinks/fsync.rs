//! When a sink that writes to a disk waits until the data is on the medium, as the configuration says it.

use std::{borrow::Cow, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::settings::units::{Time, time};

/// The death of the agent costs nothing either way: what was written is in the kernel's hands. This is about the death of the
/// node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fsync {
    /// The kernel writes when it likes, within half a minute or so.
    Never,
    /// At most this much later: one call for everything written since.
    Every(Time),
    /// After each write.
    Always,
}

impl Default for Fsync {
    fn default() -> Self {
        Self::Every(Time(Duration::from_secs(1)))
    }
}

impl<'de> Deserialize<'de> for Fsync {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "never" => Ok(Self::Never),
            "always" => Ok(Self::Always),
            _ => time(&text).map(|pause| Self::Every(Time(pause))).map_err(|_| {
                de::Error::custom(format!("fsync is \"never\", \"always\" or a time such as \"1s\", not {text:?}"))
            }),
        }
    }
}

impl Serialize for Fsync {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Never => serializer.serialize_str("never"),
            Self::Every(pause) => serializer.collect_str(pause),
            Self::Always => serializer.serialize_str("always"),
        }
    }
}

impl JsonSchema for Fsync {
    fn schema_name() -> Cow<'static, str> {
        "Fsync".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "never, always, or a time such as 1s: at most this much later than the write."
        })
    }
}
