//! Files and folders, with the path in every error.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result};

/// Makes a folder and those it is in; one that is there is as good as made.
pub fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))
}

/// Removes a folder and what is in it; one that is not there is as good as removed.
pub fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a file and the folder it is in.
pub fn write_file(file: &Path, text: &str) -> Result<()> {
    make_folder(file.parent().context("a file is in a folder")?)?;
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Copies a file, with its mode, and makes the folder that the copy is in.
pub fn copy_file(file: &Path, place: &Path) -> Result<()> {
    make_folder(place.parent().context("a file is in a folder")?)?;
    fs::copy(file, place).with_context(|| format!("cannot copy {} to {}", file.display(), place.display()))?;
    Ok(())
}
