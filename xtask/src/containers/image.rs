//! The container's file system: this program and the libraries it is linked to.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::vm::libraries_of;

/// Where this program is in the container.
pub const PROGRAM: &str = "/server";

/// Makes the folder that becomes the container's root.
pub fn make(folder: &Path) -> Result<PathBuf> {
    let root = folder.join("rootfs");
    // Runtimes mount on these, and make no folder in a file system that is not theirs.
    for name in ["proc", "sys", "dev", "tmp", "run", "etc", "var/tmp"] {
        make_folder(&root.join(name))?;
    }
    let own = std::env::current_exe().context("xtask has no path")?;
    copy(&own, &root, Path::new(PROGRAM))?;
    for library in libraries_of(&own)? {
        copy(&library, &root, &library)?;
    }
    Ok(root)
}

fn copy(file: &Path, root: &Path, place: &Path) -> Result<()> {
    let place = root.join(place.strip_prefix("/").unwrap_or(place));
    make_folder(place.parent().context("a file is in a folder")?)?;
    fs::copy(file, &place).with_context(|| format!("cannot copy {} to {}", file.display(), place.display()))?;
    Ok(())
}

fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))
}
