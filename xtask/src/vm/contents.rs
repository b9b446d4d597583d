//! What a guest needs to run the kernel tests: the programs with their shared libraries, modules, and PID 1, which is
//! this program itself.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{archive::Archive, guest, modules::Module};
use crate::child;

/// What the kernel tests call.
const PROGRAMS: [&str; 4] = ["ip", "ss", "sh", "sleep"];

/// The part that is the same for every kernel: copies of the programs without their debug information, which would fill
/// the guest's memory.
#[derive(Debug)]
pub struct Programs {
    /// Path in the guest and content.
    files: Vec<(String, Vec<u8>)>,
}

impl Programs {
    /// Collects the programs.
    pub fn collect(tests: &Path, rstscope: &Path, scratch: &Path) -> Result<Self> {
        let own = env::current_exe().context("cannot find this program's own file")?;
        let mut files = Vec::new();
        let mut libraries = BTreeSet::new();
        for (path, program) in [(guest::INIT, own.as_path()), (guest::TESTS, tests), (guest::RSTSCOPE, rstscope)] {
            files.push((path.to_owned(), stripped(program, scratch)?));
            libraries.extend(libraries_of(program)?);
        }
        for name in PROGRAMS {
            let program = child::find(name).with_context(|| format!("the kernel tests need `{name}`"))?;
            files.push((format!("/bin/{name}"), read(&program)?));
            libraries.extend(libraries_of(&program)?);
        }
        for library in libraries {
            let path = library.to_str().with_context(|| format!("{} is not UTF-8", library.display()))?;
            files.push((path.to_owned(), read(&library)?));
        }
        Ok(Self { files })
    }

    /// The archive for a kernel with these modules, in the order they have to be loaded in.
    pub fn archive(&self, modules: &[Module], arguments: &[String]) -> Vec<u8> {
        let mut archive = Archive::default();
        for folder in ["/dev", "/proc", "/sys", "/run", "/root"] {
            archive.folder(folder, 0o755);
        }
        archive.folder("/tmp", 0o1777);
        // The kernel opens it for PID 1 before PID 1 can mount anything.
        archive.device("/dev/console", (5, 1));
        for (path, content) in &self.files {
            archive.file(path, 0o755, content);
        }
        for (index, module) in modules.iter().enumerate() {
            archive.file(&format!("{}/{index:03}-{}.ko", guest::MODULES, module.name), 0o644, &module.content);
        }
        archive.file(guest::ARGUMENTS, 0o644, arguments.join("\n").as_bytes());
        archive.finish()
    }
}

fn stripped(program: &Path, scratch: &Path) -> Result<Vec<u8>> {
    let copy = scratch.join("stripped");
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(&copy).arg(program);
    child::run_on_stderr(&mut strip, "it comes with the C linker (binutils)")?;
    let content = read(&copy)?;
    fs::remove_file(&copy).with_context(|| format!("cannot remove {}", copy.display()))?;
    Ok(content)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The shared libraries a program is linked to, the dynamic linker among them.
pub fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let output = child::output(Command::new("ldd").arg(program).env("LC_ALL", "C"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
        bail!("{} lacks a library: {}", program.display(), missing.trim());
    }
    Ok(library_paths(&text))
}

/// `libc.so.6 => /lib/…/libc.so.6 (0x…)`, or for the dynamic linker just `/lib64/… (0x…)`.
fn library_paths(ldd: &str) -> Vec<PathBuf> {
    ldd.lines()
        .filter_map(|line| {
            let place = line.split_once("=>").map_or(line, |(_, place)| place);
            let path = place.trim().split_once(" (")?.0;
            path.starts_with('/').then(|| path.into())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_files() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibelf.so.1 => /lib/x86_64-linux-gnu/libelf.so.1 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected: [PathBuf; 2] = ["/lib/x86_64-linux-gnu/libelf.so.1".into(), "/lib64/ld-linux-x86-64.so.2".into()];
        assert_eq!(library_paths(ldd), expected);
        assert_eq!(library_paths("\tstatically linked\n"), Vec::<PathBuf>::new());
    }
}
