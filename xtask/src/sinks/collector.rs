//! rotel, an OpenTelemetry collector that the Python package index has as a program. OpenTelemetry's own collector is in none
//! of the registries that a machine with Rust, pip and apt reaches.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    child,
    incidents::programs::python,
    setup::{already_there, done, working},
};

/// Pinned, because its flags are those of an alpha.
const PACKAGE: &str = "rotel==0.0.1a15";

/// Where the collector is found.
pub fn program(folder: &Path) -> PathBuf {
    folder.join("rotel")
}

/// Installs it where it is missing or another release.
pub fn ensure(folder: &Path) -> Result<()> {
    let what = format!("collector {PACKAGE}");
    let marker = folder.join("python/rstscope-packages");
    let is_complete = || {
        fs::read_to_string(&marker).is_ok_and(|package| package == PACKAGE)
            && child::succeeds(Command::new(program(folder)).arg("--version"))
    };
    if is_complete() {
        already_there(&what);
        return Ok(());
    }
    working(&what, "installing it with pip");
    let environment = folder.join("python");
    python::make(&environment, &[PACKAGE])?;
    let library = environment.join("lib");
    let entries = fs::read_dir(&library).with_context(|| format!("cannot read {}", library.display()))?;
    let found = entries
        .filter_map(|entry| Some(entry.ok()?.path().join("site-packages/rotel/rotel-agent")))
        .find(|file| file.is_file())
        .with_context(|| format!("{PACKAGE} has no program in it; pip may have chosen another kind of package"))?;
    // One of another release may be there.
    let _removed = fs::remove_file(program(folder));
    symlink(&found, program(folder)).context("cannot make a link to the collector")?;
    fs::write(&marker, PACKAGE).context("cannot write into the virtual environment")?;
    if !is_complete() {
        let program = program(folder);
        bail!("{} was installed but does not run: `{} --version` says why", PACKAGE, program.display());
    }
    done(&what);
    Ok(())
}
