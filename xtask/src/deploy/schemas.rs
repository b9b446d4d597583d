//! Every object against Kubernetes' own schemas, strictly: a key that does not exist is a mistake.
//!
//! What kustomize gives is held against the version in which the least-privilege form's fields came, and the newest;
//! what the chart gives against the oldest that it is for, and the newest. PodMonitors are held against the Prometheus
//! Operator's schema.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Bench, object,
    queries::{self, Asked},
    render::{self, NEWEST, OLDEST, Rendering},
};
use crate::{child, files};

/// `appArmorProfile` is a field from this version on; kustomize knows no versions.
const PLAIN_OLDEST: &str = "1.30";

const POD_MONITOR: &str = "PodMonitor";

/// Checks all of them.
pub fn check(bench: &Bench, renderings: &[Rendering]) -> Result<Vec<String>> {
    // Most objects come out of several combinations: the same text is looked at once.
    let mut by_version: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    let mut monitors = BTreeMap::new();
    for Rendering { name, plain, chart, chart_of_oldest } in renderings {
        for (version, objects) in [(PLAIN_OLDEST, plain), (NEWEST, plain), (NEWEST, chart), (OLDEST, chart_of_oldest)] {
            for object in objects {
                let place = format!("{name}: {}", object::name(object));
                if object::kind(object) == POD_MONITOR {
                    monitors.entry(object.to_string()).or_insert((place, object.clone()));
                } else {
                    by_version.entry(version).or_default().entry(object.to_string()).or_insert(place);
                }
            }
        }
    }
    let (every, mut problems) = render::every_value(bench)?;
    for object in every {
        let place = format!("every value: {}", object::name(&object));
        if object::kind(&object) == POD_MONITOR {
            monitors.insert(object.to_string(), (place, object));
        } else {
            by_version.entry(NEWEST).or_default().insert(object.to_string(), place);
        }
    }
    for (version, objects) in &by_version {
        problems.extend(of_kubernetes(bench, version, objects)?);
    }
    let (places, monitors): (Vec<String>, Vec<Value>) = monitors.into_values().unzip();
    let answer = queries::read(bench, &Asked { monitors, ..Asked::default() })?;
    let wrong = places.iter().zip(answer.monitors).filter_map(|(place, wrong)| Some(format!("{place}: {}", wrong?)));
    problems.extend(wrong);
    Ok(problems)
}

/// Reads a list of [PLACE, OBJECT], and prints what is wrong, a JSON list of texts.
const VALIDATE: &str = "\
import json, sys, kubernetes_validate
wrong = []
for place, definition in json.load(open(sys.argv[2])):
    try:
        version = kubernetes_validate.validate(definition, sys.argv[1], strict=True)
        if version != sys.argv[1]:
            wrong.append(f'{place}: there are no schemas of this version, only of {version}')
    except kubernetes_validate.ValidationError as error:
        wrong.append(f'{place}: {\".\".join(str(part) for part in error.path)}: {error.message}')
    except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.VersionNotSupportedError) as error:
        wrong.append(f'{place}: {error.message}')
print(json.dumps(wrong))
";

/// Checks objects, each with its place, against the schemas of a version.
pub fn of_kubernetes(bench: &Bench, version: &str, objects: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let list: Vec<String> =
        objects.iter().map(|(object, place)| format!("[{}, {object}]", Value::from(place.as_str()))).collect();
    let file = bench.scratch.join(format!("objects-{version}.json"));
    files::write_file(&file, &format!("[{}]", list.join(",\n")))?;
    let mut command = bench.programs.python();
    let output = child::output(command.args(["-c", VALIDATE, version]).arg(&file))?;
    let wrong: Vec<String> = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("kubernetes-validate failed: {}", String::from_utf8_lossy(&output.stderr).trim()))?;
    Ok(wrong.into_iter().map(|problem| format!("Kubernetes {version}: {problem}")).collect())
}
