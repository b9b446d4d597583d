//! Kernel modules for a guest, in the order in which they can be loaded.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::child;

/// What the tests need and Debian's cloud kernels do not have built in: veth pairs, and `ss -K`.
const WANTED: [&str; 3] = ["veth", "inet_diag", "tcp_diag"];

/// A module, not compressed.
#[derive(Debug)]
pub struct Module {
    /// Its name with underscores.
    pub name: String,
    /// The ELF file.
    pub content: Vec<u8>,
}

/// Reads the modules that are wanted from the folder of a kernel, each after those it depends on. The packages come
/// without `modules.dep`, but every module names what it depends on.
pub fn read_wanted(folder: &Path) -> Result<Vec<Module>> {
    let mut files = Vec::new();
    find(folder, &mut files)?;
    let mut modules = Vec::new();
    for name in WANTED {
        add(name, &files, &mut modules)?;
    }
    Ok(modules)
}

fn add(name: &str, files: &[PathBuf], modules: &mut Vec<Module>) -> Result<()> {
    if modules.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let file = files.iter().find(|file| module_name(file).as_deref() == Some(name));
    let file = file.with_context(|| format!("the kernel's package has no module {name}"))?;
    let content = read(file)?;
    for dependency in dependencies(&content) {
        add(&dependency, files, modules)?;
    }
    modules.push(Module { name: name.to_owned(), content });
    Ok(())
}

/// File names have dashes where module names have underscores, or not.
fn module_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let stem = name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.xz"))?;
    Some(stem.replace('-', "_"))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_some_and(|extension| extension == "xz") {
        let output = child::output(Command::new("xz").args(["--decompress", "--stdout"]).arg(file))?;
        if !output.status.success() {
            bail!("cannot decompress {}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        return Ok(output.stdout);
    }
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// A module's information is `key=value` texts that end in a zero byte.
fn dependencies(module: &[u8]) -> Vec<String> {
    let texts = module.split(|&byte| byte == 0);
    let value = texts.filter_map(|text| text.strip_prefix(b"depends=")).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_depends_on() {
        let module = b"\x7fELF\0license=GPL\0depends=inet_diag,nf-conntrack\0name=tcp_diag\0";
        assert_eq!(dependencies(module), ["inet_diag", "nf_conntrack"]);
        assert_eq!(dependencies(b"\0depends=\0"), Vec::<String>::new());
        assert_eq!(dependencies(b"\0"), Vec::<String>::new());
    }

    #[test]
    fn modules_come_after_their_dependencies() {
        let folder = std::env::temp_dir().join(format!("rstscope-modules-{}", std::process::id()));
        fs::create_dir_all(folder.join("net")).unwrap();
        fs::write(folder.join("net/tcp_diag.ko"), b"\0depends=inet-diag\0").unwrap();
        fs::write(folder.join("net/inet-diag.ko"), b"\0depends=\0").unwrap();
        fs::write(folder.join("veth.ko"), b"\0depends=tcp_diag\0").unwrap();
        let modules = read_wanted(&folder).unwrap();
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["inet_diag", "tcp_diag", "veth"]);
        fs::remove_dir_all(folder).unwrap();
    }
}
