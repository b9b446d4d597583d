//! apt with sources, lists and a cache of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{release::Distribution, sources::Source};
use crate::child;

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
            fs::create_dir_all(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        }
        Ok(Self { folder })
    }

    /// Fetches one suite's package list, in place of the one fetched before. Returns what apt complained about, which
    /// may be the mirror not having the suite, or nothing of importance: whether the package is there decides.
    pub fn update(&self, mirror: &Source, suite: &str, distribution: &Distribution) -> Result<Option<String>> {
        let sources = self.folder.join("sources.list");
        let keyring = mirror.signed_by.clone().or_else(|| distribution.keyring());
        let text: String = mirror
            .uris
            .iter()
            .map(|uri| source_line(uri, suite, distribution.components(), keyring.as_deref()))
            .collect();
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

    /// Downloads a package, with apt's progress visible, and returns the file.
    pub fn download(&self, package: &str, version: &str) -> Result<PathBuf> {
        let mut command = self.command("apt-get");
        command.arg("download").arg(format!("{package}={version}")).current_dir(&self.folder);
        child::run_on_stderr(&mut command, "run `cargo xtask setup` again when this machine's mirror can be reached")?;
        let entries = fs::read_dir(&self.folder).with_context(|| format!("cannot read {}", self.folder.display()))?;
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|file| file.extension().is_some_and(|extension| extension == "deb"))
            .context("apt-get download left no package behind")
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

fn source_line(uri: &str, suite: &str, components: &str, keyring: Option<&str>) -> String {
    let options = keyring.map(|file| format!("[signed-by={file}] ")).unwrap_or_default();
    format!("deb {options}{uri} {suite} {components}\n")
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
