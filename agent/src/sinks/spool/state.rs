//! How far the records were acknowledged and what was lost: two slots that are written in turn.
//!
//! A write that is cut off damages its own slot; the other still has what was true before. The slots are written in place,
//! so that a full disk does not stop acknowledgements. Losing the newest slot costs duplicates, never records.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{Loss, disk::Disk};

/// The name of the file in the spool's folder.
pub const FILE: &str = "state";
/// Each slot in a sector of its own.
const SLOT: u64 = 512;
const WORDS: usize = 2 + 2 * Loss::ALL.len();
const BYTES: usize = WORDS * 8 + 4;

/// What has to outlive the agent beside the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Everything below was delivered or lost.
    pub acknowledged: u64,
    /// Records lost since the spool was made, by [`Loss`].
    pub lost: [u64; Loss::ALL.len()],
    /// How many of them somebody was told about.
    pub reported: [u64; Loss::ALL.len()],
}

/// The file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    file: Option<File>,
    generation: u64,
}

impl StateFile {
    /// Reads the newest whole slot; `None` if there is none.
    #[must_use]
    pub fn read(folder: &Path) -> (Self, Option<State>) {
        let path = folder.join(FILE);
        let bytes = std::fs::read(&path).unwrap_or_default();
        let slots = [0, SLOT as usize].map(|offset| bytes.get(offset..offset + BYTES).and_then(decode));
        let newest = slots.into_iter().flatten().max_by_key(|(generation, _)| *generation);
        let (generation, state) = newest.map_or((0, None), |(generation, state)| (generation, Some(state)));
        (Self { path, file: None, generation }, state)
    }

    /// Writes the slot that is not the newest.
    ///
    /// # Errors
    ///
    /// If the file cannot be made or written.
    pub fn write(&mut self, disk: &mut dyn Disk, state: &State) -> io::Result<()> {
        let generation = self.generation + 1;
        let file = match self.file.take() {
            Some(file) => file,
            None => disk.open(&self.path)?,
        };
        let written = disk.write_at(&self.path, &file, generation % 2 * SLOT, &encode(generation, state));
        self.file = Some(file);
        written?;
        self.generation = generation;
        Ok(())
    }

    /// Waits until it is on the medium.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub fn sync(&self, disk: &mut dyn Disk) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| disk.sync(file))
    }
}

fn encode(generation: u64, state: &State) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let words = [generation, state.acknowledged].into_iter().chain(state.lost).chain(state.reported);
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let checksum = crc32fast::hash(&bytes[..WORDS * 8]);
    bytes[WORDS * 8..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, State)> {
    let (words, checksum) = bytes.split_at_checked(WORDS * 8)?;
    if checksum != crc32fast::hash(words).to_le_bytes() {
        return None;
    }
    let mut words = words.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
    let mut word = || words.next().unwrap_or(0);
    let (generation, acknowledged) = (word(), word());
    let lost = std::array::from_fn(|_| word());
    let reported = std::array::from_fn(|_| word());
    // A file of zeros has the checksum of zeros.
    (generation > 0).then_some((generation, State { acknowledged, lost, reported }))
}
