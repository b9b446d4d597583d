//! `cargo xtask containers`: real containers of real runtimes, and whom rstscope names for a reset inside of them.
//!
//! Every case runs as root in a process, a network namespace and a mount namespace of its own. A server in the container
//! resets a connection; the line about it has to name the container, its runtime and, where there is one, its pod. The
//! programs come out of the distribution's packages and are unpacked below the cache, never installed.
//!
//! * [`cases`]: the table of what is played.
//! * [`outside`]: the root process around a case, which leaves no cgroup and no process behind.
//! * [`inside`]: the process of one case. [`layout`], [`image`], [`engines`], [`agents`], [`names`], [`server`]: what it
//!   is made of.

mod agents;
mod cases;
mod engines;
mod image;
mod inside;
mod layout;
mod names;
mod outside;
mod server;

use std::{path::Path, process::Stdio, time::Instant};

use anyhow::{Context, Result};

use crate::{
    cargo, child,
    cli::{ContainerPart, Containers},
    files,
    incidents::{
        again, network,
        programs::debian,
        verdict::{Verdict, summarise},
    },
    setup::{self, Scope},
};
use cases::{CASES, Case};

/// Unpacks what is missing, plays the cases and sums up.
pub fn perform(options: &Containers) -> Result<()> {
    let chosen = cases::chosen(&options.names)?;
    if options.list {
        for case in chosen {
            println!("{:24} {}", case.name, case.about);
        }
        return Ok(());
    }
    let tools = setup::perform(Scope::Everything)?;
    let programs = tools.cache.join("containers");
    files::make_folder(&programs)?;
    {
        let _lock = setup::lock(&tools)?;
        let mut apt = debian::Apt::new(&programs);
        for package in engines::PACKAGES {
            if chosen.iter().any(|case| case.engine.package() == package) {
                debian::ensure(package, &mut apt, &programs)?;
            }
        }
        apt.forget()?;
    }
    // The build of the kernel tests, which `cargo xtask test` has made: alone its dependencies would be compiled anew, with
    // fewer features.
    let rstscope = cargo::build_kernel_tests(false)?.rstscope;
    let kubelet = cargo::build_kubelet()?;
    let mut played = Vec::new();
    for case in chosen {
        if let Some(reason) = case.layout.is_impossible()? {
            eprintln!("     Skipping {}: {reason}", case.name);
            continue;
        }
        eprintln!("     Playing {}: {}", case.name, case.about);
        let start = Instant::now();
        let verdict = again::if_it_stood_still(case.name, || play(case, &rstscope, &programs, &kubelet))?;
        played.push((case.name, verdict, start.elapsed()));
    }
    summarise("containers", "case", "named", CASES.len(), &played)
}

fn play(case: &Case, rstscope: &Path, programs: &Path, kubelet: &Path) -> Result<Verdict> {
    let mut command = child::as_root("unshare")?;
    command.args(["--mount", "--"]).arg(std::env::current_exe().context("xtask has no path")?);
    command.args(["container-part", "outside", case.name]);
    command.arg("--outside").arg(network::own_namespace()?.to_string());
    command.arg("--rstscope").arg(rstscope).arg("--programs").arg(programs).arg("--kubelet").arg(kubelet);
    let output = command.stderr(Stdio::inherit()).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run `{}`", child::shown(&command)))?;
    Verdict::of_process(&output, "case")
}

/// Becomes one of the processes of a case.
pub fn play_part(part: ContainerPart) -> Result<()> {
    match part {
        ContainerPart::Outside(options) => outside::play(&options),
        ContainerPart::Inside(options) => inside::play(&options),
        ContainerPart::Server { port } => server::serve(port),
        ContainerPart::Pause => server::pause(),
    }
}
