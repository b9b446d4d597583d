//! Rust's library: its source, out of which cargo builds `core` for BPF, and the compiled one for other machines.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{already_there, debian, done, working};
use crate::{
    child,
    ebpf::{Rustc, Tools},
    files,
};

/// Puts the library source where cargo looks for it: from rustup, else from Debian's package of the same version.
pub fn ensure(tools: &Tools) -> Result<()> {
    let what = format!("library source of Rust {}", tools.rustc.version.release);
    if tools.has_library_source() {
        already_there(&what);
        return Ok(());
    }
    // Neither rustup nor we would write over another compiler's source.
    files::remove_folder(&tools.rustc.library_source())?;
    if rustup_manages(&tools.rustc) {
        working(&what, "asking rustup");
        if let Err(reason) = rustup(&["component", "add", "rust-src"]) {
            working(&what, &format!("rustup cannot provide it here ({reason}), so Debian's package of it is used"));
        }
    }
    if !tools.has_library_source() {
        install_from_debian(tools, &tools.rustc.library_source())?;
    }
    done(&what);
    Ok(())
}

/// A toolchain that was linked into rustup, or came from a distribution, lacks this file.
fn rustup_manages(rustc: &Rustc) -> bool {
    rustc.sysroot.join("lib/rustlib/multirust-channel-manifest.toml").is_file()
}

/// Asks rustup for the compiled library of another target and says whether it is there. Without it cargo can compile
/// the library out of its source.
pub fn ensure_compiled(tools: &Tools, target: &str) -> bool {
    let is_there = || tools.rustc.sysroot.join("lib/rustlib").join(target).join("lib").is_dir();
    let what = format!("Rust's library for {target}");
    if !is_there() && rustup_manages(&tools.rustc) {
        working(&what, "asking rustup");
        if let Err(reason) = rustup(&["target", "add", target]) {
            working(&what, &format!("rustup cannot provide it here ({reason}), so it is compiled along"));
        }
    }
    is_there()
}

/// Its output is kept away: where rustup cannot download, it prints a page of stack backtrace for what is no error to us.
fn rustup(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("rustup");
    // Behind a firewall that answers nothing, every retry costs half a minute.
    command.args(arguments).env("RUST_BACKTRACE", "0").env("RUSTUP_MAX_RETRIES", "1");
    let output = child::output(&mut command)?;
    if !output.status.success() {
        bail!("{}", first_error(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(())
}

/// The first clause of rustup's error; the causes that follow it are full of addresses and paths.
fn first_error(output: &str) -> &str {
    let error = output.lines().find_map(|line| line.strip_prefix("error: "));
    error.and_then(|error| error.split(':').next()).unwrap_or("it did not say why")
}

fn install_from_debian(tools: &Tools, destination: &Path) -> Result<()> {
    let scratch = tools.cache.join("library-source.unfinished");
    files::remove_folder(&scratch)?;
    files::make_folder(&scratch)?;
    let cannot_write =
        || format!("cannot write to {}: run `cargo xtask setup` once as who installed Rust", destination.display());
    // Before the download, which would be for nothing.
    let unfinished = prepare(destination).with_context(cannot_write)?;

    let library = debian::fetch_library_source(&tools.rustc.version.release, &scratch)?;
    // A plain rename would not do, the cache often being on another file system; and a source that was copied by half
    // must not count as one.
    copy_folder(&library, &unfinished).with_context(cannot_write)?;
    tools.mark_library_source(&unfinished).with_context(cannot_write)?;
    fs::rename(&unfinished, destination).with_context(cannot_write)?;
    files::remove_folder(&scratch)
}

/// Makes an empty folder next to the destination.
fn prepare(destination: &Path) -> io::Result<PathBuf> {
    let mut unfinished = OsString::from(destination);
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    Ok(unfinished)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustups_reason_is_one_line() {
        let output =
            "info: downloading component rust-src\nerror: download failed: no route\n\nStack backtrace:\n   0: x\n";
        assert_eq!(first_error(output), "download failed");
        assert_eq!(first_error("info: nothing\n"), "it did not say why");
    }
}
