//! apt with sources, lists and a cache of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{release::Distribution, sources::Source};
use crate::{child, files};

const TRY_AGAIN: &str = "run this again when this machine's mirror can be reached";

/// An apt that neither reads nor changes the system's package lists. It needs no root.
#[derive(Debug)]
pub struct PrivateApt {
    folder: PathBuf,
}

impl PrivateApt {
    /// Makes the folders it needs.
    pub fn new(scratch: &Path) -> Result<Self> {
        let folder = scratch.join("apt");
        for name in ["lists/partial", "cache/archives/partial", "sources.list.d"] {
            let path = folder.join(name);
            files::make_folder(&path)?;
        }
        Ok(Self { folder })
    }

    /// Fetches these suites' package lists, in place of those fetched before. Returns what apt complained about, which
    /// may be the mirror not having the suite, or nothing of importance: whether the package is there decides.
    pub fn update(&self, suites: &[(&Source, &str)], distribution: &Distribution) -> Result<Option<String>> {
        let sources = self.folder.join("sources.list");
        let mut text = String::new();
        for (mirror, suite) in suites {
            let keyring = mirror.signed_by.clone().or_else(|| distribution.keyring());
            for uri in &mirror.uris {
                text += &source_line(uri, suite, distribution.components(), keyring.as_deref());
            }
        }
        fs::write(&sources, text).with_context(|| format!("cannot write {}", sources.display()))?;
        let output = child::output(self.command("apt-get").args(["--quiet=2", "update"]))?;
        Ok(first_complaint(&String::from_utf8_lossy(&output.stderr)).map(str::to_owned))
    }

    /// The first of the packages that has the Rust version, with its full version.
    pub fn find(&self, packages: &[String], rust_version: &str) -> Result<Option<(String, String)>> {
        for package in packages {
            let output = child::output(self.command("apt-cache").args(["madison", package]))?;
            if let Some(version) = choose(&String::from_utf8_lossy(&output.stdout), rust_version) {
                return Ok(Some((package.clone(), version)));
            }
        }
        Ok(None)
    }

    /// What a package depends on; nothing if there is no such package.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let output = child::output(self.command("apt-cache").args(["depends", package]))?;
        Ok(depends(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Downloads a package, or `PACKAGE=VERSION`, with apt's progress visible, and returns the file.
    pub fn download(&self, package: &str) -> Result<PathBuf> {
        // A folder of its own, in which no other package can be.
        let folder = self.folder.join("download").join(package);
        files::make_folder(&folder)?;
        let mut command = self.command("apt-get");
        command.arg("download").arg(package).current_dir(&folder);
        fetch(&mut command, package)?;
        packages_in(&folder)?.pop().context("apt-get download left no package behind")
    }

    /// Downloads a package of a suite and those it depends on, as far as this machine does not have them installed.
    pub fn download_with_dependencies(&self, package: &str, suite: &str) -> Result<Vec<PathBuf>> {
        let mut command = self.command("apt-get");
        // Nothing of the system's is going to change, so its lock, which is root's, is not needed.
        command.args(["-o", "Debug::NoLocking=true", "install", "--download-only", "--yes", "--quiet=2"]);
        command.args(["--no-install-recommends", "--target-release", suite, package]);
        fetch(&mut command, package)?;
        packages_in(&self.folder.join("cache/archives"))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let own = |name: &str| self.folder.join(name).display().to_string();
        for (option, value) in [
            ("Dir::Etc::SourceList", own("sources.list")),
            ("Dir::Etc::SourceParts", own("sources.list.d")),
            ("Dir::State::Lists", own("lists")),
            ("Dir::Cache", own("cache")),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::Retries", "4".to_owned()),
            // As root apt would turn into a user who cannot write to a folder in root's home.
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        // What apt says is looked at.
        command.env("LC_ALL", "C");
        command
    }
}

/// Runs a command that downloads. Its options are long and nobody's business.
fn fetch(command: &mut Command, package: &str) -> Result<()> {
    let status = command.stdout(io::stderr()).status().context("cannot run apt-get")?;
    if !status.success() {
        bail!("apt-get cannot fetch {package} ({status}), see above: {TRY_AGAIN}");
    }
    Ok(())
}

fn source_line(uri: &str, suite: &str, components: &str, keyring: Option<&str>) -> String {
    let options = keyring.map(|file| format!("[signed-by={file}] ")).unwrap_or_default();
    format!("deb {options}{uri} {suite} {components}\n")
}

fn packages_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(files.filter(|file| file.extension().is_some_and(|extension| extension == "deb")).collect())
}

/// The names in what `apt-cache depends` prints, without recommendations and the like.
fn depends(output: &str) -> Vec<String> {
    let names = output.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.map(|name| name.trim().to_owned()).collect()
}

/// apt marks errors with `E:` and warnings with `W:`.
fn first_complaint(stderr: &str) -> Option<&str> {
    stderr.lines().find_map(|line| line.strip_prefix("E: ").or_else(|| line.strip_prefix("W: ")))
}

/// Picks the upstream version out of what `apt-cache madison` prints: `PACKAGE | VERSION | SOURCE` per line.
fn choose(madison: &str, rust_version: &str) -> Option<String> {
    madison
        .lines()
        .filter_map(|line| line.split('|').nth(1).map(str::trim))
        .find(|version| version.strip_prefix(rust_version).is_some_and(|rest| rest.starts_with(['+', '-'])))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADISON: &str = "  rust-src | 1.96.1+dfsg1-2~bpo13+1 | mirror trixie-backports/main amd64 Packages\n  \
        rust-src | 1.95.0+dfsg1-2~bpo13+1 | mirror trixie-backports/main amd64 Packages\n";

    #[test]
    fn only_exactly_the_compilers_version_will_do() {
        assert_eq!(choose(MADISON, "1.95.0").as_deref(), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(choose(MADISON, "1.96.0"), None);
        assert_eq!(choose(MADISON, "1.9"), None);
        assert_eq!(choose(" rust-src | 1.95.0~beta.1+dfsg1-1 | mirror\n", "1.95.0"), None);
        assert_eq!(choose("", "1.95.0"), None);
    }

    #[test]
    fn only_depends_are_depended_on() {
        let output = "linux-image-cloud-amd64\n  Depends: linux-image-1\n |Depends: initramfs-tools\n  Breaks: x\n";
        assert_eq!(depends(output), ["linux-image-1"]);
        assert_eq!(depends(""), Vec::<String>::new());
    }

    #[test]
    fn the_source_names_its_key() {
        assert_eq!(source_line("u", "sid", "main", Some("/k.gpg")), "deb [signed-by=/k.gpg] u sid main\n");
        assert_eq!(source_line("u", "sid", "main", None), "deb u sid main\n");
    }

    #[test]
    fn apts_first_complaint_counts() {
        let stderr = "W: Failed to fetch\nE: Some index files failed\n";
        assert_eq!(first_complaint(stderr), Some("Failed to fetch"));
        assert_eq!(first_complaint("N: a note\n"), None);
    }
}
