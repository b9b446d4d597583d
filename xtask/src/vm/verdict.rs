//! What a guest says last: PID 1 writes it, and whoever started QEMU reads it. A guest that says nothing has failed.

use std::fmt;

/// The kernel's taint bit for "a WARN happened".
const WARNED: u64 = 1 << 9;

const MARK: &str = "rstscope-guest-verdict";

/// How the tests ended, and what the kernel thought of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The tests' exit status.
    pub status: i32,
    /// `/proc/sys/kernel/tainted`.
    pub taint: u64,
    /// Seconds since the kernel started.
    pub uptime: u64,
}

impl Verdict {
    /// Why this is a failure, if it is one.
    pub fn complaint(&self) -> Option<String> {
        if self.status != 0 {
            return Some(format!("the tests ended with status {}", self.status));
        }
        (self.taint & WARNED != 0).then(|| "the kernel warned about itself (WARN), see its console".to_owned())
    }

    /// Finds the verdict in what a guest wrote.
    pub fn find(output: &str) -> Option<Self> {
        let line = output.lines().rev().find_map(|line| line.trim().strip_prefix(MARK))?;
        let mut numbers = line.split_whitespace();
        Some(Self {
            status: numbers.next()?.parse().ok()?,
            taint: numbers.next()?.parse().ok()?,
            uptime: numbers.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{MARK} {} {} {}", self.status, self.taint, self.uptime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Verdict = Verdict { status: 0, taint: 8192, uptime: 61 };

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Verdict::find(&format!("test a ... ok\r\n{GOOD}\r\n")), Some(GOOD));
        assert_eq!(Verdict::find("test a ... ok\n"), None);
        assert_eq!(Verdict::find("rstscope-guest-verdict 0 x"), None);
    }

    #[test]
    fn an_unsigned_module_is_no_complaint_and_a_warning_is() {
        assert_eq!(GOOD.complaint(), None);
        assert!(Verdict { taint: 8192 | WARNED, ..GOOD }.complaint().is_some());
        assert!(Verdict { status: 101, ..GOOD }.complaint().is_some());
    }
}
