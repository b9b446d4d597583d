//! A file of JSON lines that rotates by itself, or lets logrotate do it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant, SystemTime},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    account::Account,
    filter::Filter,
    fsync::Fsync,
    outputs::Line,
    running::Running,
    writer::{self, Place},
};
use crate::settings::units::{Size, Time};

/// A file of JSON lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// The file; its folder is made if there is none.
    pub path: PathBuf,
    /// Rotate before it gets larger than this.
    #[serde(default = "default_rotate_bytes")]
    pub rotate_bytes: Size,
    /// Rotate when its first line is this old; by default never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_after: Option<Time>,
    /// How many rotated files stay, as PATH.1 (the newest) to PATH.N; 0 leaves rotating to logrotate and SIGHUP.
    #[serde(default = "default_keep")]
    pub keep: u32,
    /// When to wait until it is on the medium.
    #[serde(default)]
    pub fsync: Fsync,
    /// Which lines.
    #[serde(default)]
    pub filter: Filter,
}

fn default_rotate_bytes() -> Size {
    Size(64 << 20)
}

fn default_keep() -> u32 {
    5
}

/// After a rotation that failed, as in a folder that turned read-only, the next try.
const ROTATE_AGAIN: Duration = Duration::from_secs(60);

/// Starts the sink.
///
/// # Errors
///
/// If the system has no thread for it.
pub fn start(
    name: &str,
    settings: &FileSettings,
    predecessor: Option<Running>,
    lines: Receiver<Line>,
    account: Arc<Account>,
) -> io::Result<Running> {
    let settings = settings.clone();
    writer::start(name, predecessor, lines, account, move || {
        let path = settings.path.clone();
        RotatingFile::open(settings)
            .map(|file| Box::new(file) as Box<dyn Place>)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display())))
    })
}

/// The file that is written to.
struct RotatingFile {
    settings: FileSettings,
    file: File,
    bytes: u64,
    /// When its first line was written.
    since: SystemTime,
    rotate_not_before: Option<Instant>,
    unsynced: bool,
    synced: Instant,
}

impl RotatingFile {
    fn open(settings: FileSettings) -> io::Result<Self> {
        if let Some(folder) = settings.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        let (file, bytes) = append_to(&settings.path)?;
        let since = file.metadata()?.created().unwrap_or_else(|_| SystemTime::now());
        Ok(Self { settings, file, bytes, since, rotate_not_before: None, unsynced: false, synced: Instant::now() })
    }

    fn is_due(&self, bytes: usize) -> bool {
        if self.settings.keep == 0
            || self.bytes == 0
            || self.rotate_not_before.is_some_and(|time| Instant::now() < time)
        {
            return false;
        }
        let old =
            self.settings.rotate_after.is_some_and(|Time(most)| self.since.elapsed().is_ok_and(|age| age >= most));
        old || (bytes > 0 && self.bytes + bytes as u64 > self.settings.rotate_bytes.0)
    }

    /// PATH becomes PATH.1, PATH.1 becomes PATH.2, and the last one goes.
    fn rotate(&mut self) -> io::Result<()> {
        self.rotate_not_before = Some(Instant::now() + ROTATE_AGAIN);
        for number in (1..self.settings.keep).rev() {
            rename(&self.numbered(number), &self.numbered(number + 1))?;
        }
        rename(&self.settings.path, &self.numbered(1))?;
        self.take_up()?;
        self.rotate_not_before = None;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.settings.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Goes on with what has the path now.
    fn take_up(&mut self) -> io::Result<()> {
        self.sync_now()?;
        (self.file, self.bytes) = append_to(&self.settings.path)?;
        self.since = SystemTime::now();
        Ok(())
    }

    fn sync_now(&mut self) -> io::Result<()> {
        if self.unsynced && self.settings.fsync != Fsync::Never {
            self.file.sync_data()?;
            self.synced = Instant::now();
        }
        self.unsynced = false;
        Ok(())
    }
}

/// Opens for appending; a line that an agent was killed in the middle of gets its end.
fn append_to(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
    let mut bytes = file.seek(SeekFrom::End(0))?;
    // A pipe or a device has no last byte to look at.
    if bytes > 0 && file.seek(SeekFrom::End(-1)).is_ok() {
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            bytes += 1;
        }
    }
    Ok((file, bytes))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

impl Place for RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes += count as u64;
        self.unsynced = true;
        Ok(count)
    }

    fn between_lines(&mut self, bytes: usize) -> io::Result<()> {
        if self.is_due(bytes) {
            self.rotate()?;
        }
        match self.settings.fsync {
            Fsync::Always => self.sync_now(),
            Fsync::Every(Time(pause)) if self.synced.elapsed() >= pause => self.sync_now(),
            Fsync::Every(_) | Fsync::Never => Ok(()),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.take_up()
    }

    fn end(&mut self) -> io::Result<()> {
        self.sync_now()
    }
}

#[cfg(test)]
mod tests;
