//! QEMU, the machine's own or one that is unpacked beside it.
//!
//! Older ones than 10 emulate a double-word compare-and-swap wrongly, and race when the kernel patches its own code, as
//! it does for every eBPF program that is attached: guests crash at random.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::say;
use crate::{
    child, files,
    setup::debian::{Distribution, Mirrors, PrivateApt, unpack},
};

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
const OLDEST: u32 = 10;

/// A QEMU that will do.
#[derive(Debug)]
pub enum Qemu {
    /// The machine's own.
    Own(PathBuf),
    /// In a folder of ours, with the libraries the machine lacks.
    Unpacked(PathBuf),
}

impl Qemu {
    /// The machine's own QEMU, else the one in the cache, which is fetched if it is not there.
    pub fn find(cache: &Path) -> Result<Self> {
        if let Some(own) = child::find(PROGRAM).map(Self::Own)
            && own.version().is_some_and(|version| version >= OLDEST)
        {
            say("QEMU: already there");
            return Ok(own);
        }
        let folder = cache.join("qemu");
        let unpacked = Self::Unpacked(folder.clone());
        if folder.is_dir() {
            say("QEMU: already there");
        } else {
            fetch(&folder)?;
        }
        match unpacked.version() {
            Some(version) if version >= OLDEST => Ok(unpacked),
            _ => bail!("the QEMU in {} does not run: remove the folder to have it fetched again", folder.display()),
        }
    }

    /// A command that runs it and does not outlive us: nobody would end a guest that hangs.
    pub fn command(&self) -> Command {
        match self {
            Self::Own(program) => child::bound_to_us(program),
            Self::Unpacked(folder) => {
                let mut command = child::bound_to_us(folder.join("usr/bin").join(PROGRAM));
                let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|path| folder.join(path));
                let libraries = libraries.map(|path| path.display().to_string()).join(":");
                command.env("LD_LIBRARY_PATH", libraries);
                for data in ["usr/share/qemu", "usr/share/seabios"] {
                    command.arg("-L").arg(folder.join(data));
                }
                command
            }
        }
    }

    fn version(&self) -> Option<u32> {
        let output = child::output(self.command().arg("--version")).ok()?;
        major(&String::from_utf8_lossy(&output.stdout))
    }
}

/// `QEMU emulator version 10.0.2 (…)`.
fn major(version: &str) -> Option<u32> {
    version.split_once("version ")?.1.split('.').next()?.parse().ok()
}

/// Unpacks QEMU and what it needs beyond this machine's packages, from the distribution's release or its backports.
fn fetch(folder: &Path) -> Result<()> {
    let distribution = Distribution::of_this_machine()?;
    let mirrors = Mirrors::of(&distribution)?;
    let scratch = folder.with_extension("unfinished");
    files::remove_folder(&scratch)?;
    let apt = PrivateApt::new(&scratch)?;
    let (own, backports) = (distribution.codename.clone(), format!("{}-backports", distribution.codename));
    say(&format!("QEMU: looking for version {OLDEST} or later in {own} and {backports}"));
    let complaint =
        apt.update(&[(mirrors.having(&own)?, &own), (mirrors.having(&backports)?, &backports)], &distribution)?;
    let files = apt.download_with_dependencies(PACKAGE, &backports).with_context(|| {
        let complaint = complaint.map(|text| format!(" (apt says: {text})")).unwrap_or_default();
        format!("there is no {PROGRAM} {OLDEST} or later here, and it cannot be fetched{complaint}")
    })?;
    for file in files {
        unpack(&file, &scratch.join("unpacked"))?;
    }
    fs::rename(scratch.join("unpacked"), folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    files::remove_folder(&scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_counts() {
        assert_eq!(major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"), Some(10));
        assert_eq!(major("QEMU emulator version 7.2.19"), Some(7));
        assert_eq!(major("no QEMU"), None);
    }
}
