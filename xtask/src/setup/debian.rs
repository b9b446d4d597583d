//! Packages of Debian or Ubuntu that are unpacked rather than installed; first of all the library source.
//!
//! The distribution's own release rarely has the package of just this Rust version, but another release on the same
//! mirror may. apt finds, checks and downloads it with package lists and sources of its own, so that nothing of this
//! is seen by the system's apt.
//!
//! * [`sources`]: the system's apt sources, which name the mirror.
//! * [`release`]: which distribution this is, and which releases its mirror may have.
//! * [`apt`]: apt with a state of its own.

mod apt;
mod release;
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::working;
use crate::child;
pub use apt::PrivateApt;
pub use release::Distribution;
pub use sources::{Mirrors, Source, archives};

/// Downloads and unpacks the library source of a Rust version into the scratch folder, and returns where it is there.
pub fn fetch_library_source(version: &str, scratch: &Path) -> Result<PathBuf> {
    let otherwise = format!("put the folder `library` of the Rust {version} source below lib/rustlib/src/rust of Rust");
    if child::find("apt-get").is_none() || child::find("dpkg-deb").is_none() {
        bail!("without apt the library source has to come from you: {otherwise}");
    }
    let distribution = Distribution::of_this_machine()?;
    let mirrors = Mirrors::of(&distribution)?;
    let apt = PrivateApt::new(scratch)?;
    let mut complaint = None;
    for suite in distribution.suites() {
        working("library source", &format!("looking for Rust {version} in {suite}"));
        complaint = apt.update(&[(mirrors.having(&suite)?, &suite)], &distribution)?.or(complaint);
        if let Some((package, full_version)) = apt.find(&distribution.packages(version), version)? {
            let archive = apt.download(&format!("{package}={full_version}"))?;
            return library_in(&archive, &scratch.join("package"));
        }
    }
    let complaint = complaint.map(|text| format!(" (apt says: {text})")).unwrap_or_default();
    bail!("no release on this machine's mirror has the source of Rust {version}{complaint}: {otherwise}")
}

/// Unpacks a package into a folder, beside what is there.
pub fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    child::run_on_stderr(Command::new("dpkg-deb").arg("-x").arg(archive).arg(folder), "is the disk full?")
}

fn library_in(archive: &Path, folder: &Path) -> Result<PathBuf> {
    unpack(archive, folder)?;
    let sources = folder.join("usr/src");
    let entries = fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path().join("library")))
        .find(|library| library.join("core/src/lib.rs").is_file())
        .with_context(|| format!("the package {} has no library source in it", archive.display()))
}
