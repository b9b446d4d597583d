//! Ends that wait, each until its time has come or there is no more room.

use std::collections::{BTreeMap, HashMap};

use super::{End, Numbers};
use crate::event::Event;

/// How many of each end may wait. In a storm none waits longer than there is room.
pub const MOST: usize = 8192;

/// When an end is due, and which of those it is.
type Place = (u64, u64);

/// Ends of one kind by the time when they are due, and by the number that both ends share.
#[derive(Debug, Default)]
pub struct Waiting {
    next: u64,
    ends: BTreeMap<Place, End>,
    by_number: HashMap<u32, Vec<Place>>,
}

impl Waiting {
    /// Takes it in, for so long after its event.
    pub fn push(&mut self, end: End, patience_ns: u64) {
        let place = (end.event.boot_ns.saturating_add(patience_ns), self.next);
        self.next += 1;
        if let Some(number) = shared_number(&end.event) {
            self.by_number.entry(number).or_default().push(place);
        }
        self.ends.insert(place, end);
    }

    /// Takes out the last that came of those that fit to the other end.
    pub fn take(&mut self, other: &End, fits: impl Fn(&End) -> bool) -> Option<End> {
        let candidates = self.by_number.get(&shared_number(&other.event)?)?;
        let place = *candidates.iter().rev().find(|place| self.ends.get(place).is_some_and(&fits))?;
        self.remove(place)
    }

    /// How many wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        assert_eq!(self.ends.is_empty(), self.by_number.is_empty(), "the index keeps what has left");
        self.ends.len()
    }

    fn remove(&mut self, place: Place) -> Option<End> {
        let end = self.ends.remove(&place)?;
        if let Some(number) = shared_number(&end.event)
            && let Some(places) = self.by_number.get_mut(&number)
        {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.by_number.remove(&number);
            }
        }
        Some(end)
    }

    /// The next that is due at `boot_ns`, or has to make room, and which of both it is.
    pub fn expired(&mut self, boot_ns: u64) -> Option<(End, bool)> {
        let (&place, _) = self.ends.first_key_value()?;
        let is_due = place.0 <= boot_ns;
        if !is_due && self.ends.len() <= MOST {
            return None;
        }
        self.remove(place).map(|end| (end, is_due))
    }
}

fn shared_number(event: &Event) -> Option<u32> {
    Numbers::of(event).map(Numbers::shared)
}
