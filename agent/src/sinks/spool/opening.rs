//! Opening a spool: the lock, what is on the disk, and where to go on.

use std::{
    collections::VecDeque,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use super::{
    Limits, Loss, Spool,
    disk::Disk,
    recover::{self, Recovery},
    state::{State, StateFile},
};

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two agents, or two sinks, would deliver each other's lines.
    #[error("the spool {0} is in use by another sink or agent; give each its own folder")]
    InUse(PathBuf),
    /// The disk refused.
    #[error("cannot use the spool {path}: {error}")]
    Disk {
        /// The folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl Spool {
    /// Opens the spool in `folder`, or makes it.
    ///
    /// # Errors
    ///
    /// If it is in use, or the disk cannot be read or written.
    pub fn open(folder: &Path, limits: Limits, mut disk: Box<dyn Disk>) -> Result<(Self, Recovery), OpenError> {
        let failed = |error| OpenError::Disk { path: folder.to_owned(), error };
        disk.create_folder(folder).map_err(failed)?;
        let lock = lock(folder, &mut *disk)?;
        let (segments, torn) = recover::segments(folder).map_err(failed)?;
        let (state_file, state) = StateFile::read(folder);
        // Without a state nobody knows what was delivered; nothing is claimed to be lost.
        let first = segments.first().map_or(0, |segment| segment.first);
        let state = state.unwrap_or(State { acknowledged: first, ..State::default() });
        let mut spool = Self::in_memory(limits);
        spool.disk = disk;
        spool.folder = Some(folder.to_owned());
        spool.lock = Some(lock);
        spool.next = segments.last().map_or(0, |segment| segment.end).max(state.acknowledged);
        spool.segments = VecDeque::from(segments);
        spool.state = state;
        spool.state_file = Some(state_file);
        let recovery = spool.take_stock(torn);
        Ok((spool, recovery))
    }

    /// Counts what is damaged or missing, cuts off what was never finished, forgets what was delivered.
    fn take_stock(&mut self, torn: recover::Torn) -> Recovery {
        let mut recovery = Recovery::default();
        let acknowledged = self.state.acknowledged;
        if let Some(first) = self.segments.front().map(|segment| segment.first) {
            recovery.missing = first.saturating_sub(acknowledged);
        }
        let gaps = self.segments.iter().flat_map(|segment| &segment.gaps);
        recovery.damaged = gaps.map(|gap| gap.end.saturating_sub(gap.start.max(acknowledged))).sum();
        if torn.was_complete {
            recovery.damaged += 1;
            // Its number was given; another record must not get it.
            self.next += 1;
        }
        recovery.torn_bytes = torn.bytes;
        self.state.lost[Loss::Full as usize] += recovery.missing;
        self.state.lost[Loss::Damaged as usize] += recovery.damaged;
        if let Some(last) = self.segments.back().filter(|_| torn.bytes > 0) {
            // Where it cannot be cut off it is skipped, and said again at the next start.
            if let Ok(file) = self.disk.open(&last.path) {
                let _skipped = self.disk.truncate(&last.path, &file, last.bytes);
            }
        }
        while self.segments.front().is_some_and(|segment| segment.end <= acknowledged || segment.first == segment.end) {
            self.remove_oldest();
        }
        // What was counted now is not counted again.
        self.pass_what_is_gone(0);
        let _counted_again = self.write_state();
        recovery.waiting = self.waiting();
        recovery
    }
}

fn lock(folder: &Path, disk: &mut dyn Disk) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let failed = |error| OpenError::Disk { path: folder.to_owned(), error };
    let file = disk.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
