//! The chart gives the same objects as kustomize, for the values that stand for an overlay and its components.
//!
//! Left out of the comparison: the labels that Helm's conventions ask for; the namespace, which a chart cannot make for
//! itself (docs/kubernetes.md has the two commands for it); the order of lists whose members have names; and how the
//! configuration is written, of which rstscope itself says what it means.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::Value;

use super::{Bench, object, render::Rendering, settings};

const OF_HELM: [&str; 3] = ["helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version"];

/// Compares.
pub fn check(bench: &Bench, renderings: &[Rendering]) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for Rendering { name, plain, chart, .. } in renderings {
        let (plain, chart) = (comparable(bench, plain)?, comparable(bench, chart)?);
        let names: BTreeSet<&String> = plain.keys().chain(chart.keys()).collect();
        for object in names {
            match (plain.get(object), chart.get(object)) {
                (Some(plain), Some(chart)) => differences(&format!("{name}: {object}"), plain, chart, &mut problems),
                (Some(_), None) => problems.push(format!("{name}: {object} is not in the chart")),
                _ => problems.push(format!("{name}: {object} is in the chart only")),
            }
        }
    }
    Ok(problems)
}

fn comparable(bench: &Bench, objects: &[Value]) -> Result<BTreeMap<String, Value>> {
    let mut named = BTreeMap::new();
    for object in objects.iter().filter(|object| object::kind(object) != "Namespace") {
        let mut object = object.clone();
        if let Some(labels) = object.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.retain(|label, _| !OF_HELM.contains(&label.as_str()));
        }
        if let Some(Value::String(text)) = object.pointer_mut(settings::CONFIGURATION) {
            *text = settings::meaning(bench, text, &BTreeMap::new())?.unwrap_or_else(|problem| problem);
        }
        sort_named(&mut object);
        named.insert(object::name(&object), object);
    }
    Ok(named)
}

/// A mount goes by its place: a volume may be mounted twice.
fn sort_named(value: &mut Value) {
    match value {
        Value::Array(members) => {
            members.iter_mut().for_each(sort_named);
            for key in ["name", "mountPath"] {
                if members.iter().all(|member| member.get(key).is_some_and(Value::is_string)) {
                    members.sort_by_key(|member| member[key].to_string());
                }
            }
        }
        Value::Object(members) => members.values_mut().for_each(sort_named),
        _ => {}
    }
}

fn differences(place: &str, plain: &Value, chart: &Value, problems: &mut Vec<String>) {
    match (plain, chart) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for key in keys {
                let of = |object: &'_ serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or(Value::Null);
                differences(&format!("{place}/{key}"), &of(left), &of(right), problems);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                differences(&format!("{place}/{index}"), left, right, problems);
            }
        }
        _ if plain == chart => {}
        _ => problems.push(format!("{place}: kustomize has {plain}, the chart {chart}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(mut plain: Value, mut chart: Value) -> Vec<String> {
        let mut problems = Vec::new();
        sort_named(&mut plain);
        sort_named(&mut chart);
        differences("x", &plain, &chart, &mut problems);
        problems
    }

    #[test]
    fn the_order_of_what_has_a_name_does_not_count() {
        let (first, second) = (json!({ "name": "a", "value": "1" }), json!({ "name": "b", "value": "2" }));
        assert_eq!(found(json!({ "env": [first, second] }), json!({ "env": [second, first] })), [""; 0]);
        assert_eq!(found(json!(["run", "-x"]), json!(["-x", "run"])).len(), 2);
    }

    #[test]
    fn what_is_missing_or_different_is_named_with_its_place() {
        let problems = found(json!({ "a": { "b": 1, "c": [1, 2] } }), json!({ "a": { "b": 2, "c": [1] } }));
        assert_eq!(problems, ["x/a/b: kustomize has 1, the chart 2", "x/a/c: kustomize has [1,2], the chart [1]"]);
        assert_eq!(found(json!({ "a": 1 }), json!({})), ["x/a: kustomize has 1, the chart null"]);
    }
}
