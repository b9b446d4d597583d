//! How far in time the pipeline has come, which is not what the clock says.
//!
//! An answer that did not come within its time proves something: a RST arrived, or its sender is not on this node. On a
//! busy node the answer may well have come and lie in the queue, or in the ring buffer while the reader is not given a
//! CPU. So time passes with the records, and without any only as long as was waited for them in vain: after a standstill
//! the reader is given its turn.

use std::time::Duration;

/// CLOCK_BOOTTIME as far as records have come, nanoseconds.
#[derive(Debug, Default)]
pub struct Progress {
    now_ns: u64,
}

impl Progress {
    /// A record with this stamp was taken. Those of several CPUs may come a little out of order.
    pub fn record(&mut self, boot_ns: u64) {
        self.now_ns = self.now_ns.max(boot_ns);
    }

    /// Nothing came for as long as this, and the clock says `boot_ns`.
    pub fn nothing(&mut self, waited: Duration, boot_ns: u64) {
        let waited = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.now_ns = self.now_ns.saturating_add(waited).min(boot_ns).max(self.now_ns);
    }

    /// What must have come by now is not younger than this.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_long_queue_is_no_long_wait() {
        let mut progress = Progress::default();
        progress.record(1000 * MS);
        progress.record(1001 * MS);
        assert_eq!(progress.now_ns(), 1001 * MS, "although the clock may say 2000");
        progress.record(1000 * MS);
        assert_eq!(progress.now_ns(), 1001 * MS, "time does not go back");
    }

    #[test]
    fn a_standstill_counts_as_what_was_meant_to_be_waited() {
        let mut progress = Progress::default();
        progress.record(1000 * MS);
        progress.nothing(Duration::from_millis(20), 9000 * MS);
        assert_eq!(progress.now_ns(), 1020 * MS);
        progress.record(8999 * MS);
        assert_eq!(progress.now_ns(), 8999 * MS);
    }

    #[test]
    fn without_records_time_passes_as_far_as_the_clock() {
        let mut progress = Progress::default();
        progress.record(1000 * MS);
        for _ in 0..10 {
            progress.nothing(Duration::from_millis(20), 1090 * MS);
        }
        assert_eq!(progress.now_ns(), 1090 * MS);
    }
}
