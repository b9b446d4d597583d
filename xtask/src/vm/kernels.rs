//! The kernels of the matrix: which there are, and how each comes out of Debian's packages without being installed.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use clap::{ValueEnum, builder::PossibleValue};

use super::say;
use crate::{
    files,
    setup::debian::{Distribution, Mirrors, PrivateApt, Source, archives, unpack},
};

/// Debian's kernel for virtual machines; it leads to the newest one of a release.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// For how long a kernel counts as the newest one.
const FRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A kernel of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Its series.
    pub name: &'static str,
    /// Where it is looked for, in this order.
    suites: &'static [&'static str],
}

/// All of them, the oldest one first.
pub const MATRIX: [Kernel; 4] = [
    Kernel { name: "5.10", suites: &["bullseye", "bullseye-security"] },
    Kernel { name: "6.1", suites: &["bookworm-security", "bookworm"] },
    Kernel { name: "6.12", suites: &["trixie", "trixie-security"] },
    Kernel { name: "7.2", suites: &["sid"] },
];

impl ValueEnum for Kernel {
    fn value_variants<'a>() -> &'a [Self] {
        &MATRIX
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name))
    }
}

/// A kernel on this machine.
#[derive(Debug)]
pub struct Unpacked {
    /// Which one it is.
    pub kernel: Kernel,
    /// Its full version, as `uname -r` says it.
    pub release: String,
    /// The compressed kernel.
    pub image: PathBuf,
    /// The folder of its modules.
    pub modules: PathBuf,
}

/// Finds the newest package of a kernel's series and unpacks it, unless it is there already. Without the mirror the one
/// that was used last will do.
pub fn fetch(kernel: Kernel, cache: &Path) -> Result<Unpacked> {
    // Holds the name of the folder that was used last.
    let last = cache.join(format!("kernel-{}", kernel.name));
    let known = fs::read_to_string(&last).ok().map(|folder| cache.join(folder)).filter(|folder| folder.is_dir());
    if let Some(folder) = &known
        && age(&last) < FRESH
    {
        say(&format!("kernel {}: already there", kernel.name));
        return find_in(kernel, folder);
    }
    match (newest(kernel, cache), known) {
        (Ok(folder), known) => {
            let name = folder.file_name().and_then(|name| name.to_str()).context("packages' names are ASCII")?;
            fs::write(&last, name).with_context(|| format!("cannot write {}", last.display()))?;
            if let Some(old) = known.filter(|old| *old != folder) {
                files::remove_folder(&old)?;
            }
            find_in(kernel, &folder)
        }
        (Err(error), Some(folder)) => {
            say(&format!("kernel {}: using the one that is there ({error:#})", kernel.name));
            find_in(kernel, &folder)
        }
        (Err(error), None) => Err(error.context(format!("cannot fetch the kernel {}", kernel.name))),
    }
}

fn age(file: &Path) -> Duration {
    let written = fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
    written.and_then(|written| SystemTime::now().duration_since(written).ok()).unwrap_or(Duration::MAX)
}

/// The folder with the newest kernel's packages, whose name is that of the first package's file.
fn newest(kernel: Kernel, cache: &Path) -> Result<PathBuf> {
    let distribution = Distribution::of_this_machine()?;
    let mirrors = Mirrors::of(&distribution)?;
    let scratch = cache.join(format!("kernel-{}.unfinished", kernel.name));
    files::remove_folder(&scratch)?;
    let apt = PrivateApt::new(&scratch)?;
    let mut complaint = None;
    for (mirror, suite) in &places(kernel, &mirrors) {
        say(&format!("kernel {}: looking for it in {suite} at {}", kernel.name, mirror.uris.join(" and ")));
        complaint = complaint.or(apt.update(&[(mirror, suite)], &distribution)?);
        let Some(packages) = packages(&apt)? else { continue };
        let mut name = None;
        for package in &packages {
            let file = apt.download(package)?;
            let stem = file.file_stem().and_then(|stem| stem.to_str()).context("packages' names are ASCII")?;
            let name = name.get_or_insert_with(|| stem.to_owned());
            if cache.join(&*name).is_dir() {
                break;
            }
            unpack(&file, &scratch.join("unpacked"))?;
        }
        let folder = cache.join(name.context("there is a package")?);
        if !folder.is_dir() {
            // In one step, so that it is whole or not there.
            fs::rename(scratch.join("unpacked"), &folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        files::remove_folder(&scratch)?;
        return Ok(folder);
    }
    let complaint = complaint.map(|text| format!(" ({text})")).unwrap_or_default();
    bail!(
        "no {PACKAGE} to be had from {}{complaint}: run this again when this machine's mirror can be reached, or name \
         one that has it in /etc/apt",
        kernel.suites.join(" or ")
    )
}

/// Where to look: the mirror has some of the suites, and an archive may have the first one when the mirror has lost it.
fn places(kernel: Kernel, mirrors: &Mirrors) -> Vec<(Source, &'static str)> {
    let having = |suite: &&'static str| Some((mirrors.having(suite).ok()?.clone(), *suite));
    let mut places: Vec<_> = kernel.suites.iter().filter_map(having).collect();
    let archived = places.first().map(|(mirror, suite)| (archives(mirror), *suite));
    places.extend(archived.filter(|(archive, _)| !archive.uris.is_empty()));
    places
}

/// The packages with the kernel and its modules. Since 7.x they are two, and the image depends on them.
fn packages(apt: &PrivateApt) -> Result<Option<Vec<String>>> {
    let Some(image) = apt.depends(PACKAGE)?.into_iter().find(|name| name.starts_with("linux-image-")) else {
        return Ok(None);
    };
    let parts: Vec<String> = apt
        .depends(&image)?
        .into_iter()
        .filter(|name| ["linux-binary-", "linux-modules-"].iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    Ok(Some(if parts.is_empty() { vec![image] } else { parts }))
}

/// The places differ between releases.
fn find_in(kernel: Kernel, folder: &Path) -> Result<Unpacked> {
    let modules =
        ["lib/modules", "usr/lib/modules"].map(|path| folder.join(path)).into_iter().find(|path| path.is_dir());
    let modules = modules.and_then(|path| fs::read_dir(path).ok()?.next()?.ok()).map(|entry| entry.path());
    let modules = modules.with_context(|| format!("no modules in {}", folder.display()))?;
    let release = modules.file_name().and_then(|name| name.to_str()).context("versions are ASCII")?.to_owned();
    let image = [folder.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = image.into_iter().find(|file| file.is_file());
    let image = image.with_context(|| format!("no kernel in {}", folder.display()))?;
    Ok(Unpacked { kernel, release, image, modules })
}
