//! The form of a segment: a header, then records one after the other.

use std::ops::Range;

/// The first bytes of every segment: a name, and the version of the form.
const MAGIC: [u8; 12] = *b"rstspool\x01\0\0\0";
/// Magic, number of the first record, checksum of both.
pub const HEADER: usize = MAGIC.len() + 8 + 4;
/// Length, checksum, number.
pub const RECORD_HEADER: usize = 4 + 4 + 8;
/// The longest record. A line of rstscope has a few kilobytes; Loki takes 256 KB.
pub const LONGEST: usize = 256 * 1024;

/// The header of the segment that begins with this record.
#[must_use]
pub fn header(first: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let (checked, checksum) = header.split_at_mut(HEADER - 4);
    checked[..MAGIC.len()].copy_from_slice(&MAGIC);
    checked[MAGIC.len()..].copy_from_slice(&first.to_le_bytes());
    checksum.copy_from_slice(&crc32fast::hash(checked).to_le_bytes());
    header
}

/// The version of the form that a segment says it has, if its header is whole.
#[must_use]
pub fn version(bytes: &[u8]) -> Option<u32> {
    let header = bytes.get(..HEADER)?;
    let (checked, checksum) = header.split_at(HEADER - 4);
    let whole = checked.starts_with(&MAGIC[..8]) && checksum == crc32fast::hash(checked).to_le_bytes();
    whole.then(|| u32_at(checked, 8))
}

/// The version that this program writes.
pub const VERSION: u32 = 1;

/// Appends a record to `bytes`.
pub fn encode(sequence: u64, payload: &[u8], bytes: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    bytes.extend(length);
    bytes.extend(checksum(length, sequence, payload).to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(payload);
}

/// With the length and the number in it, a record is right only where it was written.
fn checksum(length: [u8; 4], sequence: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(&sequence.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// A record as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Its number.
    pub sequence: u64,
    /// What it holds.
    pub payload: &'a [u8],
    /// Where the next one begins.
    pub next: usize,
    /// Bytes before it that were no record: something damaged them.
    pub skipped: usize,
}

/// The first whole record from `offset` on with a number among `numbers`. Damage costs the records that it hit, not those
/// behind them: their numbers and checksums are found again byte by byte.
#[must_use]
pub fn next<'a>(bytes: &'a [u8], offset: usize, numbers: &Range<u64>) -> Option<Found<'a>> {
    // No more records than bytes: what says otherwise is not a number.
    let room = (bytes.len().saturating_sub(offset) / (RECORD_HEADER + 1)) as u64;
    let numbers = numbers.start..numbers.end.min(numbers.start.saturating_add(room).saturating_add(1));
    (offset..bytes.len()).find_map(|start| {
        let (sequence, payload) = record(bytes.get(start..)?, &numbers)?;
        let next = start + RECORD_HEADER + payload.len();
        Some(Found { sequence, payload, next, skipped: start - offset })
    })
}

fn record<'a>(bytes: &'a [u8], numbers: &Range<u64>) -> Option<(u64, &'a [u8])> {
    let length = claimed_length(bytes)?;
    let payload = bytes.get(RECORD_HEADER..RECORD_HEADER + length)?;
    let sequence = u64::from_le_bytes(bytes[8..RECORD_HEADER].try_into().ok()?);
    let sound =
        numbers.contains(&sequence) && u32_at(bytes, 4) == checksum(bytes[..4].try_into().ok()?, sequence, payload);
    sound.then_some((sequence, payload))
}

/// Whether a complete record stood here that is damaged now, rather than the beginning of one that was never finished.
#[must_use]
pub fn is_complete(bytes: &[u8]) -> bool {
    claimed_length(bytes).is_some_and(|length| bytes.len() >= RECORD_HEADER + length)
}

fn claimed_length(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < RECORD_HEADER {
        return None;
    }
    Some(u32_at(bytes, 0) as usize).filter(|length| (1..=LONGEST).contains(length))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(value)
}
