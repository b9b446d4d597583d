//! What the kernel side's build needs beyond rustc and cargo, and where each piece is.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use super::Rustc;

/// The release of bpf-linker that is used; another one needs another set-up.
const BPF_LINKER: &str = "0.13.0";

/// Written into a library source that was not put there by rustup. When rustup updates the compiler it leaves a
/// folder it does not know alone, and only this tells that the source then is the previous compiler's.
const MARKER: &str = ".rstscope-rustc";

/// The compiler and the places that belong to it. Places depend on the compiler's version, so that an updated
/// compiler finds them empty instead of finding tools of the compiler before.
#[derive(Debug)]
pub struct Tools {
    /// The compiler.
    pub rustc: Rustc,
    /// Outside of the checkout, so that a fresh clone or `git clean` does not cost another set-up.
    pub cache: PathBuf,
}

impl Tools {
    /// The tools of the compiler cargo uses, there or not.
    pub fn find() -> Result<Self, String> {
        Ok(Self { rustc: Rustc::find()?, cache: cache_folder(|name| env::var_os(name))? })
    }

    /// One sentence when the kernel side cannot be built yet. Looks at files only, so it costs nothing.
    pub fn check(&self) -> Result<(), String> {
        let missing = if !self.has_library_source() {
            "the library source of this Rust version is"
        } else if !self.linker().is_file() {
            "a bpf-linker for this Rust version is"
        } else {
            return Ok(());
        };
        Err(format!("{missing} missing, which the eBPF build needs: run `cargo xtask setup`"))
    }

    /// The release of bpf-linker to use.
    pub fn linker_version(&self) -> &'static str {
        BPF_LINKER
    }

    /// The folder bpf-linker is installed to. It appears in one rename, so it is whole or not there.
    pub fn linker_folder(&self) -> PathBuf {
        self.cache.join(format!("bpf-linker-{BPF_LINKER}-rustc-{}", self.rustc.version.identity()))
    }

    /// bpf-linker itself.
    pub fn linker(&self) -> PathBuf {
        self.linker_folder().join("bin/bpf-linker")
    }

    /// Whether the library source is there and is this compiler's.
    pub fn has_library_source(&self) -> bool {
        let library = self.rustc.library_source();
        library.join("core/src/lib.rs").is_file() && self.marker_agrees(&library)
    }

    /// Notes in a copy of the library source which compiler it belongs to.
    pub fn mark_library_source(&self, library: &Path) -> std::io::Result<()> {
        fs::write(library.join(MARKER), self.rustc.version.identity())
    }

    /// No marker means rustup or a distribution put the source there, and keeps it up to date as well.
    fn marker_agrees(&self, library: &Path) -> bool {
        fs::read_to_string(library.join(MARKER)).map_or(true, |identity| identity == self.rustc.version.identity())
    }
}

fn cache_folder(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, String> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("RSTSCOPE_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("rstscope")))
        .or_else(|| Some(set("HOME")?.join(".cache/rstscope")))
        .ok_or("set RSTSCOPE_CACHE or HOME: the build tools need a folder to live in")?;
    // Relative to what would differ between the build script and xtask, which cargo runs in different folders.
    if folder.is_absolute() {
        Ok(folder)
    } else {
        Err(format!("the cache folder {} has to be an absolute path", folder.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(set: &[(&str, &str)]) -> Result<PathBuf, String> {
        cache_folder(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value)))
    }

    #[test]
    fn the_most_specific_variable_decides() {
        let all = [("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("RSTSCOPE_CACHE", "/r")];
        assert_eq!(folder_with(&all).unwrap(), Path::new("/r"));
        assert_eq!(folder_with(&all[..2]).unwrap(), Path::new("/x/rstscope"));
        assert_eq!(folder_with(&all[..1]).unwrap(), Path::new("/h/.cache/rstscope"));
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        assert_eq!(folder_with(&[("HOME", "/h"), ("XDG_CACHE_HOME", "")]).unwrap(), Path::new("/h/.cache/rstscope"));
    }

    #[test]
    fn a_relative_or_unknown_folder_is_refused() {
        assert!(folder_with(&[("RSTSCOPE_CACHE", "cache")]).unwrap_err().contains("absolute"));
        assert!(folder_with(&[]).unwrap_err().contains("RSTSCOPE_CACHE or HOME"));
    }
}
