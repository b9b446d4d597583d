//! Overlays with their components, rendered by kustomize, and the chart with the values that stand for them, by Helm.
//!
//! Which there are is read from the folders, so that an overlay without values to compare with is an error.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Error, Result, bail};
use serde_json::Value;

use super::{Bench, object};
use crate::{child, files};

/// Part of overlays, never chosen alone.
const PART_OF_OVERLAYS: &str = "spool";

/// One overlay with some components, rendered both ways.
pub struct Rendering {
    /// The overlay and the components; or the page that says how.
    pub name: String,
    /// By kustomize.
    pub plain: Vec<Value>,
    /// By Helm, as for the newest Kubernetes.
    pub chart: Vec<Value>,
    /// By Helm, as for the oldest one that the chart is for.
    pub chart_of_oldest: Vec<Value>,
}

/// The release's name and namespace, with which the chart names things as the manifests do.
const RELEASE: &str = "rstscope";

/// The oldest Kubernetes that the chart is for: its `kubeVersion`.
pub const OLDEST: &str = "1.25";
/// The newest one that Helm and the schemas know.
pub const NEWEST: &str = "1.37";

/// Renders every overlay: alone, with each component, and with all of them.
pub fn all(bench: &Bench) -> Result<Vec<Rendering>> {
    // kustomize takes bases by relative paths only, and the target folder may be anywhere.
    let deploy = bench.scratch.join("deploy");
    let mut command = Command::new("cp");
    child::run_on_stderr(command.arg("-r").arg(bench.workspace.join("deploy")).arg(&deploy), "is the disk full?")?;
    let mut components = folders(&deploy.join("kubernetes/components"))?;
    components.retain(|component| component != PART_OF_OVERLAYS);
    let mut renderings = Vec::new();
    for overlay in folders(&deploy.join("kubernetes/overlays"))? {
        let alone = std::iter::once(Vec::new());
        let with_one = components.iter().map(|component| vec![component.as_str()]);
        let with_all = std::iter::once(components.iter().map(String::as_str).collect());
        for chosen in alone.chain(with_one).chain(with_all) {
            renderings.push(combine(bench, &deploy, &overlay, &chosen)?);
        }
    }
    Ok(renderings)
}

/// The chart with every value set, which no combination does; and the values that were forgotten.
pub fn every_value(bench: &Bench) -> Result<(Vec<Value>, Vec<String>)> {
    let (defaults, file) = (chart(bench).join("values.yaml"), chart(bench).join("ci/every-values.yaml"));
    let values = |file: &Path| Ok::<_, Error>(object::read(&read(file)?)?.into_iter().next().unwrap_or_default());
    let mut forgotten = Vec::new();
    missing("", &values(&defaults)?, &values(&file)?, &mut forgotten);
    Ok((object::read(&helm(bench, NEWEST, &[file])?)?, forgotten))
}

/// The keys of the defaults that the values do not set.
fn missing(place: &str, defaults: &Value, values: &Value, found: &mut Vec<String>) {
    for (key, default) in defaults.as_object().into_iter().flatten() {
        let place = format!("{place}/{key}");
        match values.get(key) {
            None => found.push(format!("ci/every-values.yaml does not set {place}")),
            Some(value) => missing(&place, default, value, found),
        }
    }
}

/// What Helm itself says of the chart.
pub fn lint(bench: &Bench) -> Result<Vec<String>> {
    let mut command = bench.programs.helm();
    let output = child::output(command.args(["lint", "--strict", "--quiet"]).arg(chart(bench)))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let mut problems = versions(bench)?;
    if !output.status.success() {
        problems.push(format!("helm lint: {}", said.trim()));
    }
    Ok(problems)
}

/// The chart, the manifests and the workspace are one version.
fn versions(bench: &Bench) -> Result<Vec<String>> {
    let version = env!("CARGO_PKG_VERSION");
    let about = object::read(&read(&chart(bench).join("Chart.yaml"))?)?;
    let about = about.first().context("Chart.yaml is empty")?;
    let mut problems = Vec::new();
    for key in ["/version", "/appVersion"] {
        if object::text(about, key) != version {
            problems.push(format!("Chart.yaml: {key} is not {version}, the version of the workspace"));
        }
    }
    let manifest = read(&bench.workspace.join("deploy/kubernetes/base/daemon-set.yaml"))?;
    if !manifest.contains(&format!("image: rstscope:{version}\n")) {
        problems.push(format!("base/daemon-set.yaml: the image is not rstscope:{version}"));
    }
    Ok(problems)
}

/// A kustomization such as a user writes it: an overlay, and components.
fn combine(bench: &Bench, deploy: &Path, overlay: &str, components: &[&str]) -> Result<Rendering> {
    let names = || std::iter::once(overlay).chain(components.iter().copied());
    let name = names().collect::<Vec<_>>().join("+");
    let folder = deploy.join("combinations").join(&name);
    let mut text = format!("resources:\n  - ../../kubernetes/overlays/{overlay}\n");
    if !components.is_empty() {
        text.push_str("components:\n");
        text.extend(components.iter().map(|component| format!("  - ../../kubernetes/components/{component}\n")));
    }
    files::write_file(&folder.join("kustomization.yaml"), &text)?;
    let values = names().map(|name| bench.workspace.join("deploy/helm/values").join(format!("{name}.yaml")));
    rendering(bench, &name, &folder, &values.collect::<Vec<_>>())
}

/// Renders a kustomization, and the chart with values that mean the same.
pub fn rendering(bench: &Bench, name: &str, kustomization: &Path, values: &[PathBuf]) -> Result<Rendering> {
    let keep = |by: &str, text: &str| {
        files::write_file(&bench.scratch.join("rendered").join(format!("{name}.{by}.yaml")), text)
    };
    let plain = succeed(bench.programs.kubectl().arg("kustomize").arg(kustomization))?;
    keep("kustomize", &plain)?;
    let (chart, chart_of_oldest) = (helm(bench, NEWEST, values)?, helm(bench, OLDEST, values)?);
    keep("helm", &chart)?;
    Ok(Rendering {
        name: name.to_owned(),
        plain: object::read(&plain)?,
        chart: object::read(&chart)?,
        chart_of_oldest: object::read(&chart_of_oldest)?,
    })
}

fn helm(bench: &Bench, version: &str, values: &[PathBuf]) -> Result<String> {
    let mut command = bench.programs.helm();
    command.args(["template", RELEASE]).arg(chart(bench)).args(["--namespace", RELEASE, "--kube-version", version]);
    for file in values {
        command.arg("--values").arg(file);
    }
    succeed(&mut command)
}

fn chart(bench: &Bench) -> PathBuf {
    bench.workspace.join("deploy/helm/rstscope")
}

/// The names of the folders in a folder, in order.
fn folders(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let entries = entries.filter_map(|entry| entry.ok().filter(|entry| entry.path().is_dir()));
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Reads a file.
pub fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// What a program printed, if it did what it was asked.
pub fn succeed(command: &mut Command) -> Result<String> {
    let output = child::output(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", child::shown(command), output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed no text", child::shown(command)))
}
