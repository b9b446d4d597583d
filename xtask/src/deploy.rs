//! `cargo xtask deploy`: what is in `deploy/`, rendered and held against what it is for.
//!
//! Every overlay and the chart's values that stand for it are rendered, alone and with each component. The objects have
//! to be valid for the oldest and the newest Kubernetes, the same from kustomize and from Helm, and their flags and
//! configurations such as rstscope itself takes. Alert rules are tested, and queries name only metrics and fields that
//! there are.
//!
//! * [`programs`]: the real programs that render and check.
//! * [`render`]: overlays, components and the chart; [`quick_starts`]: what the pages say to write; [`object`]: what
//!   comes out.
//! * [`schemas`], [`equality`], [`settings`], [`rights`]: what is asked of it.
//! * [`metrics`], [`lines`]: what there is to query; [`queries`]: the parsers; [`dashboards`], [`alerts`]: who queries;
//!   [`scrape`]: whether Prometheus finds it.
//! * [`links`]: where alerts and dashboards send people. [`proof`]: that the checks find mistakes.

mod alerts;
mod dashboards;
mod equality;
mod lines;
mod links;
mod metrics;
mod object;
mod programs;
mod proof;
mod queries;
mod quick_starts;
mod render;
mod rights;
mod schemas;
mod scrape;
mod settings;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{
    cargo, files,
    setup::{self, Scope},
};
use programs::Programs;

/// What the checks have at hand.
struct Bench {
    /// The workspace.
    workspace: PathBuf,
    /// For what is rendered; it stays there to be looked at.
    scratch: PathBuf,
    programs: Programs,
    /// The program that the manifests start.
    rstscope: PathBuf,
}

/// Installs what is missing, renders, checks and sums up.
pub fn perform() -> Result<()> {
    let tools = setup::perform(Scope::Everything)?;
    let programs = {
        let _lock = setup::lock(&tools)?;
        Programs::ensure(&tools.cache.join("deploy"))?
    };
    // The build of the kernel tests, which `cargo xtask test` makes anyway.
    let rstscope = cargo::build_kernel_tests(false)?.rstscope;
    let scratch = cargo::target_folder()?.join("deploy");
    files::remove_folder(&scratch)?;
    files::make_folder(&scratch)?;
    let bench = Bench { workspace: cargo::workspace()?, scratch, programs, rstscope };

    let mut renderings = render::all(&bench)?;
    renderings.extend(quick_starts::all(&bench)?);
    let objects: usize = renderings.iter().map(|rendering| rendering.plain.len() + rendering.chart.len()).sum();
    let mut problems = Vec::new();
    for (what, found) in [
        ("the checks themselves", proof::check(&bench)?),
        ("schemas of Kubernetes", schemas::check(&bench, &renderings)?),
        ("kustomize and Helm alike", equality::check(&bench, &renderings)?),
        ("flags and configurations", settings::check(&bench, &renderings)?),
        ("rights", rights::check(&bench, &renderings)?),
        ("chart", render::lint(&bench)?),
        ("alert rules", alerts::check(&bench)?),
        ("dashboards", dashboards::check(&bench)?),
        ("a real Prometheus, scraping", scrape::check(&bench)?),
    ] {
        let verdict = if found.is_empty() { "passed" } else { "FAILED" };
        eprintln!("deploy: {what}: {verdict}");
        problems.extend(found);
    }
    eprintln!("deploy: {} combinations, {objects} objects, in {}", renderings.len(), bench.scratch.display());
    for problem in &problems {
        eprintln!("  {problem}");
    }
    match problems.len() {
        0 => Ok(()),
        count => bail!("{count} things are wrong in deploy/, see above"),
    }
}
