//! That the checks find mistakes: what each of the foreign programs has to refuse is put before it, one mistake at a
//! time.
//!
//! Their releases are pinned, but a grammar whose nodes are called otherwise, or schemas that are not strict, would
//! find nothing and so pass everything.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Bench,
    lines::Lines,
    metrics::Metrics,
    queries::{self, Asked},
    render::{NEWEST, OLDEST},
    schemas, settings,
};

/// Checks.
pub fn check(bench: &Bench) -> Result<Vec<String>> {
    let mut problems = schemas_are_strict(bench)?;
    problems.extend(grammars_are_read(bench)?);
    if settings::meaning(bench, "[sinks.x]\ntype = \"stdout\"\nfilters = {}\n", &BTreeMap::new())?.is_ok() {
        problems.push("rstscope takes a key that does not exist".to_owned());
    }
    Ok(problems)
}

fn schemas_are_strict(bench: &Bench) -> Result<Vec<String>> {
    let daemon_set = |spec: Value| {
        let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": spec });
        let selector = json!({ "matchLabels": { "a": "b" } });
        json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "x" },
                "spec": { "selector": selector, "template": template } })
    };
    let containers = json!([{ "name": "x", "image": "x" }]);
    let mut problems = Vec::new();
    for version in [OLDEST, NEWEST] {
        for (what, spec, is_right) in [
            ("a pod", json!({ "containers": containers, "hostPID": true }), true),
            ("a key that does not exist", json!({ "containers": containers, "hostPid": true }), false),
            ("a value of another type", json!({ "containers": containers, "hostPID": "true" }), false),
            ("a key that is missing", json!({ "hostPID": true }), false),
        ] {
            let object = BTreeMap::from([(daemon_set(spec).to_string(), what.to_owned())]);
            if schemas::of_kubernetes(bench, version, &object)?.is_empty() != is_right {
                problems.push(format!("the schemas of Kubernetes {version} do not tell {what}"));
            }
        }
    }
    Ok(problems)
}

fn grammars_are_read(bench: &Bench) -> Result<Vec<String>> {
    let (metrics, lines) = (Metrics::documented(&bench.workspace)?, Lines::documented(&bench.workspace)?);
    let promql = [
        (0, "sum by (cause, node) (rate(rstscope_lost_total{sink=\"x\"}[5m])) > 0"),
        (1, "sum by (cause) (rate(rstscope_lost_total[5m])"),
        (1, "rate(rstscope_nothing_total[5m])"),
        (2, "sum by (nothing) (rstscope_lost_total{nothing=\"x\"})"),
    ];
    let logql = [
        (0, "{job=\"rstscope\"} | cause=\"x\" | json s=\"cause.summary\" | line_format \"{{.s}}\""),
        (1, "{job=\"rstscope\"} | cause="),
        (2, "sum by (nothing) (count_over_time({nothing=\"x\"} [5m]))"),
        (2, "{job=\"rstscope\"} | json s=\"cause.nothing\" | line_format \"{{.nothing}}\""),
    ];
    let texts = |queries: &[(usize, &str)]| queries.iter().map(|(_, query)| (*query).to_owned()).collect();
    let asked = Asked { promql: texts(&promql), logql: texts(&logql), monitors: vec![json!({ "spec": {} })] };
    let answer = queries::read(bench, &asked)?;
    let of_prometheus = answer.promql.iter().map(|query| query.refuse_metrics(&metrics));
    let of_loki = answer.logql.iter().map(|query| query.refuse_fields(&lines));
    let found = of_prometheus.chain(of_loki).zip(promql.iter().chain(&logql));
    let unlike = found.filter(|(found, (expected, _))| found.len() != *expected);
    let mut problems: Vec<String> =
        unlike.map(|(found, (expected, query))| format!("{query}: {expected} mistakes, but {found:?}")).collect();
    if answer.monitors.iter().any(Option::is_none) {
        problems.push("a PodMonitor without a selector is taken".to_owned());
    }
    Ok(problems)
}
