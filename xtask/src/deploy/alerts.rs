//! Alert rules: promtool reads and tests them, every alert is tested, says what it should, and names metrics that there
//! are.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Bench, links,
    metrics::Metrics,
    object::{self, text},
    queries::{self, Asked},
    render::read,
};
use crate::child;

const RULES: &str = "deploy/prometheus/rstscope.rules.yaml";
const TESTS: &str = "deploy/prometheus/rstscope.rules.test.yaml";
/// The page that says what to do about the agents' own alerts.
const PAGE: &str = "docs/alerts.md";

/// Checks.
pub fn check(bench: &Bench) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (what, file) in [(["check", "rules"], RULES), (["test", "rules"], TESTS)] {
        let output = child::output(bench.programs.promtool()?.args(what).arg(bench.workspace.join(file)))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            problems.push(format!("promtool {}: {}", what.join(" "), said.trim()));
        }
    }
    let alerts = alerts(&read(&bench.workspace.join(RULES))?)?;
    let (tests, page) = (read(&bench.workspace.join(TESTS))?, read(&bench.workspace.join(PAGE))?);
    let tested: BTreeSet<&str> =
        tests.lines().filter_map(|line| Some(line.split_once("alertname:")?.1.trim())).collect();
    for alert in &alerts {
        let name = text(alert, "/alert");
        if !tested.contains(name) {
            problems.push(format!("{name} is not tested in {TESTS}"));
        }
        if !page.contains(name) {
            problems.push(format!("{name} is not in {PAGE}"));
        }
        for key in ["/labels/severity", "/annotations/summary", "/annotations/description"] {
            if text(alert, key).is_empty() {
                problems.push(format!("{name} has no {key}"));
            }
        }
        let link = links::refuse(&bench.workspace, text(alert, "/annotations/runbook_url"))?;
        problems.extend(link.map(|problem| format!("{name}: {problem}")));
    }
    let promql = alerts.iter().map(|alert| text(alert, "/expr").to_owned()).collect();
    let answer = queries::read(bench, &Asked { promql, ..Asked::default() })?;
    let metrics = Metrics::documented(&bench.workspace)?;
    for (alert, query) in alerts.iter().zip(answer.promql) {
        problems.extend(
            query.refuse_metrics(&metrics).into_iter().map(|problem| format!("{}: {problem}", text(alert, "/alert"))),
        );
    }
    Ok(problems)
}

fn alerts(rules: &str) -> Result<Vec<Value>> {
    let rules = object::read(rules)?;
    let groups = object::list(rules.first().context("there are no rules")?, "/groups");
    Ok(groups.iter().flat_map(|group| object::list(group, "/rules")).cloned().collect())
}
