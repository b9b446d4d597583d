//! The kernel side stamps events with CLOCK_BOOTTIME, which no adjustment of the time of day can turn back.

/// How often the two clocks are read for one comparison: the reading that was interrupted least counts.
const READINGS: usize = 3;

/// CLOCK_REALTIME − CLOCK_BOOTTIME: what to add to an event's stamp.
///
/// It changes only when the time of day is set, because what slows or speeds the one clock does the same to the other. But it
/// cannot be read at once, and each comparison is as wrong as it took long. So one that says the same within that changes
/// nothing: two lines are as far apart as their events were.
#[derive(Debug)]
pub struct WallClock {
    known: Comparison,
}

/// What was read of both clocks.
#[derive(Clone, Copy, Debug)]
struct Comparison {
    /// CLOCK_REALTIME less CLOCK_BOOTTIME, nanoseconds.
    offset_ns: i128,
    /// By how much that can be wrong either way.
    error_ns: i128,
}

impl Default for WallClock {
    fn default() -> Self {
        Self { known: Comparison::make() }
    }
}

impl WallClock {
    /// What to add to a stamp of CLOCK_BOOTTIME now, in nanoseconds.
    pub fn offset_ns(&mut self) -> i128 {
        self.take(Comparison::make())
    }

    fn take(&mut self, new: Comparison) -> i128 {
        if (new.offset_ns - self.known.offset_ns).abs() > new.error_ns + self.known.error_ns {
            self.known = new;
        }
        self.known.offset_ns
    }
}

impl Comparison {
    fn make() -> Self {
        let reading = |_| {
            let before = now_ns(libc::CLOCK_BOOTTIME);
            let real = now_ns(libc::CLOCK_REALTIME);
            let after = now_ns(libc::CLOCK_BOOTTIME);
            // Each clock is read in steps of its own: a nanosecond more either way.
            Self { offset_ns: real - (before + after) / 2, error_ns: (after - before) / 2 + 2 }
        };
        let first = reading(0);
        (1..READINGS).map(reading).fold(first, |best, next| if next.error_ns < best.error_ns { next } else { best })
    }
}

/// CLOCK_BOOTTIME in nanoseconds.
#[must_use]
pub fn boot_ns() -> u64 {
    u64::try_from(now_ns(libc::CLOCK_BOOTTIME)).unwrap_or(0)
}

fn now_ns(clock: libc::clockid_t) -> i128 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result. The call cannot fail for these two clocks.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn comparison(offset_ns: i128, error_ns: i128) -> Comparison {
        Comparison { offset_ns, error_ns }
    }

    /// An agent that lost the processor between reading the one clock and the other made two lines seem 40 µs further apart.
    #[test]
    fn a_comparison_that_took_long_moves_no_line() {
        let mut clock = WallClock { known: comparison(1_000_000, 50) };
        assert_eq!(clock.take(comparison(1_040_000, 45_000)), 1_000_000);
        assert_eq!(clock.take(comparison(1_000_090, 45)), 1_000_000);
    }

    #[test]
    fn a_time_of_day_that_was_set_counts_from_then_on() {
        let mut clock = WallClock { known: comparison(1_000_000, 50) };
        assert_eq!(clock.take(comparison(-7_000_000, 60)), -7_000_000);
        assert_eq!(clock.take(comparison(-7_000_010, 60)), -7_000_000);
    }

    #[test]
    fn the_sum_is_the_time_of_day() {
        let offset_ns = WallClock::default().offset_ns();
        let before = now_ns(libc::CLOCK_REALTIME);
        let stamp = i128::from(boot_ns()) + offset_ns;
        let after = now_ns(libc::CLOCK_REALTIME);
        let error_ns = 10_000_000;
        assert!((before - error_ns..=after + error_ns).contains(&stamp), "{before} {stamp} {after}");
    }
}
