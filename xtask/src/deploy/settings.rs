//! What the manifests tell rstscope, held against rstscope itself.
//!
//! Flags and variables are given to `rstscope config show`, which prints every setting with where it is from: a flag
//! that does not exist is not among them, and a value that is not taken is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Bench, object, render::Rendering};
use crate::{child, files};

/// Where a ConfigMap has the configuration.
pub const CONFIGURATION: &str = "/data/rstscope.toml";
/// Where the container finds it: the ConfigMap's folder and key.
const CONFIG_FLAG: &str = "--config=/etc/rstscope/rstscope.toml";
const CONFIG_FOLDER: &str = "/etc/rstscope";
/// Where secrets are in the container.
const SECRETS: &str = "/etc/rstscope-secrets/";
/// What agents of [`mod@crate::deploy`]'s manifests are told beside their flags: Kubernetes fills it in.
const FILLED_IN: &str = "NODE_NAME";

/// Checks both renderings of every combination.
pub fn check(bench: &Bench, renderings: &[Rendering]) -> Result<Vec<String>> {
    // Most mistakes are in the base, and so in every combination.
    let mut problems: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for Rendering { name, plain, chart, chart_of_oldest } in renderings {
        for objects in [plain, chart, chart_of_oldest] {
            for problem in check_one(bench, objects)? {
                problems.entry(problem).or_default().insert(name);
            }
        }
    }
    let named = problems.into_iter().map(|(problem, names)| {
        let more = names.len() - 1;
        let first = names.first().copied().unwrap_or_default();
        if more == 0 { format!("{first}: {problem}") } else { format!("{first} and {more} more: {problem}") }
    });
    Ok(named.collect())
}

fn check_one(bench: &Bench, objects: &[Value]) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let container = object::container(objects)?;
    let configuration = object::text(object::only(objects, "ConfigMap")?, CONFIGURATION);
    let told = variables(container, &mut problems);
    match meaning(bench, configuration, &told)? {
        Err(problem) => problems.push(problem),
        Ok(shown) => problems.extend(
            told.keys()
                .filter(|name| !is_taken(name, &shown))
                .map(|name| format!("{name} is no setting of `rstscope run`: it is not in `rstscope config show`")),
        ),
    }
    problems.extend(mounts(container, configuration));
    problems.extend(grace(objects, &told));
    Ok(problems)
}

/// The variables of the environment that say what the container's arguments and its own variables say.
fn variables(container: &Value, problems: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    let mut arguments = object::list(container, "/args").iter().filter_map(Value::as_str);
    if arguments.next() != Some("run") {
        problems.push("the container does not run `rstscope run`".to_owned());
    }
    let mut has_configuration = false;
    for argument in arguments {
        let (flag, value) = argument.split_once('=').unwrap_or((argument, "true"));
        if argument == CONFIG_FLAG {
            has_configuration = true;
        } else if let Some(name) = flag.strip_prefix("--") {
            told.insert(format!("RSTSCOPE_{}", name.replace('-', "_").to_uppercase()), value.to_owned());
        } else {
            problems.push(format!("{argument} is no flag"));
        }
    }
    if !has_configuration {
        problems.push(format!("{CONFIG_FLAG} is not among the arguments"));
    }
    for variable in object::list(container, "/env") {
        let value = variable.get("value").and_then(Value::as_str).unwrap_or("filled-in");
        told.insert(object::text(variable, "/name").to_owned(), value.to_owned());
    }
    told
}

/// `config show` writes `KEY = VALUE # SOURCE`.
fn is_taken(variable: &str, shown: &str) -> bool {
    let key = match variable {
        FILLED_IN => "node".to_owned(),
        "RSTSCOPE_PORTS" => "port".to_owned(),
        name => name.trim_start_matches("RSTSCOPE_").to_lowercase(),
    };
    let beginning = format!("{key} = ");
    shown.lines().any(|line| line.starts_with(&beginning) && line.ends_with("# the environment"))
}

