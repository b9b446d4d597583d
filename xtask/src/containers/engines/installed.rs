//! The programs that were unpacked, and the environment in which they find each other.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    child,
    incidents::{
        process::bound_to_us,
        programs::debian::{self, Package},
    },
};

/// The programs of a package and of those it depends on.
pub struct Installed {
    root: PathBuf,
    /// The folders of their libraries, as LD_LIBRARY_PATH takes them.
    pub libraries: String,
}

impl Installed {
    /// Of this package.
    pub fn of(package: &Package, programs: &Path) -> Result<Self> {
        let root = debian::root(package, programs);
        Ok(Self { libraries: debian::library_path(&root)?, root })
    }

    /// In the unpacked folder, or what the machine had already and was therefore not unpacked.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let places = self.folders().into_iter().map(|folder| folder.join(name));
        let own = places.into_iter().find(|file| file.is_file());
        own.or_else(|| child::find(name)).with_context(|| format!("neither unpacked nor installed: `{name}`"))
    }

    fn folders(&self) -> Vec<PathBuf> {
        ["usr/bin", "usr/sbin", "bin", "sbin"].map(|name| self.root.join(name)).to_vec()
    }

    /// A command that ends with us and finds what it starts itself.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = bound_to_us(program);
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = self.folders().into_iter().chain(env::split_paths(&path));
        // containerd looks for its shim there, and the shim for runc.
        command.env("PATH", env::join_paths(folders).unwrap_or(path.clone()));
        if !self.libraries.is_empty() {
            command.env("LD_LIBRARY_PATH", &self.libraries);
        }
        command
    }
}

/// What it printed, if it did what it was asked.
pub fn succeed(what: &str, command: &mut Command) -> Result<String> {
    let output = child::output(command)?;
    if !output.status.success() {
        bail!("{what} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
