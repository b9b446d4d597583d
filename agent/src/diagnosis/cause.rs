//! A cause: the answer to "why", with how sure it is and what it rests on.

use serde::Serialize;
use serde_json::{Map, Value};

use super::code::Code;
use crate::event::Millis;

/// How sure a cause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The evidence allows it, and others.
    Possible,
    /// The evidence fits one cause.
    Likely,
    /// The kernel's own state or reason proves it.
    Certain,
}

impl Confidence {
    /// Its name in lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// A product whose documented timeout fits what was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Product {
    /// Its name.
    pub product: String,
    /// Which versions.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub versions: String,
    /// The setting to change.
    pub setting: String,
    /// The documented value.
    pub seconds: f64,
}

/// Why it happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cause {
    /// Which cause.
    pub code: Code,
    /// How sure.
    pub confidence: Confidence,
    /// One sentence with this event's numbers, from the reader's side.
    pub summary: String,
    /// One sentence: what to do.
    pub advice: String,
    /// The numbers used.
    pub evidence: Map<String, Value>,
    /// Products whose timeout fits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<Product>,
    /// Nobody needs to do anything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub benign: bool,
}

impl Cause {
    /// A cause without evidence yet.
    #[must_use]
    pub fn new(code: Code, confidence: Confidence, summary: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            code,
            confidence,
            summary: summary.into(),
            advice: advice.into(),
            evidence: Map::new(),
            products: Vec::new(),
            benign: code.is_benign(),
        }
    }

    /// Adds a fact to the evidence, if it is known.
    #[must_use]
    pub fn with(mut self, name: &str, fact: Option<impl Into<Value>>) -> Self {
        if let Some(fact) = fact {
            self.evidence.insert(name.to_owned(), fact.into());
        }
        self
    }
}

impl From<Millis> for Value {
    fn from(millis: Millis) -> Self {
        serde_json::to_value(millis).unwrap_or(Self::Null)
    }
}

#[cfg(test)]
mod tests {
    /// Every name under which a rule puts something into the evidence is explained to readers.
    #[test]
    fn what_evidence_names_is_documented() {
        let explained = include_str!("../../../docs/schema.md");
        let mut names = 0;
        for file in [
            include_str!("rules/closing.rs"),
            include_str!("rules/connect.rs"),
            include_str!("rules/mod.rs"),
            include_str!("rules/received.rs"),
            include_str!("rules/sent.rs"),
            include_str!("rules/timeout.rs"),
        ] {
            for name in file.split(".with(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                // A key of an object is documented as `key` or `object.key`; `idle_rx_ms` stands for `idle.rx_ms`.
                assert!(
                    explained.contains(&format!("`{name}`")) || explained.contains(&format!(".{name}`")),
                    "{name} is not in docs/schema.md"
                );
                names += 1;
            }
        }
        assert!(names > 50, "only {names} names found");
    }
}
