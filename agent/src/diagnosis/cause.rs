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
