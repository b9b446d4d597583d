//! The compiler's version, and the components that testing takes.

use std::process::Command;

use anyhow::{Result, bail};

use super::{already_there, done, working};
use crate::{cargo, child, ebpf::Rustc};

/// The workspace's `rust-version`.
const MINIMUM: &str = env!("CARGO_PKG_RUST_VERSION");

/// Refuses a compiler that is too old.
pub fn check_version(rustc: &Rustc) -> Result<()> {
    let version = &rustc.version;
    if numbers(&version.release) < numbers(MINIMUM) {
        bail!("this is Rust {}, and rstscope takes {MINIMUM} or newer: run `rustup update stable`", version.release);
    }
    already_there(&format!("Rust {} with LLVM {}", version.release, version.llvm_major));
    Ok(())
}

/// Adds rustfmt and clippy, which a minimal installation of Rust lacks.
pub fn ensure_components() -> Result<()> {
    const WHAT: &str = "rustfmt and clippy";
    let there = |name: &str| child::succeeds(Command::new(cargo::program()).args([name, "--version"]));
    if there("fmt") && there("clippy") {
        already_there(WHAT);
        return Ok(());
    }
    working(WHAT, "asking rustup");
    let remedy = "install rustfmt and clippy of this Rust version, with rustup or from where Rust came from";
    child::run_on_stderr(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]), remedy)?;
    done(WHAT);
    Ok(())
}

/// `1.95.0-nightly` → `[1, 95, 0]`, which compare as versions do.
fn numbers(version: &str) -> Vec<u32> {
    let plain = version.split('-').next().unwrap_or_default();
    plain.split('.').map_while(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(numbers("1.100.0") > numbers("1.95"));
        assert!(numbers("1.95.0") >= numbers("1.95"));
        assert!(numbers("1.96.0-nightly") > numbers("1.95"));
        assert!(numbers("1.94.1") < numbers("1.95"));
    }
}
