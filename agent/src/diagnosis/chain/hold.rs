//! Lines that wait a moment for what they may lead to.
//!
//! A failed connect comes before the close that it leads to, and its line has to name that. So a line of a process that may
//! be a proxy waits, by the clock of the records; what belongs to nobody leaves at once.

use std::collections::BTreeMap;

use super::recent::StepId;
use crate::diagnosis::{Diagnosed, join::PATIENCE_NS};

/// How many entries may wait. In a storm the oldest waits no longer than there is room.
pub(super) const MOST: usize = 2048;

/// One event, or both ends of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The lines in the order in which they are written, each with what is remembered of it.
    pub lines: Vec<(Diagnosed, Option<StepId>)>,
    /// What the connection was ended for, as the lines were judged.
    pub because: Option<StepId>,
}

impl Held {
    /// What is remembered of the lines.
    pub fn steps(&self) -> Vec<StepId> {
        self.lines.iter().filter_map(|(_, step)| *step).collect()
    }
}

/// The lines that wait, by the time of their event.
#[derive(Debug, Default)]
pub struct Hold {
    next: u64,
    held: BTreeMap<(u64, u64), Held>,
}

impl Hold {
    /// Takes lines in.
    pub fn push(&mut self, held: Held) {
        let Some(first_ns) = held.lines.iter().map(|(line, _)| line.event.boot_ns).min() else { return };
        // What nothing is remembered of has nothing to wait for.
        let due_ns = if held.steps().is_empty() { 0 } else { first_ns.saturating_add(PATIENCE_NS) };
        self.held.insert((due_ns, self.next), held);
        self.next += 1;
    }

    /// The next lines that have waited long enough at `boot_ns`.
    pub fn due(&mut self, boot_ns: u64) -> Option<Held> {
        let (&(due_ns, _), _) = self.held.first_key_value()?;
        if self.held.len() <= MOST && due_ns > boot_ns {
            return None;
        }
        self.held.pop_first().map(|(_, held)| held)
    }
}
