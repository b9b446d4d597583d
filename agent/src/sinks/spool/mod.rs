//! The bounded disk spool behind each network sink: append, read in order, acknowledge, recover.
//!
//! # Promise
//!
//! At least once, in order. A record that [`Spool::commit`] took is read again and again, also by the next agent, until it
//! is acknowledged. It is given up only when the bound is hit (oldest first), when the disk damaged it, or when the disk
//! takes no more and the memory for that is full; each such record is counted under its [`Loss`], once, also over restarts.
//! One that is given up while a request with it waits for its answer is told as lost only if that answer is no success: it may
//! have arrived (see [`Spool::in_flight`]).
//!
//! # On the disk
//!
//! A folder for each sink:
//!
//! - `NUMBER.segment`: records from this number on. A header of 24 bytes (`rstspool`, version u32, number of the first
//!   record u64, CRC-32 of these), then records: length u32, CRC-32 of length, number and payload, number u64, payload. All
//!   numbers little-endian. A segment ends at 1 MiB; a new agent begins a new one. The number in each record makes damage
//!   cost no more than what it hit, and its count exact.
//! - `state`: up to which number everything was delivered or lost, and the counts of losses, twice (see [`state`]).
//! - `lock`: held while an agent uses the folder.
//!
//! Deleting goes by whole segments: the oldest one when all of it is acknowledged, or when the bound is hit.
//!
//! # When data is on the medium
//!
//! A record is in the kernel's hands after `commit`, one write for all that came since the last one. From then on the death
//! of the agent cannot lose it. The death of the node can, until fdatasync: by default that is called once a second for
//! everything written since ([`Fsync::Every`]), because it takes 1 to 50 ms and wears flash whether it covers one record or a
//! thousand; a node that dies takes its last second along, most of which was delivered by then. [`Fsync::Always`] calls it in
//! each commit. Acknowledgements are only waited for before a segment is deleted: to lose one costs a duplicate.
//!
//! # A disk that fails
//!
//! What cannot be written stays in memory, up to a bound, is delivered from there, and is written once the disk takes it.
//! Reading, acknowledging and deleting go on, and a full disk has room again when something was delivered.

pub mod disk;
mod opening;
mod reading;
pub mod recover;
pub mod segment;
pub mod state;
#[cfg(test)]
mod tests;
mod writing;

use std::{
    collections::VecDeque,
    fs::File,
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use self::{
    disk::Disk,
    reading::Position,
    recover::Segment,
    segment::{HEADER, LONGEST, RECORD_HEADER},
    state::{State, StateFile},
};
pub use self::{
    opening::OpenError,
    reading::{Most, Record},
};

/// The usual size of a segment.
pub const SEGMENT_BYTES: u64 = 1 << 20;
/// The least bound on the disk: room for a few segments, so that to drop the oldest is to drop little.
pub const LEAST_DISK_BYTES: u64 = 8 * SEGMENT_BYTES;
/// The least bound in memory: room for the longest records between two commits.
pub const LEAST_MEMORY_BYTES: usize = 4 * LONGEST;

/// When to wait for the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Never: the kernel writes within half a minute or so.
    Never,
    /// In the first commit after this time.
    Every(Duration),
    /// In each commit.
    Always,
}

/// Bounds and policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on the disk; see [`LEAST_DISK_BYTES`].
    pub disk_bytes: u64,
    /// A segment takes no more records from this size on; see [`SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// Bytes in memory, while the disk takes nothing; see [`LEAST_MEMORY_BYTES`].
    pub memory_bytes: usize,
    /// When to wait for the medium.
    pub fsync: Fsync,
}

/// Why records were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The bound was hit: the oldest segment was dropped.
    Full,
    /// The disk had damaged them.
    Damaged,
    /// The disk could not be written and the memory for that was full: the oldest in memory were dropped.
    Unwritable,
}

impl Loss {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Full, Self::Damaged, Self::Unwritable];

    /// The cause that a `lost` line names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "spool_full",
            Self::Damaged => "spool_damaged",
            Self::Unwritable => "spool_unwritable",
        }
    }
}

/// A record that is too long for any sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of {0} bytes is longer than the spool takes ({LONGEST})")]
pub struct TooLong(pub usize);

/// See the module.
pub struct Spool {
    disk: Box<dyn Disk>,
    /// None: nothing is written, see [`Spool::in_memory`].
    folder: Option<PathBuf>,
    limits: Limits,
    /// Held as long as this lives.
    lock: Option<File>,
    segments: VecDeque<Segment>,
    /// The last segment, if this agent began it and the last write to it left nothing behind.
    writing: Option<File>,
    /// Appended and not written.
    tail: VecDeque<(u64, Vec<u8>)>,
    tail_bytes: usize,
    /// Number of the next record.
    next: u64,
    state: State,
    state_file: Option<StateFile>,
    /// Something was counted that is not written down yet.
    is_counting: bool,
    /// Records below this number are on their way, in a request that nobody answered yet.
    in_flight: u64,
    /// So many of these were given up meanwhile. They are among the lost, and not told yet.
    in_doubt: [u64; Loss::ALL.len()],
    position: Position,
    unsynced: bool,
    synced: Instant,
}

