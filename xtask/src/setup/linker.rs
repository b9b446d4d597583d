//! bpf-linker, linked against the very LLVM that rustc uses.
//!
//! It reads the bitcode rustc writes, and only the same LLVM reads that for sure. rustc brings its LLVM along as a
//! shared library; so no LLVM has to be installed and none compiled.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{already_there, done, working};
use crate::{
    cargo, child,
    ebpf::{Tools, forget_outer_cargo},
    files,
};

/// What this release of bpf-linker has a feature for.
const LLVM_MAJORS: [u32; 3] = [21, 22, 23];

/// Builds bpf-linker where there is none for this compiler.
pub fn ensure(tools: &Tools) -> Result<()> {
    let what = format!("bpf-linker {} for Rust {}", tools.linker_version(), tools.rustc.version.release);
    if runs(tools, &tools.linker()) {
        already_there(&what);
        return Ok(());
    }
    working(&what, "compiling it, which takes a minute or two");
    install(tools)?;
    done(&what);
    Ok(())
}

fn install(tools: &Tools) -> Result<()> {
    let feature = feature(tools.rustc.version.llvm_major)?;
    let llvm = find_llvm(&tools.rustc.shared_libraries())?;
    let folder = tools.linker_folder();
    let in_cache = |suffix: &str| -> Result<PathBuf> {
        let name = folder.file_name().context("the cache has no folder for bpf-linker")?;
        Ok(tools.cache.join(format!("{}.{suffix}", name.display())))
    };
    // Whatever is interrupted leaves only folders of these two names behind: the first one is made anew by the next
    // set-up, the second one goes on where it was.
    let unfinished = in_cache("unfinished")?;
    let build = in_cache("build")?;
    files::remove_folder(&unfinished)?;
    let prefix = llvm_prefix(&unfinished, &llvm)
        .with_context(|| format!("cannot link to rustc's LLVM from {}", unfinished.display()))?;

    let mut command = Command::new(cargo::program());
    forget_outer_cargo(&mut command);
    command
        .args(["install", "bpf-linker", "--locked", "--version", tools.linker_version()])
        .args(["--no-default-features", "--features", &feature])
        .arg("--root")
        .arg(&unfinished)
        // Not in the checkout, whose settings for cargo are not meant for this.
        .current_dir(&tools.cache)
        .env("RUSTC", &tools.rustc.program)
        .env("LLVM_PREFIX", &prefix)
        .env("CARGO_TARGET_DIR", &build)
        // Cargo advises to add the folder to PATH; nobody is to call this bpf-linker by its name.
        .env("PATH", path_with(&unfinished.join("bin"))?)
        .env("CARGO_ENCODED_RUSTFLAGS", run_path(&tools.rustc.shared_libraries()));
    let remedy = "see above; where the package could not be downloaded, let this machine reach its package registry \
                  and run `cargo xtask setup` again";
    child::run_on_stderr(&mut command, remedy)?;

    let linker = unfinished.join("bin/bpf-linker");
    if !runs(tools, &linker) {
        bail!("{} was built but does not run: `{0} --version` says why", linker.display());
    }
    files::remove_folder(&folder)?;
    fs::rename(&unfinished, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    files::remove_folder(&build)
}

fn path_with(folder: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(env::split_paths(&path).chain([folder.to_path_buf()])).context("cannot extend PATH")
}

/// An LLVM it does not find makes it fail at its very start.
fn runs(tools: &Tools, linker: &Path) -> bool {
    let mut command = Command::new(linker);
    child::succeeds(command.arg("--version").env("LD_LIBRARY_PATH", tools.rustc.shared_libraries()))
}

/// A folder that looks like an installed LLVM to bpf-linker's build.
fn llvm_prefix(parent: &Path, llvm: &Path) -> std::io::Result<PathBuf> {
    let prefix = parent.join("llvm");
    fs::create_dir_all(prefix.join("lib"))?;
    symlink(llvm, prefix.join("lib/libLLVM.so"))?;
    symlink("lib", prefix.join("lib64"))?;
    Ok(prefix)
}

/// Makes the loader find rustc's LLVM; the separator keeps a path with spaces whole.
fn run_path(folder: &Path) -> String {
    format!("-Clink-arg=-Xlinker\x1f-Clink-arg=-rpath\x1f-Clink-arg=-Xlinker\x1f-Clink-arg={}", folder.display())
}

fn feature(llvm_major: u32) -> Result<String> {
    if LLVM_MAJORS.contains(&llvm_major) {
        return Ok(format!("llvm-{llvm_major}"));
    }
    let [oldest, .., newest] = LLVM_MAJORS;
    bail!(
        "this Rust uses LLVM {llvm_major}, and bpf-linker knows LLVM {oldest} to {newest}: \
         use a Rust release that has one of those, for example with `rustup override set 1.95`"
    )
}

fn find_llvm(libraries: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(libraries).with_context(|| format!("cannot read {}", libraries.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    match choose_llvm(names) {
        Some(name) => Ok(libraries.join(name)),
        None => bail!(
            "this Rust brings no shared LLVM in {}, which bpf-linker needs: use a Rust that rustup installed",
            libraries.display()
        ),
    }
}

/// The library itself is `libLLVM.so.<version>-rust-…`; next to it, `libLLVM-<version>-rust-….so` is a linker script.
fn choose_llvm(mut names: Vec<String>) -> Option<String> {
    names.retain(|name| name.starts_with("libLLVM.so."));
    names.sort_unstable();
    names.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feature_follows_rustcs_llvm() {
        assert_eq!(feature(22).unwrap(), "llvm-22");
        assert!(feature(24).unwrap_err().to_string().contains("LLVM 21 to 23"));
    }

    #[test]
    fn the_library_is_not_the_linker_script() {
        let names = ["librustc_driver-6.so", "libLLVM-22-rust-1.95.0-stable.so", "libLLVM.so.22.1-rust-1.95.0-stable"];
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(choose_llvm(names.clone()), Some("libLLVM.so.22.1-rust-1.95.0-stable".to_owned()));
        assert_eq!(choose_llvm(names[..2].to_vec()), None);
    }
}
