//! What the machine itself has: Node.js, whose version decides its timeout, and Java.
//!
//! Links in the folder of the programs keep where they are, because root's PATH may be another one.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    child,
    setup::{
        already_there,
        system::{self, SystemProgram},
    },
};

/// The release line whose measured close is in the table of timeouts.
const NODE: &str = "v20.";

const JAVA: SystemProgram =
    SystemProgram { name: "java", purpose: "a Java for Tomcat", packages: &["default-jre-headless"] };

/// Where Node.js is found.
pub fn node(folder: &Path) -> PathBuf {
    folder.join("node")
}

/// Where Java is found.
pub fn java(folder: &Path) -> PathBuf {
    folder.join("java")
}

/// Asks for Node.js 20: other release lines close idle connections at other times.
pub fn ensure_node(folder: &Path) -> Result<()> {
    let remedy = "install Node.js 20 so that `node` is on PATH, or leave out the stories with `node` in their name";
    let Some(program) = child::find("node") else { bail!("there is no `node` on this machine: {remedy}") };
    let output = child::output(Command::new(&program).arg("--version"))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !version.starts_with(NODE) {
        bail!("{} is {version:?}: {remedy}", program.display());
    }
    already_there(&format!("Node.js {version}"));
    link(&program, &node(folder))
}

/// Installs a Java where there is none.
pub fn ensure_java(folder: &Path) -> Result<()> {
    system::ensure(&JAVA)?;
    let program = child::find(JAVA.name).context("Java was installed but is not on PATH")?;
    link(&program, &java(folder))
}

fn link(program: &Path, place: &Path) -> Result<()> {
    let cannot = || format!("cannot make the link {}", place.display());
    if let Err(error) = fs::remove_file(place)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error).with_context(cannot);
    }
    symlink(program, place).with_context(cannot)
}
