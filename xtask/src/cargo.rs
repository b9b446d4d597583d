//! Calling cargo from a program that cargo started.

use std::{
    env,
    ffi::OsString,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::child;

/// The workspace's folder.
pub fn workspace() -> Result<PathBuf> {
    // Cargo sets it for what it runs; a checkout that was moved since the build is found all the same.
    let package = env::var_os("CARGO_MANIFEST_DIR").context("start it as `cargo xtask`, not by its path")?;
    Ok(Path::new(&package).parent().context("xtask's package is not in a folder")?.to_path_buf())
}

/// The cargo that runs us, so that every step uses one toolchain.
pub fn program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A cargo command in the workspace, with the user's settings but without what the outer cargo says of xtask itself:
/// build scripts that look at such variables would run again and again.
pub fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(describes_xtask) {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(workspace()?);
    Ok(command)
}

fn describes_xtask(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix))
        || name == "CARGO_PRIMARY_PACKAGE"
}

/// The target folder the user has chosen.
pub fn target_folder() -> Result<PathBuf> {
    let mut command = command(&["metadata", "--no-deps", "--format-version", "1"])?;
    let output = child::output(command.stderr(Stdio::inherit()))?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("`cargo metadata` failed")?;
    let folder = metadata.get("target_directory").and_then(Value::as_str);
    Ok(folder.context("`cargo metadata` names no target folder")?.into())
}

/// A program that cargo built.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// The target's name.
    pub name: String,
    /// `bin`, `test`, …
    pub kind: String,
    /// Where it is, whatever the target folder or the profile.
    pub path: PathBuf,
}

/// Runs a cargo command that builds, with its progress visible, and returns the programs it built.
pub fn build(arguments: &[&str]) -> Result<Vec<Program>> {
    let mut command = command(arguments)?;
    let mut child = command
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let messages = BufReader::new(child.stdout.take().context("cargo has no stdout")?);
    let mut programs = Vec::new();
    for line in messages.lines() {
        programs.extend(built_program(&line.context("cannot read cargo's messages")?));
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed ({status}), see above", arguments.join(" "));
    }
    Ok(programs)
}

/// The path of one of the programs.
fn path_of<'a>(programs: &'a [Program], kind: &str, name: &str) -> Result<&'a Path> {
    programs
        .iter()
        .find(|program| program.kind == kind && program.name == name)
        .map(|program| program.path.as_path())
        .with_context(|| format!("cargo did not build the {kind} {name}"))
}

/// Builds rstscope itself.
pub fn build_rstscope(release: bool, ebpf_log: bool) -> Result<PathBuf> {
    let mut arguments = vec!["build", "--package", "rstscope", "--bin", "rstscope", "--locked"];
    if release {
        arguments.push("--release");
    }
    if ebpf_log {
        arguments.push("--features=ebpf-log");
    }
    Ok(path_of(&build(&arguments)?, "bin", "rstscope")?.to_path_buf())
}

/// Builds the program that plays the kubelet for container runtimes.
pub fn build_kubelet() -> Result<PathBuf> {
    Ok(path_of(&build(&["build", "--package", "xtask-cri", "--locked"])?, "bin", "xtask-cri")?.to_path_buf())
}

/// Tests that need root, and the rstscope they are about.
#[derive(Debug)]
pub struct RootTests {
    /// The test program.
    pub tests: PathBuf,
    /// The program under test.
    pub rstscope: PathBuf,
}

/// Builds the kernel tests; this machine and the guests run the same ones.
pub fn build_kernel_tests(release: bool) -> Result<RootTests> {
    build_root_tests("kernel", release)
}

/// Builds the chaos of the sinks.
pub fn build_chaos(release: bool) -> Result<RootTests> {
    build_root_tests("chaos", release)
}

/// Of the whole workspace, as the unit tests are: the features of its packages' dependencies are those of all of them then,
/// and nothing is compiled a second time with fewer.
fn build_root_tests(name: &str, release: bool) -> Result<RootTests> {
    let mut arguments = vec!["test", "--workspace", "--test", name, "--no-run", "--locked"];
    if release {
        arguments.push("--release");
    }
    let programs = build(&arguments)?;
    Ok(RootTests {
        tests: path_of(&programs, "test", name)?.to_path_buf(),
        // Cargo builds a package's programs for its integration tests anyway.
        rstscope: path_of(&programs, "bin", "rstscope")?.to_path_buf(),
    })
}

/// Runs a cargo command with its output visible.
pub fn run(arguments: &[&str]) -> Result<()> {
    child::run(&mut command(arguments)?, "see above")
}

fn built_program(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    let target = message.get("target")?;
    Some(Program {
        path: message.get("executable")?.as_str()?.into(),
        name: target.get("name")?.as_str()?.to_owned(),
        kind: target.get("kind")?.get(0)?.as_str()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let program = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernel"},
            "filenames":["/t/kernel-1"],"executable":"/t/kernel-1"}"#;
        let expected = Program { name: "kernel".into(), kind: "test".into(), path: "/t/kernel-1".into() };
        assert_eq!(built_program(program), Some(expected));
    }

    #[test]
    fn other_messages_are_not_programs() {
        let library = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"clap"},"executable":null}"#;
        for message in [library, r#"{"reason":"build-finished","success":true}"#, "warning: plain text"] {
            assert_eq!(built_program(message), None);
        }
    }
}
