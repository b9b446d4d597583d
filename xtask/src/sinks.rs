//! `cargo xtask sinks`: a minute of real events on the way to each network sink, while the agent is killed, its disk fills up and
//! the server misbehaves; and what has arrived in the end. The trials are `agent/tests/chaos`.
//!
//! [`collector`]: the OpenTelemetry collector that takes part; nginx, rsyslog and logrotate are unpacked as for the incidents.

mod collector;

use std::{ffi::OsString, path::Path};

use anyhow::{Context, Result, bail};

use crate::{
    cargo, child,
    cli::Sinks,
    ebpf::Tools,
    files,
    incidents::programs::debian::{self, Apt, LOGROTATE, NGINX, Package, RSYSLOG},
    setup::{self, Scope},
};

/// How long each trial makes events; all of them run at the same time.
const MINUTES: u32 = 1;
const MINUTES_IN_FULL: u32 = 5;

/// Fetches what is missing, builds the trials and runs them as root.
pub fn perform(options: &Sinks) -> Result<()> {
    let tools = setup::perform(Scope::Everything)?;
    let programs = fetch(&tools)?;
    let built = cargo::build_chaos(options.release)?;
    // Mounts of a trial that is killed go with the namespace. By way of `env`, because sudo forgets variables.
    let mut command = child::as_root(child::find("unshare").context("there is no `unshare`: install util-linux")?)?;
    command.args(["--mount", "--", "env"]).args(programs);
    let minutes = if options.full { MINUTES_IN_FULL } else { MINUTES };
    command.arg(setting("RSTSCOPE_BIN", &built.rstscope)).arg(format!("RSTSCOPE_CHAOS_MINUTES={minutes}"));
    command.arg(&built.tests).args(&options.filter);
    let status = command.status().with_context(|| format!("cannot run `{}`", child::shown(&command)))?;
    if !status.success() {
        bail!("the chaos on the way to the sinks failed ({status}), see above");
    }
    Ok(())
}

/// The real programs, as variables.
fn fetch(tools: &Tools) -> Result<Vec<OsString>> {
    // nginx is one of the incidents' programs.
    let (incidents, folder) = (tools.cache.join("incidents"), tools.cache.join("sinks"));
    for folder in [&incidents, &folder] {
        files::make_folder(folder)?;
    }
    let _lock = setup::lock(tools)?;
    let mut apt = Apt::new(&folder);
    let mut variables = Vec::new();
    for (package, place, name) in [
        (&NGINX, &incidents, "RSTSCOPE_NGINX"),
        (&RSYSLOG, &folder, "RSTSCOPE_RSYSLOGD"),
        (&LOGROTATE, &folder, "RSTSCOPE_LOGROTATE"),
    ] {
        debian::ensure(package, &mut apt, place)?;
        variables.extend(of_package(package, place, name)?);
    }
    apt.forget()?;
    collector::ensure(&folder)?;
    variables.push(setting("RSTSCOPE_ROTEL", &collector::program(&folder)));
    Ok(variables)
}

/// Where a package's program is, its libraries, and rsyslog's modules.
fn of_package(package: &Package, folder: &Path, name: &str) -> Result<Vec<OsString>> {
    let root = debian::root(package, folder);
    let libraries = debian::library_path(&root)?;
    let mut variables = vec![setting(name, &root.join(package.file)), format!("{name}_LIBRARIES={libraries}").into()];
    let modules = libraries.split(':').map(|folder| Path::new(folder).join("rsyslog")).find(|folder| folder.is_dir());
    variables.extend(modules.map(|modules| setting(&format!("{name}_MODULES"), &modules)));
    Ok(variables)
}

fn setting(name: &str, value: &Path) -> OsString {
    let mut setting = OsString::from(format!("{name}="));
    setting.push(value);
    setting
}
