//! The library source out of Debian's or Ubuntu's package of it.
//!
//! The distribution's own release rarely has the package of just this Rust version, but another release on the same
//! mirror may. apt finds, checks and downloads it with package lists and sources of its own, so that nothing of this
//! is seen by the system's apt, and the package is unpacked rather than installed.
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
use apt::PrivateApt;
use release::Distribution;

/// Downloads and unpacks the library source of a Rust version into the scratch folder, and returns where it is there.
pub fn fetch_library_source(version: &str, scratch: &Path) -> Result<PathBuf> {
    let otherwise = format!("put the folder `library` of the Rust {version} source below lib/rustlib/src/rust of Rust");
    if child::find("apt-get").is_none() || child::find("dpkg-deb").is_none() {
        bail!("without apt the library source has to come from you: {otherwise}");
    }
    let distribution = Distribution::of_this_machine()?;
    let mirror = sources::mirror_of(&distribution)?;
    let apt = PrivateApt::new(scratch)?;
    let mut complaint = None;
    for suite in distribution.suites() {
        working("library source", &format!("looking for Rust {version} in {suite}"));
        complaint = apt.update(&mirror, &suite, &distribution)?.or(complaint);
        if let Some((package, full_version)) = apt.find(&distribution.packages(version), version)? {
            let archive = apt.download(&package, &full_version)?;
            return unpack(&archive, scratch);
        }
    }
    let complaint = complaint.map(|text| format!(" (apt says: {text})")).unwrap_or_default();
    bail!("no release on this machine's mirror has the source of Rust {version}{complaint}: {otherwise}")
}

fn unpack(archive: &Path, scratch: &Path) -> Result<PathBuf> {
    let folder = scratch.join("package");
    child::run_on_stderr(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&folder), "is the disk full?")?;
    let sources = folder.join("usr/src");
    let entries = fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path().join("library")))
        .find(|library| library.join("core/src/lib.rs").is_file())
        .with_context(|| format!("the package {} has no library source in it", archive.display()))
}
