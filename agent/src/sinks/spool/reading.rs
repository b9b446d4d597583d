//! Reading a spool in order, from the disk and then from memory.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{
    Loss, Spool,
    recover::Segment,
    segment::{HEADER, next},
};

/// Where the last read ended, so that the next one need not look for it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    segment: u64,
    number: u64,
    offset: usize,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub number: u64,
    /// What was appended.
    pub bytes: Vec<u8>,
}

/// How much to read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Records.
    pub records: usize,
    /// Bytes; a single record may have more.
    pub bytes: usize,
}

impl Spool {
    /// The records from `number` on, or from the first behind it that there is. Empty if there is none.
    ///
    /// # Errors
    ///
    /// If a segment cannot be read.
    pub fn read(&mut self, number: u64, most: Most) -> io::Result<Vec<Record>> {
        let mut taken = Taken { records: Vec::new(), bytes: 0, most, is_full: false };
        let mut index = 0;
        while let Some(segment) = self.segments.get(index) {
            if segment.end > number && !taken.is_full {
                let end = self.read_segment(index, number, &mut taken)?;
                self.note_damage(index, &end);
            }
            index += 1;
        }
        for (sequence, record) in self.tail.iter().filter(|(sequence, _)| *sequence >= number) {
            if !taken.take(*sequence, record) {
                break;
            }
        }
        Ok(taken.records)
    }

    /// The gaps that it met.
    fn read_segment(&mut self, index: usize, number: u64, taken: &mut Taken) -> io::Result<Vec<std::ops::Range<u64>>> {
        let segment = &self.segments[index];
        let resumed = self.position.segment == segment.first
            && self.position.number == number
            && (HEADER..=segment.bytes as usize).contains(&self.position.offset);
        let (mut expected, mut offset) = if resumed { (number, self.position.offset) } else { (segment.first, HEADER) };
        let bytes = contents(segment, offset)?;
        let start = offset;
        let mut gaps = Vec::new();
        while expected < segment.end {
            let Some(found) = next(&bytes, offset - start, &(expected..segment.end)) else {
                gaps.push(expected..segment.end);
                break;
            };
            if found.sequence > expected {
                gaps.push(expected..found.sequence);
            }
            if found.sequence >= number && !taken.take(found.sequence, found.payload) {
                break;
            }
            expected = found.sequence + 1;
            offset = start + found.next;
            self.position = Position { segment: segment.first, number: expected, offset };
        }
        Ok(gaps)
    }

    /// Counts damage that was not there when the agent started.
    fn note_damage(&mut self, index: usize, gaps: &[std::ops::Range<u64>]) {
        let Some(segment) = self.segments.get_mut(index) else { return };
        for gap in gaps {
            let known = |number: &u64| segment.gaps.iter().any(|known| known.contains(number));
            let fresh =
                gap.clone().filter(|number| *number >= self.state.acknowledged && !known(number)).count() as u64;
            if fresh > 0 {
                self.state.lost[Loss::Damaged as usize] += fresh;
                self.is_counting = true;
                segment.gaps.push(gap.clone());
            }
        }
    }
}

struct Taken {
    records: Vec<Record>,
    bytes: usize,
    most: Most,
    /// What has no room ends it, even if something shorter behind it had.
    is_full: bool,
}

impl Taken {
    /// False if there is no room for it.
    fn take(&mut self, number: u64, bytes: &[u8]) -> bool {
        let fits = self.records.is_empty() || self.bytes + bytes.len() <= self.most.bytes;
        if self.is_full || !fits || self.records.len() >= self.most.records {
            self.is_full = true;
            return false;
        }
        self.bytes += bytes.len();
        self.records.push(Record { number, bytes: bytes.to_vec() });
        true
    }
}

/// A segment's bytes from `offset` on; those of a file that became shorter are missing.
fn contents(segment: &Segment, offset: usize) -> io::Result<Vec<u8>> {
    let file = File::open(&segment.path)?;
    let mut bytes = vec![0; (segment.bytes as usize).saturating_sub(offset)];
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], (offset + read) as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}
