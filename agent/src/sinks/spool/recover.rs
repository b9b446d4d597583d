//! What is on the disk when the agent starts: which records are whole, and what happened to the others.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::segment::{HEADER, VERSION, is_complete, next, version};

/// The end of a segment's name.
const SUFFIX: &str = ".segment";

/// A file of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it is.
    pub path: PathBuf,
    /// Number of its first record.
    pub first: u64,
    /// Number after its last one.
    pub end: u64,
    /// Bytes up to there.
    pub bytes: u64,
    /// Records in between that are damaged.
    pub gaps: Vec<std::ops::Range<u64>>,
}

impl Segment {
    /// A new one, without a record.
    #[must_use]
    pub fn new(folder: &Path, first: u64) -> Self {
        let path = folder.join(format!("{first:020}{SUFFIX}"));
        Self { path, first, end: first, bytes: 0, gaps: Vec::new() }
    }

    /// Whole records from `number` on.
    #[must_use]
    pub fn records_from(&self, number: u64) -> u64 {
        let from = number.clamp(self.first, self.end);
        let damaged = |gap: &std::ops::Range<u64>| gap.end.saturating_sub(gap.start.max(from));
        (self.end - from).saturating_sub(self.gaps.iter().map(damaged).sum())
    }

    /// What it takes on the disk: whole blocks.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.next_multiple_of(4096)
    }
}

/// What was found, for one sentence in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records that wait for delivery.
    pub waiting: u64,
    /// Records that are damaged and were not delivered.
    pub damaged: u64,
    /// Records whose segment had been dropped when the agent was killed, before that was written down.
    pub missing: u64,
    /// Bytes of a write that the end of the agent, or of the node, cut off: they were never taken for safe.
    pub torn_bytes: u64,
}

impl Recovery {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged == 0 && self.missing == 0 && self.torn_bytes == 0
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} lines wait for delivery", self.waiting)?;
        if self.torn_bytes > 0 {
            write!(formatter, "; {} bytes of an unfinished write cut off", self.torn_bytes)?;
        }
        if self.damaged > 0 {
            write!(formatter, "; {} lines damaged on the disk and left out", self.damaged)?;
        }
        if self.missing > 0 {
            write!(formatter, "; {} lines dropped by the agent before, when the spool was full", self.missing)?;
        }
        Ok(())
    }
}

/// The last segment's bytes behind its last record, to be cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Torn {
    /// How many.
    pub bytes: u64,
    /// Whether a complete record stood there.
    pub was_complete: bool,
}

/// Reads every segment, oldest first.
///
/// # Errors
///
/// If the folder or a segment cannot be read, or was written by a newer rstscope.
pub fn segments(folder: &Path) -> io::Result<(Vec<Segment>, Torn)> {
    let mut found = listed(folder)?;
    found.sort_by_key(|segment| segment.first);
    let mut torn = Torn::default();
    for index in 0..found.len() {
        let until = found.get(index + 1).map(|segment| segment.first);
        torn = fill(&mut found[index], until)?;
    }
    Ok((found, torn))
}

fn listed(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|name| name.parse().ok());
        found.extend(number.map(|first| Segment::new(folder, first)));
    }
    Ok(found)
}

/// Finds the records of a segment; `until` is the first number of the next one.
fn fill(segment: &mut Segment, until: Option<u64>) -> io::Result<Torn> {
    let bytes = fs::read(&segment.path)?;
    if let Some(other) = version(&bytes).filter(|version| *version != VERSION) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} has form {other} and this rstscope knows form {VERSION}; run the newer one again until it is empty, \
                 or remove the folder",
                segment.path.display()
            ),
        ));
    }
    // Without a whole header the records can still tell themselves.
    let mut offset = HEADER.min(bytes.len());
    while let Some(record) = next(&bytes, offset, &(segment.end..until.unwrap_or(u64::MAX))) {
        if record.sequence > segment.end {
            segment.gaps.push(segment.end..record.sequence);
        }
        segment.end = record.sequence + 1;
        offset = record.next;
    }
    segment.bytes = offset as u64;
    let rest = &bytes[offset..];
    let torn = Torn { bytes: rest.len() as u64, was_complete: is_complete(rest) };
    if let Some(until) = until.filter(|until| torn.bytes > 0 && *until > segment.end) {
        segment.gaps.push(segment.end..until);
        segment.end = until;
    }
    Ok(torn)
}
