//! `cargo xtask image`: rstscope as a container image, without a container engine, and the same bytes for the same
//! tree.
//!
//! One static program and the certificates of public CAs. Static against glibc: since 2.34 that has the resolver built
//! in, so names are resolved without a library beside the program. `deploy/Containerfile` takes the tree from here, so
//! both ways put the same into an image.
//!
//! What could differ between two builds is pinned: `Cargo.lock`, paths are mapped, the linker strips, times are those
//! of the commit. What stays is the toolchain (another rustc, C compiler or glibc gives other bytes) and the
//! certificates, which are this machine's.
//!
//! * [`build`]: the program, for an [`architecture`]; [`archive`]: the image around it.

pub mod architecture;
mod archive;
mod build;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    cargo, child,
    cli::Image,
    files,
    setup::{self, Scope},
};
use architecture::Architecture;
use build::Build;

/// The certificates of public CAs, as Debian's ca-certificates keeps them and rustls looks for them.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Where the program is in the image.
const PROGRAM: &str = "/usr/bin/rstscope";

/// Builds, packs, and says where the image is.
pub fn perform(options: &Image) -> Result<()> {
    setup::perform_if_missing(Scope::Build)?;
    let architecture = options.arch.unwrap_or(Architecture::of_this_machine()?);
    let workspace = cargo::workspace()?;
    let epoch = epoch(&workspace)?;
    let folder = cargo::target_folder()?.join("image");
    let build = Build::prepare(architecture, epoch)?;
    let program = build.program(&workspace, &cargo::target_folder()?)?;
    if options.reproduce {
        build_elsewhere(&build, &workspace, &folder, &program)?;
    }
    if let Some(tree) = &options.tree {
        return lay_out(&program, tree);
    }
    let tree = folder.join("tree");
    files::remove_folder(&tree)?;
    lay_out(&program, &tree)?;
    let archive = archive::pack(&tree, &folder, architecture, epoch)?;
    println!("{}", archive.display());
    Ok(())
}

/// Builds a copy of the tree in another folder, and compares.
fn build_elsewhere(build: &Build, workspace: &Path, folder: &Path, program: &Path) -> Result<()> {
    let copy = folder.join("a copy of the tree");
    files::remove_folder(&copy)?;
    files::make_folder(&copy)?;
    let listed = child::output(Command::new("git").args(["ls-files", "-z"]).current_dir(workspace))?;
    for name in String::from_utf8(listed.stdout).context("a file's name is no text")?.split_terminator('\0') {
        files::copy_file(&workspace.join(name), &copy.join(name))?;
    }
    let again = build.program(&copy, &copy.join("target"))?;
    if read(program)? != read(&again)? {
        bail!("{} and {} differ: the build is not reproducible", program.display(), again.display());
    }
    eprintln!("image: two builds, in two folders, gave the same {} bytes", read(program)?.len());
    Ok(())
}

/// The files of the image.
fn lay_out(program: &Path, tree: &Path) -> Result<()> {
    if !Path::new(CERTIFICATES).is_file() {
        bail!("{CERTIFICATES} is missing, which sinks need for https: install the package ca-certificates");
    }
    for (file, place) in [(program, PROGRAM), (Path::new(CERTIFICATES), CERTIFICATES)] {
        files::copy_file(file, &tree.join(place.trim_start_matches('/')))?;
    }
    // Mounted over by manifests; here for whoever runs the image without them.
    for name in ["run", "tmp"] {
        let folder = tree.join(name);
        files::make_folder(&folder)?;
    }
    let program = tree.join(PROGRAM.trim_start_matches('/'));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} a program", program.display()))
}

/// What files of the image are stamped with, in seconds since 1970: SOURCE_DATE_EPOCH, else the time of the commit,
/// else 0.
fn epoch(workspace: &Path) -> Result<u64> {
    if let Ok(text) = env::var("SOURCE_DATE_EPOCH") {
        return text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}, not a number of seconds"));
    }
    let output = child::output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(workspace));
    let committed = output.ok().filter(|output| output.status.success());
    Ok(committed.and_then(|output| String::from_utf8_lossy(&output.stdout).trim().parse().ok()).unwrap_or(0))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// What a program prints, trimmed, if it does what it is asked.
fn said(command: &mut Command) -> Result<String> {
    let output = child::output(command)?;
    if !output.status.success() {
        bail!("`{}` failed: {}", child::shown(command), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The folder of a path as text, for flags of compilers.
fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}

/// Cargo's own folder, in which the sources of dependencies are.
fn cargo_home() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).map(PathBuf::from);
    set("CARGO_HOME").or_else(|| Some(set("HOME")?.join(".cargo"))).context("set CARGO_HOME or HOME")
}
