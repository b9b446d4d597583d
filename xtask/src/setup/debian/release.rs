//! Which distribution this is, and which of its releases may have the package.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

/// The two families whose mirrors are known to have Rust's library source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Debian,
    Ubuntu,
}

/// This machine's distribution, as far as its package mirror is concerned.
#[derive(Debug, PartialEq, Eq)]
pub struct Distribution {
    family: Family,
    /// The release's code name; for a derivative, that of the release it is based on.
    pub codename: String,
}

impl Distribution {
    /// Reads `/etc/os-release`.
    pub fn of_this_machine() -> Result<Self> {
        let path = "/etc/os-release";
        Self::parse(&fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?)
    }

    /// Reads the text of an os-release file.
    pub fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
            Some(value.trim_matches(['"', '\'']).to_owned())
        };
        let id = field("ID").unwrap_or_default();
        let like = field("ID_LIKE").unwrap_or_default();
        let is = |name: &str| id == name || like.split_whitespace().any(|word| word == name);
        // Ubuntu says it is like Debian, hence this order.
        let (family, based_on) = if is("ubuntu") {
            (Family::Ubuntu, "UBUNTU_CODENAME")
        } else if is("debian") {
            (Family::Debian, "DEBIAN_CODENAME")
        } else {
            bail!("only Debian's and Ubuntu's packages of Rust's library source are known, and this is {id:?}");
        };
        let codename = field(based_on).or_else(|| field("VERSION_CODENAME"));
        // Debian's testing and unstable have had none at times.
        Ok(Self { family, codename: codename.unwrap_or_else(|| "sid".to_owned()) })
    }

    /// The distribution's name as it is in the address of its mirrors.
    pub fn name(&self) -> &'static str {
        match self.family {
            Family::Debian => "debian",
            Family::Ubuntu => "ubuntu",
        }
    }

    /// The releases to look through. Newer Rust versions come to the newer ones, so the machine's own is the last.
    pub fn suites(&self) -> Vec<String> {
        let own = &self.codename;
        let mut suites: Vec<String> = match self.family {
            Family::Debian => ["trixie-backports", "trixie", "forky-backports", "forky", "sid", "experimental"]
                .map(str::to_owned)
                .to_vec(),
            Family::Ubuntu => vec![format!("{own}-updates"), "devel".to_owned(), "devel-proposed".to_owned()],
        };
        for suite in [format!("{own}-backports"), own.clone()] {
            if !suites.contains(&suite) {
                suites.push(suite);
            }
        }
        suites
    }

    /// The components the package may be in.
    pub fn components(&self) -> &'static str {
        match self.family {
            Family::Debian => "main",
            Family::Ubuntu => "main universe",
        }
    }

    /// The package's names: Ubuntu keeps several Rust versions side by side, named after them.
    pub fn packages(&self, version: &str) -> Vec<String> {
        let mut names = vec!["rust-src".to_owned()];
        if self.family == Family::Ubuntu
            && let Some((minor, _)) = version.rsplit_once('.')
        {
            names.push(format!("rust-{minor}-src"));
        }
        names
    }

    /// The file with the archive's keys, for a mirror whose entry in the apt sources names none.
    pub fn keyring(&self) -> Option<String> {
        ["gpg", "pgp"]
            .map(|extension| format!("/usr/share/keyrings/{}-archive-keyring.{extension}", self.name()))
            .into_iter()
            .find(|file| Path::new(file).is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_looks_in_newer_releases_first() {
        let debian = Distribution::parse("PRETTY_NAME=\"Debian\"\nVERSION_CODENAME=bookworm\nID=debian\n").unwrap();
        let suites = debian.suites();
        assert_eq!(suites.first().map(String::as_str), Some("trixie-backports"));
        assert_eq!(suites.last().map(String::as_str), Some("bookworm"));
        assert_eq!(debian.packages("1.95.0"), ["rust-src"]);
    }

    #[test]
    fn no_release_is_asked_twice() {
        let mut suites = Distribution::parse("ID=debian\nVERSION_CODENAME=trixie\n").unwrap().suites();
        let count = suites.len();
        suites.sort();
        suites.dedup();
        assert_eq!(suites.len(), count);
    }

    #[test]
    fn ubuntu_names_packages_after_versions() {
        let ubuntu = Distribution::parse("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n").unwrap();
        assert_eq!(ubuntu.packages("1.95.0"), ["rust-src", "rust-1.95-src"]);
        assert_eq!(ubuntu.suites()[0], "noble-updates");
        assert_eq!(ubuntu.components(), "main universe");
    }

    #[test]
    fn a_derivative_is_what_it_is_based_on() {
        let text = "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\n";
        let mint = Distribution::parse(text).unwrap();
        assert_eq!((mint.name(), mint.codename.as_str()), ("ubuntu", "noble"));
    }

    #[test]
    fn others_are_refused_by_name() {
        assert!(Distribution::parse("ID=fedora\n").unwrap_err().to_string().contains("fedora"));
    }
}
