//! How cargo is called for the kernel side.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
};

use super::{Tools, forget_outer_cargo};

/// The kernel side's package.
const PACKAGE: &str = "agent-ebpf";
/// The program in it, which is also the object's file name.
const BINARY: &str = "rstscope-ebpf";

/// Below the outer target folder: all profiles and clippy share one build of `core`.
pub const TARGET_FOLDER: &str = "rstscope-ebpf";

/// A build of the kernel side for one kind of host.
#[derive(Debug)]
pub struct ObjectBuild<'a> {
    /// The tools, which have to be [in place](Tools::check).
    pub tools: &'a Tools,
    /// The cargo to run.
    pub cargo: &'a OsStr,
    /// The workspace's folder.
    pub workspace: &'a Path,
    /// A target folder of its own: cargo would wait for ever for the lock of the one the outer cargo uses.
    pub target_folder: &'a Path,
    /// The host's architecture in Rust's words. Where the kernel puts a probed function's arguments depends on it.
    pub architecture: &'a str,
    /// Whether the host is big-endian: BPF has the byte order of its host.
    pub big_endian: bool,
    /// Whether the programs say something of themselves.
    pub log: bool,
}

impl ObjectBuild<'_> {
    /// `cargo <subcommand>` for the kernel side; `build` and `clippy` make sense. Everything a user, or the cargo
    /// that started us, may have set for the host is kept away from it.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(self.cargo);
        forget_outer_cargo(&mut command);
        command
            .arg(subcommand)
            .args(["--package", PACKAGE, "--bin", BINARY])
            .args(self.log.then_some("--features=log"))
            // The verifier refuses a debug build's panics and bounds checks.
            .args(["--release", "--target", self.target()])
            // No toolchain ships `core` for BPF.
            .args(["-Z", "build-std=core"])
            .arg("--target-dir")
            .arg(self.target_folder)
            .current_dir(self.workspace)
            // build-std is unstable, and this is the only unstable thing used: it does not justify a nightly.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", &self.tools.rustc.program)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags().join("\x1f"))
            .env(self.linker_variable(), self.tools.linker())
            // Stripping the object would take its BTF away.
            .env("CARGO_PROFILE_RELEASE_STRIP", "none")
            .env("LD_LIBRARY_PATH", self.library_path());
        command
    }

    /// The object a `build` leaves behind.
    pub fn object(&self) -> PathBuf {
        self.target_folder.join(self.target()).join("release").join(BINARY)
    }

    fn target(&self) -> &'static str {
        if self.big_endian { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
    }

    fn linker_variable(&self) -> String {
        format!("CARGO_TARGET_{}_LINKER", self.target().replace('-', "_").to_uppercase())
    }

    fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            // What LLVM 22 takes for "generic" too, said aloud so that another LLVM does not change it. Kernel 5.10
            // knows all of v3 but atomics that return the old value, which came with 5.12.
            "-Ctarget-cpu=v3".to_owned(),
            // BTF is made out of the debug information.
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            // Else LLVM calls functions for zeros and copies, which go byte by byte: three quarters of what the verifier of a
            // kernel walked through were iterations of these loops.
            "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
            format!("--cfg=bpf_target_arch=\"{}\"", self.architecture),
        ];
        // BTF names the source of every line: without this a checkout elsewhere would give another object.
        let folders = [
            (Some(self.workspace.to_owned()), "/rstscope"),
            (cargo_home(), "/cargo"),
            (Some(self.tools.rustc.sysroot.clone()), "/rust"),
        ];
        let mapped = folders.into_iter().filter_map(|(folder, name)| Some((folder?, name)));
        flags.extend(mapped.map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display())));
        flags
    }

    /// bpf-linker was told where its LLVM is when it was built, but that may have been another toolchain with the same
    /// compiler, which can be gone.
    fn library_path(&self) -> OsString {
        let mut path = self.tools.rustc.shared_libraries().into_os_string();
        if let Some(inherited) = env::var_os("LD_LIBRARY_PATH").filter(|inherited| !inherited.is_empty()) {
            path.push(":");
            path.push(inherited);
        }
        path
    }
}

/// Where cargo keeps the sources of dependencies.
fn cargo_home() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).map(PathBuf::from);
    set("CARGO_HOME").or_else(|| Some(set("HOME")?.join(".cargo")))
}
