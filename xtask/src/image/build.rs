//! The program of the image: static, stripped, and without a trace of where it was built.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Error, Result, bail};

use super::{architecture::Architecture, cargo_home, text};
use crate::{
    cargo, child,
    ebpf::{Tools, forget_outer_cargo},
    setup::library,
};

/// A way to build the program, the same for every copy of the tree.
#[derive(Debug)]
pub struct Build {
    architecture: Architecture,
    /// The time that files are stamped with, in seconds since 1970.
    epoch: u64,
    tools: Tools,
    /// The C compiler and linker, where the machine it is for is another one.
    cross_compiler: Option<&'static str>,
    /// Rust's library for the target is there, and need not be compiled along.
    has_library: bool,
}

impl Build {
    /// Looks for what it takes, and asks rustup for the library.
    pub fn prepare(architecture: Architecture, epoch: u64) -> Result<Self> {
        let is_another = architecture != Architecture::of_this_machine()?;
        let cross_compiler = is_another.then(|| architecture.cross_compiler());
        if let Some(compiler) = cross_compiler.filter(|compiler| child::find(compiler).is_none()) {
            bail!("there is no {compiler} here: install Debian's package gcc-{}", compiler.trim_end_matches("-gcc"));
        }
        let tools = Tools::find().map_err(Error::msg)?;
        let has_library = library::ensure_compiled(&tools, architecture.target());
        Ok(Self { architecture, epoch, tools, cross_compiler, has_library })
    }

    /// Builds the program of a workspace.
    pub fn program(&self, workspace: &Path, target_folder: &Path) -> Result<PathBuf> {
        let target = self.architecture.target();
        let mut command = Command::new(cargo::program());
        forget_outer_cargo(&mut command);
        command
            .args(["build", "--package", "rstscope", "--bin", "rstscope", "--release", "--locked"])
            // Named even if it is this machine's: only so the flags leave build scripts and macros alone, which are
            // never static.
            .args(["--target", target, "--target-dir"])
            .arg(target_folder)
            .current_dir(workspace)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(workspace)?.join("\x1f"))
            .env("CFLAGS", self.c_flags(workspace)?)
            .env("CARGO_INCREMENTAL", "0")
            .env("SOURCE_DATE_EPOCH", self.epoch.to_string());
        if let Some(compiler) = self.cross_compiler {
            let variable = target.replace('-', "_");
            command.env(format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()), compiler);
            command.env(format!("CC_{variable}"), compiler);
        }
        if !self.has_library {
            // Unstable, as for the eBPF side, and no reason for a nightly either.
            command.args(["-Z", "build-std=std"]).env("RUSTC_BOOTSTRAP", "1");
        }
        child::run_on_stderr(&mut command, "see above")?;
        let program = target_folder.join(target).join("release/rstscope");
        check_static(&program)?;
        Ok(program)
    }

    fn flags(&self, workspace: &Path) -> Result<Vec<String>> {
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned(), "-Cstrip=symbols".to_owned()];
        flags.extend(self.mapped(workspace)?.into_iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")));
        Ok(flags)
    }

    /// Some dependencies compile C.
    fn c_flags(&self, workspace: &Path) -> Result<OsString> {
        let flags = self.mapped(workspace)?.into_iter().map(|(from, to)| format!("-ffile-prefix-map={from}={to}"));
        // The compiler splits them at blanks, and a folder with one cannot be mapped; what it compiles is in cargo's
        // folder.
        Ok(flags.filter(|flag| !flag.contains(' ')).collect::<Vec<_>>().join(" ").into())
    }

    /// Folders of this machine, and what stands in the program in their place.
    fn mapped(&self, workspace: &Path) -> Result<[(String, &'static str); 3]> {
        Ok([
            (text(workspace)?.to_owned(), "/rstscope"),
            (text(&cargo_home()?)?.to_owned(), "/cargo"),
            (text(&self.tools.rustc.sysroot)?.to_owned(), "/rust"),
        ])
    }
}

/// A program without an interpreter needs no library beside it.
fn check_static(program: &Path) -> Result<()> {
    let content = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    match has_interpreter(&content) {
        Some(false) => Ok(()),
        Some(true) => bail!("{} is not static: it asks for an interpreter", program.display()),
        None => bail!("{} is no ELF program of 64 bits", program.display()),
    }
}

/// Whether a program header is PT_INTERP (ELF-64, little-endian).
fn has_interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, bytes: usize| {
        let field = elf.get(at..at + bytes)?;
        Some(field.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (first, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let at = usize::try_from(first + index * size).ok()?;
        if number(at, 4)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_asks_for_an_interpreter() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(has_interpreter(&own), Some(!cfg!(target_feature = "crt-static")));
        assert_eq!(has_interpreter(b"#!/bin/sh"), None);
        assert_eq!(has_interpreter(&own[..70]), None);
    }
}
