//! Dashboards: their queries are such as the grammars take, and name metrics, labels and keys that there are.
//!
//! * Grafana's: every query of a panel or a variable, its variables filled in.
//! * Splunk's: well-formed, and the keys that searches name. Nothing outside of Splunk parses a search, so a mistake in
//!   a command is not found here.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Bench,
    lines::Lines,
    links,
    metrics::Metrics,
    object::{list, text},
    queries::{self, Asked},
    render::read,
};
use crate::{child, files};

const GRAFANA: &str = "deploy/grafana/rstscope.json";
const SPLUNK: &str = "deploy/splunk/rstscope.xml";

/// Checks.
pub fn check(bench: &Bench) -> Result<Vec<String>> {
    let mut problems = grafana(bench)?;
    problems.extend(splunk(bench)?);
    Ok(problems)
}

fn grafana(bench: &Bench) -> Result<Vec<String>> {
    let board = read(&bench.workspace.join(GRAFANA))?;
    let board: Value = serde_json::from_str(&board).with_context(|| format!("{GRAFANA} is not JSON"))?;
    let mut problems = Vec::new();
    let mut asked = Asked::default();
    let mut places: (Vec<String>, Vec<String>) = Default::default();
    let known: BTreeSet<&str> =
        list(&board, "/templating/list").iter().map(|variable| text(variable, "/name")).collect();
    let mut ids = BTreeSet::new();
    for panel in list(&board, "/panels") {
        let title = text(panel, "/title");
        if !ids.insert(panel["id"].to_string()) {
            problems.push(format!("{GRAFANA}: {title}: another panel has the same id"));
        }
        for target in list(panel, "/targets") {
            let query = text(target, "/expr");
            problems.extend(
                variables(query)
                    .filter(|name| !known.contains(name) && !name.starts_with("__"))
                    .map(|name| format!("{GRAFANA}: {title}: there is no variable ${name}")),
            );
            let (queries, places) = match text(target, "/datasource/type") {
                "prometheus" => (&mut asked.promql, &mut places.0),
                "loki" => (&mut asked.logql, &mut places.1),
                other => {
                    problems.push(format!("{GRAFANA}: {title}: no data source {other:?}"));
                    continue;
                }
            };
            queries.push(filled_in(query));
            places.push(title.to_owned());
        }
    }
    for variable in list(&board, "/templating/list") {
        // `label_values(METRIC, LABEL)` is Grafana's own; to a grammar it is METRIC by LABEL.
        let query = text(variable, "/query/query");
        if let Some((metric, label)) =
            query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')?.split_once(", "))
        {
            asked.promql.push(format!("sum by ({label}) ({metric}{{{label}=\"x\"}})"));
            places.0.push(format!("variable {}", text(variable, "/name")));
        }
    }
    let answer = queries::read(bench, &asked)?;
    let (metrics, lines) = (Metrics::documented(&bench.workspace)?, Lines::documented(&bench.workspace)?);
    let wrong = |place: &String, found: Vec<String>| {
        found.into_iter().map(|problem| format!("{GRAFANA}: {place}: {problem}")).collect::<Vec<_>>()
    };
    for (place, query) in places.0.iter().zip(&answer.promql) {
        problems.extend(wrong(place, query.refuse_metrics(&metrics)));
    }
    for (place, query) in places.1.iter().zip(&answer.logql) {
        problems.extend(wrong(place, query.refuse_fields(&lines)));
    }
    problems.extend(prometheus_takes(bench, &asked.promql)?);
    for link in strings(&board).into_iter().filter(|text| text.starts_with("https://")) {
        problems.extend(links::refuse(&bench.workspace, link)?);
    }
    Ok(problems)
}

/// The grammar knows no types; Prometheus does, and checks a query that is a rule.
fn prometheus_takes(bench: &Bench, queries: &[String]) -> Result<Option<String>> {
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, query) in queries.iter().enumerate() {
        rules.push_str(&format!("      - record: query:{number}\n        expr: {}\n", Value::from(query.as_str())));
    }
    let file = bench.scratch.join("dashboard.rules.yaml");
    files::write_file(&file, &rules)?;
    let output = child::output(bench.programs.promtool()?.args(["check", "rules", "--lint=none"]).arg(&file))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok((!output.status.success()).then(|| format!("{GRAFANA}: {}", said.trim())))
}

/// The names of the variables in a query: `$name` and `${name}`.
fn variables(query: &str) -> impl Iterator<Item = &str> {
    query.split('$').skip(1).map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.split(|character: char| !character.is_ascii_alphanumeric() && character != '_').next().unwrap_or_default()
    })
}

/// The query as Grafana sends it: times for its own variables, something for the others.
fn filled_in(query: &str) -> String {
    let query = ["$__rate_interval", "$__interval", "$__range"]
        .iter()
        .fold(query.to_owned(), |query, time| query.replace(time, "5m"));
    let names: BTreeSet<String> = variables(&query).map(str::to_owned).collect();
    names
        .iter()
        .rev()
        .fold(query, |query, name| query.replace(&format!("${{{name}}}"), "x").replace(&format!("${name}"), "x"))
}

/// Every text in it.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(members) => members.iter().flat_map(strings).collect(),
        Value::Object(members) => members.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

/// Prints the text of every `query`, a JSON list.
const QUERIES: &str = "import json, sys, xml.etree.ElementTree as tree\n\
    print(json.dumps([query.text for query in tree.parse(sys.argv[1]).iter('query')]))";

fn splunk(bench: &Bench) -> Result<Vec<String>> {
    let mut command = bench.programs.python();
    let output = child::output(command.args(["-c", QUERIES]).arg(bench.workspace.join(SPLUNK)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Ok(vec![format!("{SPLUNK}: {}", said.lines().last().unwrap_or_default())]);
    }
    let queries: Vec<String> = serde_json::from_slice(&output.stdout).context("python printed no JSON")?;
    let lines = Lines::documented(&bench.workspace)?;
    let mut problems = Vec::new();
    for query in &queries {
        let unknown = keys(query).into_iter().filter(|key| !lines.has(key) && !lines.splunk_has(key));
        problems.extend(unknown.map(|key| format!("{SPLUNK}: lines have no key {key}")));
    }
    if !queries.iter().any(|query| query.contains("span=1d") && query.contains("BY service")) {
        problems.push(format!("{SPLUNK}: there are no resets per day per service"));
    }
    Ok(problems)
}

/// What a search names with dots, beside the tokens of the dashboard and what stands between double quotes.
fn keys(query: &str) -> BTreeSet<&str> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '.');
    let unquoted = query.split('"').step_by(2);
    let without_tokens = unquoted.flat_map(|text| text.split('$').step_by(2));
    let words = without_tokens.flat_map(|text| text.split(move |character| !is_part(character)));
    words.filter(|word| word.contains('.')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_and_filled_in() {
        let query = r#"rate(a{n=~"$node",m="${node}",o="$nodes"}[$__rate_interval])"#;
        assert_eq!(variables(query).collect::<Vec<_>>(), ["node", "node", "nodes", "__rate_interval"]);
        assert_eq!(filled_in(query), r#"rate(a{n=~"x",m="x",o="x"}[5m])"#);
    }

    #[test]
    fn keys_of_a_search_have_dots() {
        let query =
            r#"type=reset cause.code="$cause$" $time.earliest$ | eval s=coalesce('local.pod.name', "x.y") | sort a"#;
        assert_eq!(keys(query).into_iter().collect::<Vec<_>>(), ["cause.code", "local.pod.name"]);
    }
}
