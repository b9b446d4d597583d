//! Queries as the real grammars read them: those of Prometheus' and Grafana's own editors. The Prometheus Operator's
//! objects are held against its own schema by the same script.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Bench, lines::Lines, metrics::Metrics};
use crate::child;

/// What reads them, with what `programs` has installed beside it.
pub const SCRIPT: &str = include_str!("queries.mjs");

/// What there is to read.
#[derive(Debug, Default)]
pub struct Asked {
    /// Queries for Prometheus.
    pub promql: Vec<String>,
    /// Queries for Loki.
    pub logql: Vec<String>,
    /// PodMonitors.
    pub monitors: Vec<Value>,
}

/// What was found, in the order of what was asked.
#[derive(Debug)]
pub struct Answer {
    /// Of each query for Prometheus.
    pub promql: Vec<Query>,
    /// Of each query for Loki.
    pub logql: Vec<Query>,
    /// What is wrong with each PodMonitor.
    pub monitors: Vec<Option<String>>,
}

/// What a query names.
#[derive(Debug)]
pub struct Query(Value);

/// Asks the grammars.
pub fn read(bench: &Bench, asked: &Asked) -> Result<Answer> {
    let Asked { promql, logql, monitors } = asked;
    let question = json!({ "promql": promql, "logql": logql, "monitors": monitors }).to_string();
    let answer = answer(bench.programs.queries(), &question)?;
    let list = |key: &str| answer[key].as_array().cloned().with_context(|| format!("queries.mjs did not answer {key}"));
    let queries = |key: &str| list(key).map(|list| list.into_iter().map(Query).collect());
    Ok(Answer {
        promql: queries("promql")?,
        logql: queries("logql")?,
        monitors: list("monitors")?.iter().map(|wrong| wrong.as_str().map(str::to_owned)).collect(),
    })
}

fn answer(mut command: Command, question: &str) -> Result<Value> {
    let mut reader = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .with_context(|| format!("cannot run `{}`", child::shown(&command)))?;
    // It reads everything before it writes, so neither side waits for the other.
    reader.stdin.take().context("node has no stdin")?.write_all(question.as_bytes()).context("node does not read")?;
    let output = reader.wait_with_output().context("cannot wait for node")?;
    if !output.status.success() {
        bail!("`{}` failed ({}), see above", child::shown(&command), output.status);
    }
    serde_json::from_slice(&output.stdout).context("queries.mjs printed no JSON")
}

impl Query {
    /// What is wrong with a query for Prometheus.
    pub fn refuse_metrics(&self, metrics: &Metrics) -> Vec<String> {
        let selectors = self.0["selectors"].as_array().map_or(&[][..], Vec::as_slice);
        let selected = selectors.iter().filter_map(|selector| {
            metrics.refuse(selector["metric"].as_str().unwrap_or_default(), &texts(&selector["labels"]))
        });
        let grouped = texts(&self.0["labels"]).into_iter().filter(|label| !metrics.has_label(label));
        self.error()
            .into_iter()
            .chain(selected)
            .chain(grouped.map(|label| format!("no metric has a label {label}")))
            .collect()
    }

    /// What is wrong with a query for Loki.
    pub fn refuse_fields(&self, lines: &Lines) -> Vec<String> {
        let defined = texts(&self.0["defined"]);
        let labels = texts(&self.0["labels"]).into_iter();
        let labels = labels.filter(|label| !lines.loki_has(label) && !defined.contains(label));
        let paths = texts(&self.0["paths"]).into_iter().filter(|path| !lines.has(path));
        self.error()
            .into_iter()
            .chain(labels.map(|label| format!("{label} is neither a label nor structured metadata")))
            .chain(paths.map(|path| format!("lines have no key {path}")))
            .collect()
    }

    fn error(&self) -> Option<String> {
        self.0["error"].as_str().map(|at| format!("the grammar does not take it, at `{at}`"))
    }
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().map_or(&[][..], Vec::as_slice).iter();
    texts.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}