/// The folder of the ConfigMap and that of the secrets are mounted, and a spool where a sink has one.
fn mounts(container: &Value, configuration: &str) -> Vec<String> {
    let mounted: Vec<&str> =
        object::list(container, "/volumeMounts").iter().map(|mount| object::text(mount, "/mountPath")).collect();
    let sends = ["loki", "splunk", "otlp"].iter().any(|kind| configuration.contains(&format!("type = \"{kind}\"")));
    let needed = [
        (true, CONFIG_FOLDER, "the configuration"),
        (configuration.contains(SECRETS), SECRETS.trim_end_matches('/'), "secrets"),
        (sends, "/var/lib/rstscope", "the spool"),
        (true, "/run", "the lock file"),
    ];
    let missing = needed.iter().filter(|(needed, folder, _)| *needed && !mounted.contains(folder));
    missing.map(|(_, folder, what)| format!("{folder} is not mounted, where {what} is")).collect()
}

/// Kubernetes must not kill an agent that is still handing on its lines.
fn grace(objects: &[Value], told: &BTreeMap<String, String>) -> Option<String> {
    let seconds = |text: &String| text.strip_suffix('s')?.parse::<u64>().ok();
    let given =
        object::only(objects, "DaemonSet").ok()?.pointer("/spec/template/spec/terminationGracePeriodSeconds")?;
    match (told.get("RSTSCOPE_GRACE").and_then(seconds), given.as_u64()) {
        (Some(own), Some(given)) if own < given => None,
        _ => Some("--grace is not below terminationGracePeriodSeconds".to_owned()),
    }
}

/// What rstscope makes of a configuration, or what it says is wrong.
pub fn meaning(
    bench: &Bench,
    configuration: &str,
    told: &BTreeMap<String, String>,
) -> Result<std::result::Result<String, String>> {
    let folder = bench.scratch.join("configuration");
    let secrets = folder.join("secrets");
    make_up_secrets(configuration, &secrets)?;
    let own = format!("{}/", secrets.display());
    let file = folder.join("rstscope.toml");
    files::write_file(&file, &configuration.replace(SECRETS, &own))?;
    let mut command = Command::new(&bench.rstscope);
    // Nothing of this shell's environment is a setting.
    command.env_clear().envs(told).args(["config", "show", "--config"]).arg(&file);
    let output = child::output(&mut command)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&own, SECRETS);
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr).trim().to_owned()) })
}

/// `config show` reads secrets, and nobody has those of the manifests.
fn make_up_secrets(configuration: &str, folder: &Path) -> Result<()> {
    for rest in configuration.split(SECRETS).skip(1) {
        let name = rest.split('"').next().filter(|name| !name.is_empty() && !name.contains('/'));
        let name = name.with_context(|| format!("{SECRETS} is followed by no name of a file"))?;
        files::write_file(&folder.join(name), "made up\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_and_variables_become_settings() {
        let container = json!({
            "args": ["run", CONFIG_FLAG, "--grace=25s", "--no-conntrack"],
            "env": [{ "name": "NODE_NAME", "valueFrom": {} }, { "name": "RSTSCOPE_CLUSTER_WATCH", "value": "true" }],
        });
        let mut problems = Vec::new();
        let told = variables(&container, &mut problems);
        assert_eq!(problems, [""; 0]);
        let expected = ["NODE_NAME", "RSTSCOPE_CLUSTER_WATCH", "RSTSCOPE_GRACE", "RSTSCOPE_NO_CONNTRACK"];
        assert_eq!(told.keys().collect::<Vec<_>>(), expected);
        assert_eq!(told["RSTSCOPE_NO_CONNTRACK"], "true");
        variables(&json!({ "args": ["trace", "x"] }), &mut problems);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }

    #[test]
    fn a_setting_is_taken_if_it_is_shown_as_the_environments() {
        let shown = "[agent]\nnode = \"n1\" # the environment\ngrace = \"25s\" # default\n";
        assert!(is_taken("NODE_NAME", shown));
        assert!(!is_taken("RSTSCOPE_GRACE", shown) && !is_taken("RSTSCOPE_LISTEN", shown));
    }

    #[test]
    fn what_is_not_mounted_is_named() {
        let container = json!({ "volumeMounts": [{ "mountPath": "/etc/rstscope" }, { "mountPath": "/run" }] });
        assert_eq!(mounts(&container, "type = \"stdout\""), [""; 0]);
        assert_eq!(mounts(&container, "type = \"splunk\"\ntoken = { file = \"/etc/rstscope-secrets/t\" }").len(), 2);
    }
}
