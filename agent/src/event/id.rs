//! The `id` of a line: unique, and the same wherever and however often the line arrives.
//!
//! Delivery is at least once, so a receiver has to be able to tell a line that came twice from two alike. An id is
//! `BOOT-START-NUMBER`: the node's boot id (a random UUID that the kernel makes at each boot), when this agent started
//! (CLOCK_BOOTTIME, nanoseconds, hexadecimal), and how many lines it had made before. No state has to survive the agent for
//! that: a second agent of the same boot has started at another moment. A random UUID in each line would do as well, but says
//! nothing; this one names the boot and the run that a line is from, and its number shows in which order lines were made and
//! whether one is missing.

use std::fs;

use crate::kernel::clock;

/// Gives ids.
#[derive(Debug)]
pub struct LineIds {
    run: String,
    next: u64,
}

impl LineIds {
    /// For an agent that starts now.
    #[must_use]
    pub fn of_this_run() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot: String = boot.chars().filter(char::is_ascii_hexdigit).collect();
        // Where /proc does not show it, as random a number.
        let boot = if boot.len() == 32 { boot } else { format!("{:032x}", fastrand::u128(..)) };
        Self { run: format!("{boot}-{:x}", clock::boot_ns()), next: 0 }
    }

    /// The next id.
    pub fn give(&mut self) -> String {
        let number = self.next;
        self.next += 1;
        format!("{}-{number}", self.run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lines_of_two_agents_of_one_boot_have_the_same_id() {
        let (mut first, mut second) = (LineIds::of_this_run(), LineIds::of_this_run());
        let ids = [first.give(), first.give(), second.give(), second.give()];
        let boot = |id: &str| id.split('-').next().map(str::to_owned);
        assert!(ids.iter().all(|id| boot(id) == boot(&ids[0])), "{ids:?}");
        let mut unique = ids.to_vec();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), 4, "{ids:?}");
        assert!(ids[0].ends_with("-0") && ids[1].ends_with("-1"), "{ids:?}");
    }
}
