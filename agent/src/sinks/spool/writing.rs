//! Writing a spool: segments begun, filled, dropped, and the state beside them.

use std::{fs::File, io};

use super::{
    Fsync, Loss, Spool,
    recover::Segment,
    segment::{encode, header},
};

impl Spool {
    /// Writes as much of the tail as the segment takes.
    pub(super) fn write_some(&mut self) -> io::Result<()> {
        let follows =
            self.segments.back().is_some_and(|last| Some(last.end) == self.tail.front().map(|(first, _)| *first));
        let has_room = self.segments.back().is_some_and(|last| last.bytes < self.limits.segment_bytes);
        if self.writing.is_none() || !follows || !has_room {
            self.begin_segment()?;
        }
        let Some(segment) = self.segments.back() else { return Ok(()) };
        let (offset, mut bytes, mut count) = (segment.bytes, Vec::new(), 0);
        if offset == 0 {
            bytes.extend(header(segment.first));
        }
        let mut number = segment.end;
        for (sequence, record) in &self.tail {
            if *sequence != number || (count > 0 && offset + bytes.len() as u64 >= self.limits.segment_bytes) {
                break;
            }
            encode(*sequence, record, &mut bytes);
            number += 1;
            count += 1;
        }
        self.make_room(bytes.len() as u64);
        let (Some(file), Some(segment)) = (&self.writing, self.segments.back()) else { return Ok(()) };
        if let Err(error) = self.disk.write_at(&segment.path, file, offset, &bytes) {
            // A part may be there. If it cannot be cut off either, a new segment has to begin.
            if self.disk.truncate(&segment.path, file, offset).is_err() {
                self.writing = None;
            }
            return Err(error);
        }
        self.unsynced = true;
        if let Some(segment) = self.segments.back_mut() {
            segment.end = number;
            segment.bytes = offset + bytes.len() as u64;
        }
        for (_, record) in self.tail.drain(..count) {
            self.tail_bytes -= record.len();
        }
        Ok(())
    }

    pub(super) fn begin_segment(&mut self) -> io::Result<()> {
        let (Some(folder), Some((first, _))) = (&self.folder, self.tail.front()) else { return Ok(()) };
        let segment = Segment::new(folder, *first);
        if self.unsynced && self.limits.fsync != Fsync::Never {
            self.sync_writing()?;
        }
        self.writing = None;
        let empty = self.segments.pop_back_if(|last| last.first == last.end);
        if let Some(empty) = empty.filter(|empty| empty.path != segment.path) {
            let _left = self.disk.remove(&empty.path);
        }
        let file = self.disk.open(&segment.path)?;
        // Of one that could not be cut off, anything may be left.
        self.disk.truncate(&segment.path, &file, 0)?;
        self.segments.push_back(segment);
        self.writing = Some(file);
        Ok(())
    }

    /// Drops the oldest segments until `bytes` fit.
    pub(super) fn make_room(&mut self, bytes: u64) {
        let mut dropped = false;
        while self.segments.len() > 1 && self.disk_bytes() + bytes + 4096 > self.limits.disk_bytes {
            if let Some(oldest) = self.segments.front() {
                let from = self.state.acknowledged;
                let (lost, waiting) = (oldest.records_from(from), oldest.records_from(from.max(self.in_flight)));
                self.count_given_up(Loss::Full, lost, lost - waiting);
            }
            // Before the state is written: who is killed in between finds the segment missing and counts it.
            self.remove_oldest();
            dropped = true;
        }
        if dropped {
            self.pass_what_is_gone(0);
            let _counted_again = self.write_state();
        }
    }

    pub(super) fn remove_oldest(&mut self) {
        if let Some(segment) = self.segments.pop_front() {
            if self.segments.is_empty() {
                self.writing = None;
            }
            // What cannot be removed is delivered once more by the next agent.
            let _left = self.disk.remove(&segment.path);
        }
    }

    pub(super) fn give_up_oldest_in_memory(&mut self) -> bool {
        let Some((number, record)) = self.tail.pop_front() else { return false };
        self.tail_bytes -= record.len();
        if number >= self.state.acknowledged {
            self.count_given_up(Loss::Unwritable, 1, u64::from(number < self.in_flight));
        }
        self.pass_what_is_gone(0);
        true
    }

    /// Counts records as lost, so many of which are on their way. For whoever is killed before their answer comes they are.
    fn count_given_up(&mut self, loss: Loss, lost: u64, on_their_way: u64) {
        self.state.lost[loss as usize] += lost;
        self.in_doubt[loss as usize] += on_their_way;
        self.is_counting |= lost > 0;
    }

    /// What was on its way has arrived: of that, nothing was lost.
    pub(super) fn take_back_what_arrived(&mut self) {
        for (lost, arrived) in self.state.lost.iter_mut().zip(self.in_doubt) {
            *lost -= arrived;
            self.is_counting |= arrived > 0;
        }
        self.came_back();
    }

    /// Acknowledges what was counted as lost, so that the next agent does not count it again. So many segments are as good as
    /// removed.
    pub(super) fn pass_what_is_gone(&mut self, removed: usize) {
        let mut left = self.segments.iter().skip(removed).filter(|segment| segment.first < segment.end);
        let oldest = left.next().map(|segment| segment.first);
        let oldest = oldest.or_else(|| self.tail.front().map(|(number, _)| *number)).unwrap_or(self.next);
        self.state.acknowledged = self.state.acknowledged.max(oldest);
    }

    /// Waits for the medium: the last segment, and that the folder names it.
    pub(super) fn sync_writing(&mut self) -> io::Result<()> {
        if let Some(file) = &self.writing {
            self.disk.sync(file)?;
        }
        if let Some(folder) = &self.folder {
            self.disk.sync(&File::open(folder)?)?;
        }
        self.unsynced = false;
        Ok(())
    }

    pub(super) fn write_state(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.state_file {
            file.write(&mut *self.disk, &self.state)?;
        }
        self.is_counting = false;
        Ok(())
    }

    pub(super) fn sync_state(&mut self) -> io::Result<()> {
        match &self.state_file {
            Some(file) => file.sync(&mut *self.disk),
            None => Ok(()),
        }
    }
}
