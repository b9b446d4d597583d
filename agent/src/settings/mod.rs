//! How settings are written: times and sizes with units, secrets by their place, and what is wrong in one sentence.

pub mod secret;
pub mod units;

/// What is wrong, in one sentence with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub String);
