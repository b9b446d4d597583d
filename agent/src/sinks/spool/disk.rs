//! Everything the spool changes on the disk goes through here, so that a test can let any of it fail, or play it back up
//! to any moment at which the agent could have been killed.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// The changes. Reads need no such door: they are repeated, or end in a checksum.
pub trait Disk: Send {
    /// Makes the folder and its parents.
    ///
    /// # Errors
    ///
    /// If that cannot be done, as for each of the following.
    fn create_folder(&mut self, folder: &Path) -> io::Result<()>;

    /// Opens a file for reading and writing, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// See [`Self::create_folder`].
    fn open(&mut self, path: &Path) -> io::Result<File>;

    /// Writes all of `bytes` at `offset`. After an error any part of them may be there.
    ///
    /// # Errors
    ///
    /// See [`Self::create_folder`].
    fn write_at(&mut self, path: &Path, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts a file.
    ///
    /// # Errors
    ///
    /// See [`Self::create_folder`].
    fn truncate(&mut self, path: &Path, file: &File, length: u64) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// See [`Self::create_folder`].
    fn remove(&mut self, path: &Path) -> io::Result<()>;

    /// Waits until the file's data is on the medium (fdatasync).
    ///
    /// # Errors
    ///
    /// See [`Self::create_folder`].
    fn sync(&mut self, file: &File) -> io::Result<()>;
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystem;

impl Disk for FileSystem {
    fn create_folder(&mut self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)
    }

    fn open(&mut self, path: &Path) -> io::Result<File> {
        // Lines name processes and addresses: nobody else's business.
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
    }

    fn write_at(&mut self, _path: &Path, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn truncate(&mut self, _path: &Path, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}
