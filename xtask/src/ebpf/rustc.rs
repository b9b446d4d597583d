//! Which Rust compiler is in use: its version, its LLVM and where it lives.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::Command,
};

/// The compiler that cargo uses, as far as the kernel side's build depends on it.
#[derive(Debug)]
pub struct Rustc {
    /// What to run.
    pub program: OsString,
    /// The folder that holds the compiler's libraries and, once set up, the library source.
    pub sysroot: PathBuf,
    /// What it says of itself.
    pub version: Version,
}

/// What `rustc -vV` says.
#[derive(Debug, PartialEq, Eq)]
pub struct Version {
    /// For example `1.95.0`, or `1.97.0-nightly`.
    pub release: String,
    /// The commit it was built from; `unknown` where a distribution built it from a tarball.
    pub commit: String,
    /// The major version of LLVM.
    pub llvm_major: u32,
}

impl Rustc {
    /// Asks the compiler cargo would use: `$RUSTC`, which cargo sets for build scripts, else `rustc`.
    pub fn find() -> Result<Self, String> {
        let program = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
        let version = Version::parse(&ask(&program, &["-vV"])?)?;
        let sysroot = PathBuf::from(ask(&program, &["--print", "sysroot"])?.trim_end());
        Ok(Self { program, sysroot, version })
    }

    /// Where cargo's `build-std` looks for the library source.
    pub fn library_source(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust/library")
    }

    /// Where the compiler's own shared libraries are, its LLVM among them.
    pub fn shared_libraries(&self) -> PathBuf {
        self.sysroot.join("lib")
    }
}

impl Version {
    /// Reads the output of `rustc -vV`.
    fn parse(text: &str) -> Result<Self, String> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .ok_or_else(|| format!("`rustc -vV` does not say its {name}"))
        };
        let llvm = field("LLVM version")?;
        let llvm_major = llvm
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .ok_or_else(|| format!("`rustc -vV` says the LLVM version is {llvm:?}, which is not a version"))?;
        Ok(Self { release: field("release")?.to_owned(), commit: field("commit-hash")?.to_owned(), llvm_major })
    }

    /// Version and commit in a few characters: two compilers with the same identity were built from the same source.
    pub fn identity(&self) -> String {
        let commit: String = self.commit.chars().take(9).collect();
        format!("{}-{commit}", self.release)
    }
}

fn ask(program: &OsStr, arguments: &[&str]) -> Result<String, String> {
    let shown = || format!("`{} {}`", program.display(), arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot run {} ({error}): install Rust with rustup", shown()))?;
    if !output.status.success() {
        return Err(format!("{} failed: {}", shown(), String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{} printed something that is not UTF-8", shown()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STABLE: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\n\
        commit-hash: 59807616e1fa2540724bfbac14d7976d7e4a3860\ncommit-date: 2026-04-14\n\
        host: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";

    #[test]
    fn reads_what_the_compiler_says() {
        let version = Version::parse(STABLE).unwrap();
        assert_eq!((version.release.as_str(), version.llvm_major), ("1.95.0", 22));
        assert_eq!(version.identity(), "1.95.0-59807616e");
    }

    #[test]
    fn a_distribution_build_has_no_commit() {
        let text = "binary: rustc\ncommit-hash: unknown\nrelease: 1.96.0\nLLVM version: 23.1\n";
        assert_eq!(Version::parse(text).unwrap().identity(), "1.96.0-unknown");
    }

    #[test]
    fn names_the_missing_field() {
        let error = Version::parse("release: 1.95.0\ncommit-hash: unknown\n").unwrap_err();
        assert_eq!(error, "`rustc -vV` does not say its LLVM version");
    }
}
