//! `cargo xtask setup`: installs what is missing, one printed step after another.
//!
//! * [`rust`]: the compiler's version and its components.
//! * [`library`]: Rust's library and its source, from rustup or, where rustup cannot download, from [`debian`]'s mirrors.
//! * [`linker`]: bpf-linker, compiled against rustc's LLVM.
//! * [`system`]: the few programs that come from the system's packages.

pub mod debian;
pub mod library;
mod linker;
mod rust;
pub mod system;

use std::fs::{File, TryLockError};

use anyhow::{Context, Error, Result};

use crate::{ebpf::Tools, files};

/// How much of the set-up is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What building takes.
    Build,
    /// What building and testing take.
    Everything,
    /// What testing on other kernels takes as well.
    Kernels,
}

/// Sets up without a word when nothing is missing, for commands that are about something else.
pub fn perform_if_missing(scope: Scope) -> Result<()> {
    let tools = Tools::find().map_err(Error::msg)?;
    if tools.check().is_err() { perform(scope).map(drop) } else { Ok(()) }
}

/// Sets up, step by step.
pub fn perform(scope: Scope) -> Result<Tools> {
    let tools = Tools::find().map_err(Error::msg)?;
    let _lock = lock(&tools)?;
    rust::check_version(&tools.rustc)?;
    if scope != Scope::Build {
        rust::ensure_components()?;
    }
    system::ensure(&system::C_LINKER)?;
    library::ensure(&tools)?;
    linker::ensure(&tools)?;
    if scope != Scope::Build {
        system::ensure(&system::IP)?;
        system::ensure(&system::NFT)?;
    }
    if scope == Scope::Kernels {
        system::ensure(&system::XZ)?;
    }
    // What the build script is going to ask.
    tools.check().map_err(Error::msg)?;
    Ok(tools)
}

/// Two set-ups at once would write to the same folders. The lock goes with the process, however it ends.
pub fn lock(tools: &Tools) -> Result<File> {
    let cache = &tools.cache;
    files::make_folder(cache)?;
    let path = cache.join("lock");
    let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        eprintln!("setup: waiting for another set-up to end");
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(lock)
}

/// Says that a step has nothing to do.
pub fn already_there(what: &str) {
    eprintln!("setup: {what}: already there");
}

/// Says what a step is doing.
pub fn working(what: &str, doing: &str) {
    eprintln!("setup: {what}: {doing}");
}

/// Says that a step is through.
pub fn done(what: &str) {
    eprintln!("setup: {what}: installed");
}
