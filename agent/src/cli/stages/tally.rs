//! What the summary says at the end.

use std::{collections::BTreeMap, time::Duration};

use crate::event::{Event, What};

/// Counts of what was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    received: u64,
    sent: u64,
    connects: u64,
    timeouts: u64,
    /// Events that a filter by name left out.
    pub left_out: u64,
    /// What was lost, by cause.
    pub lost: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Counts a written event.
    pub fn count(&mut self, event: &Event) {
        match event.what {
            What::ResetReceived => self.received += 1,
            What::ResetSent => self.sent += 1,
            What::ConnectFailed(_) => self.connects += 1,
            What::TimedOut => self.timeouts += 1,
            What::Closed => {}
        }
    }

    /// How many lines about connections were written.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.received + self.sent + self.connects + self.timeouts
    }

    /// The summary; `filtered` counts what the filters in the kernel left out.
    #[must_use]
    pub fn summary(&self, elapsed: Duration, filtered: u64) -> String {
        let mut summary = format!(
            "rstscope: in {:.1} s: {}, {}, {}, {}",
            elapsed.as_secs_f64(),
            counted(self.received, "reset received", "resets received"),
            counted(self.sent, "reset sent", "resets sent"),
            counted(self.connects, "connect failed", "connects failed"),
            counted(self.timeouts, "connection timed out", "connections timed out"),
        );
        let left_out = self.left_out + filtered;
        if left_out > 0 {
            summary += &format!("; {left_out} left out by filters");
        }
        if self.lost.is_empty() {
            summary += "; nothing lost";
        } else {
            let lost: Vec<String> = self.lost.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
            summary += &format!("; LOST: {}", lost.join(", "));
        }
        summary
    }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_says_what_was_lost_and_left_out() {
        let mut tally = Tally { received: 1, sent: 2, left_out: 3, ..Tally::default() };
        let quiet = tally.summary(Duration::from_millis(1500), 4);
        assert_eq!(
            quiet,
            "rstscope: in 1.5 s: 1 reset received, 2 resets sent, 0 connects failed, 0 connections timed out; 7 left \
             out by filters; nothing lost"
        );
        tally.lost.insert("ring_buffer_full", 9);
        assert!(tally.summary(Duration::ZERO, 0).ends_with("LOST: 9 ring_buffer_full"));
    }
}
