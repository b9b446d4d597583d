//! nginx, HAProxy, Tomcat, rsyslog and logrotate out of Debian's or Ubuntu's packages, unpacked below the cache.
//!
//! Installed by apt they would start as services. So apt only says which packages of the dependencies the machine
//! lacks and downloads those, with package lists of its own; this needs no root and the system's apt sees nothing of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    child, files,
    setup::{already_there, done, working},
};

/// A package to unpack.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// The file in it that is run.
    pub file: &'static str,
    /// What proves that the file runs with the libraries there are; `None` if being there is enough.
    pub proof: Option<&'static str>,
}

/// nginx with the fewest modules.
pub const NGINX: Package = Package { name: "nginx-light", file: "usr/sbin/nginx", proof: Some("-v") };
/// HAProxy.
pub const HAPROXY: Package = Package { name: "haproxy", file: "usr/sbin/haproxy", proof: Some("-v") };
/// Tomcat, which starts from this archive.
pub const TOMCAT: Package = Package { name: "tomcat10", file: "usr/share/tomcat10/bin/bootstrap.jar", proof: None };

/// rsyslog, whose modules are in a folder beside its libraries.
pub const RSYSLOG: Package = Package { name: "rsyslog", file: "usr/sbin/rsyslogd", proof: Some("-v") };
/// logrotate.
pub const LOGROTATE: Package = Package { name: "logrotate", file: "usr/sbin/logrotate", proof: Some("--version") };

/// The folder in which the package's files are: the system's root where it is installed, else one below the cache.
pub fn root(package: &Package, folder: &Path) -> PathBuf {
    let system = Path::new("/");
    if system.join(package.file).is_file() { system.to_path_buf() } else { folder.join(package.name) }
}

/// The folders of the libraries that were unpacked, as LD_LIBRARY_PATH takes them.
pub fn library_path(root: &Path) -> Result<String> {
    if root == Path::new("/") {
        return Ok(String::new());
    }
    let mut folders = Vec::new();
    for parent in ["usr/lib", "lib"].map(|name| root.join(name)).iter().filter(|folder| folder.is_dir()) {
        let entries = fs::read_dir(parent).with_context(|| format!("cannot read {}", parent.display()))?;
        folders.extend(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_of_an_architecture(path)));
    }
    folders.sort();
    Ok(folders.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":"))
}

/// `x86_64-linux-gnu` and its like.
fn is_of_an_architecture(folder: &Path) -> bool {
    folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains("-linux-gnu"))
}

/// Unpacks a package where it is missing.
pub fn ensure(package: &Package, apt: &mut Apt, folder: &Path) -> Result<()> {
    let what = format!("{}, unpacked", package.name);
    if runs(package, &root(package, folder))? {
        already_there(&what);
        return Ok(());
    }
    working(&what, "downloading and unpacking it");
    let unfinished = folder.join(format!("{}.unfinished", package.name));
    files::remove_folder(&unfinished)?;
    let archives = apt.download(package.name)?;
    for archive in &archives {
        let mut command = Command::new("dpkg-deb");
        child::run_on_stderr(command.arg("-x").arg(archive).arg(&unfinished), "is the disk full?")?;
    }
    let place = folder.join(package.name);
    files::remove_folder(&place)?;
    fs::rename(&unfinished, &place).with_context(|| format!("cannot make {}", place.display()))?;
    if !runs(package, &place)? {
        bail!("{} was unpacked but does not run: `apt-get install {}` installs it", place.display(), package.name);
    }
    done(&what);
    Ok(())
}

fn runs(package: &Package, root: &Path) -> Result<bool> {
    let file = root.join(package.file);
    if !file.is_file() {
        return Ok(false);
    }
    let Some(proof) = package.proof else { return Ok(true) };
    let mut command = Command::new(file);
    Ok(child::succeeds(command.arg(proof).env("LD_LIBRARY_PATH", library_path(root)?)))
}

/// apt with the system's sources, and package lists of its own that are fetched once, if at all.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
    lists_are_fresh: bool,
}

impl Apt {
    /// Nothing is fetched yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.join("apt"), lists_are_fresh: false }
    }

    /// Downloads a package and what it depends on and the machine lacks.
    fn download(&mut self, package: &str) -> Result<Vec<PathBuf>> {
        let otherwise = format!("install {package} with this system's package manager");
        if child::find("apt-get").is_none() || child::find("dpkg-deb").is_none() {
            bail!("without apt {package} has to come from you: {otherwise}");
        }
        self.refresh()?;
        let mut simulation = self.command();
        simulation.args(["--simulate", "--no-install-recommends", "install", package]);
        let output = child::output(&mut simulation)?;
        let names = to_install(&String::from_utf8_lossy(&output.stdout));
        if !output.status.success() || names.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("apt cannot install {package} here ({}): {otherwise}", said.trim().replace('\n', "; "));
        }
        let archives = self.folder.join("archives");
        files::remove_folder(&archives)?;
        files::make_folder(&archives)?;
        let mut download = self.command();
        download.arg("--quiet").arg("download").args(&names).current_dir(&archives);
        child::run_on_stderr(&mut download, "run this again when this machine's mirror answers")?;
        let entries = fs::read_dir(&archives).with_context(|| format!("cannot read {}", archives.display()))?;
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "deb"));
        Ok(files)
    }

    /// The system's lists may be missing, as in a container image, or older than the mirror.
    fn refresh(&mut self) -> Result<()> {
        if self.lists_are_fresh {
            return Ok(());
        }
        for name in ["lists/partial", "cache/archives/partial"] {
            files::make_folder(&self.folder.join(name))?;
        }
        let mut update = self.command();
        child::run_on_stderr(update.args(["--quiet", "update"]), "see above; can apt reach its mirror?")?;
        self.lists_are_fresh = true;
        Ok(())
    }

    /// Removes the package lists and archives: by the next time they are old.
    pub fn forget(self) -> Result<()> {
        files::remove_folder(&self.folder)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        let own = |name: &str| self.folder.join(name).display().to_string();
        for (option, value) in [
            ("Dir::State::Lists", own("lists")),
            ("Dir::Cache", own("cache")),
            // As root apt would turn into a user who cannot write to a folder in root's home.
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        // What it says is read.
        command.env("LC_ALL", "C");
        command
    }
}

/// The packages a simulated installation names: `Inst PACKAGE (VERSION …)` per line.
fn to_install(simulation: &str) -> Vec<String> {
    let names = simulation.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulation_names_its_packages() {
        let text = "Reading package lists...\nInst liblua5.3-0 (5.3.6-2 Debian:12 [amd64])\n\
            Inst haproxy (2.6.12-1 Debian:12 [amd64])\nConf haproxy (2.6.12-1 Debian:12 [amd64])\n";
        assert_eq!(to_install(text), ["liblua5.3-0", "haproxy"]);
        assert!(to_install("E: Unable to locate package\n").is_empty());
    }

    #[test]
    fn library_folders_are_named_after_architectures() {
        assert!(is_of_an_architecture(Path::new("/r/usr/lib/x86_64-linux-gnu")));
        assert!(!is_of_an_architecture(Path::new("/r/usr/lib/nginx")));
    }
}