impl Spool {
    /// A spool without a disk, for when there is none that can be used.
    #[must_use]
    pub fn in_memory(limits: Limits) -> Self {
        Self {
            disk: Box::new(disk::FileSystem),
            folder: None,
            limits,
            lock: None,
            segments: VecDeque::new(),
            writing: None,
            tail: VecDeque::new(),
            tail_bytes: 0,
            next: 0,
            state: State::default(),
            state_file: None,
            is_counting: false,
            in_flight: 0,
            in_doubt: [0; Loss::ALL.len()],
            position: Position::default(),
            unsynced: false,
            synced: Instant::now(),
        }
    }

    /// Takes a record into memory and gives it a number.
    ///
    /// # Errors
    ///
    /// If it is too long.
    pub fn append(&mut self, record: &[u8]) -> Result<u64, TooLong> {
        if record.is_empty() || record.len() > LONGEST {
            return Err(TooLong(record.len()));
        }
        while self.tail_bytes + record.len() > self.limits.memory_bytes && self.give_up_oldest_in_memory() {}
        let number = self.next;
        self.next += 1;
        self.tail_bytes += record.len();
        self.tail.push_back((number, record.to_vec()));
        Ok(number)
    }

    /// Writes what was appended, in one write for each segment, and waits for the medium if it is time to.
    ///
    /// # Errors
    ///
    /// If the disk takes it not; then it stays in memory and the next commit tries again.
    pub fn commit(&mut self, now: Instant) -> io::Result<()> {
        if self.folder.is_none() {
            return Ok(());
        }
        while !self.tail.is_empty() {
            self.write_some()?;
        }
        if self.is_counting {
            self.write_state()?;
        }
        let due = match self.limits.fsync {
            Fsync::Never => false,
            Fsync::Every(pause) => now.duration_since(self.synced) >= pause,
            Fsync::Always => true,
        };
        if due && self.unsynced {
            self.sync_writing()?;
            self.synced = now;
        }
        Ok(())
    }

    /// Says that everything below `number` is on its way to where it is delivered: until [`Self::acknowledge`] or
    /// [`Self::came_back`], what is given up of it may have arrived all the same.
    pub fn in_flight(&mut self, number: u64) {
        self.in_flight = number;
    }

    /// Says that what was on its way has to be sent again. What was given up of it meanwhile is lost.
    pub fn came_back(&mut self) {
        self.in_flight = 0;
        self.in_doubt = Default::default();
    }

    /// Says that everything below `number` was delivered, or refused for good and counted elsewhere.
    ///
    /// # Errors
    ///
    /// If that cannot be written down; it is known to this agent all the same.
    pub fn acknowledge(&mut self, number: u64) -> io::Result<()> {
        self.take_back_what_arrived();
        let number = number.min(self.next);
        if number <= self.state.acknowledged {
            return if self.is_counting { self.write_state() } else { Ok(()) };
        }
        self.state.acknowledged = number;
        while let Some((_, record)) = self.tail.pop_front_if(|(sequence, _)| *sequence < number) {
            self.tail_bytes -= record.len();
        }
        let delivered = self.segments.iter().take_while(|segment| segment.end <= number).count();
        self.pass_what_is_gone(delivered);
        let mut written = self.write_state();
        if delivered > 0 && written.is_ok() && self.limits.fsync != Fsync::Never {
            // What is deleted must not look as if it had been lost.
            written = self.sync_state();
        }
        for _ in 0..delivered {
            self.remove_oldest();
        }
        written
    }

    /// Everything below this number needs no delivery any more.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.state.acknowledged
    }

    /// The number that the next record gets.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.next
    }

    /// How many records wait for delivery.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let from = self.state.acknowledged;
        let written: u64 = self.segments.iter().map(|segment| segment.records_from(from)).sum();
        written + self.tail.iter().filter(|(number, _)| *number >= from).count() as u64
    }

    /// Whether what is committed outlives the agent.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        self.folder.is_some()
    }

    /// Bytes that the segments take on the disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(Segment::size).sum()
    }

    /// The most that they may take.
    #[must_use]
    pub fn most_disk_bytes(&self) -> u64 {
        self.limits.disk_bytes
    }

    /// Losses that nobody was told about yet, but for those that may turn out to have arrived.
    #[must_use]
    pub fn unreported(&self) -> Vec<(Loss, u64)> {
        let count = |loss: Loss| {
            let index = loss as usize;
            self.state.lost[index].saturating_sub(self.state.reported[index] + self.in_doubt[index])
        };
        Loss::ALL.into_iter().map(|loss| (loss, count(loss))).filter(|(_, count)| *count > 0).collect()
    }

    /// They were told. If that cannot be written down, the next agent tells them again.
    pub fn reported(&mut self, losses: &[(Loss, u64)]) {
        for (loss, count) in losses {
            self.state.reported[*loss as usize] += count;
        }
        if !losses.is_empty() {
            let _told_twice = self.write_state();
        }
    }
}

impl Drop for Spool {
    /// An agent that ends waits for the medium, whatever the policy but [`Fsync::Never`].
    fn drop(&mut self) {
        if self.limits.fsync != Fsync::Never && self.unsynced {
            let _as_without_fsync = self.sync_writing();
        }
    }
}

const _: () = assert!(HEADER == 24 && RECORD_HEADER == 16, "the description of the form above");
