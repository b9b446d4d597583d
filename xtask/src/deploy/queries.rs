//! Queries as the real grammars read them: those of Prometheus' and Grafana's own editors.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::{Bench, metrics::Metrics};

/// Which grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Prometheus.
    Promql,
    /// Loki.
    Logql,
}

/// What a query names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// What the grammar does not take, if anything.
    error: Option<String>,
    /// Each metric, with the labels it is selected by.
    selectors: Vec<(String, Vec<String>)>,
    /// Labels that are grouped by or joined on; for Loki every label and field.
    pub labels: Vec<String>,
    /// Loki only: paths into the line, as `| json name="path"` has them.
    pub paths: Vec<String>,
}
