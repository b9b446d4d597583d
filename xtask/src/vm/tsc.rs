//! The rate of this machine's time stamp counter, which is a guest's as well: QEMU passes it on as it is.
//!
//! A kernel counts it against a timer that QEMU emulates while it starts. If QEMU loses its CPU between the start of that
//! timer and the first look at the counter, the kernel finds a rate that is too low, and a guest was seen whose clock ran
//! 15 times too fast: patience of two minutes was over in eight seconds. So a guest is told (`tsc_early_khz`, Linux 5.8).

use std::{
    thread,
    time::{Duration, Instant},
};

/// Between the two looks at both clocks.
const APART: Duration = Duration::from_millis(200);

/// How often both clocks are read for one look: the pair that was read in the shortest time counts.
const READINGS: usize = 50;

/// Ticks in a millisecond, measured; `None` on a machine that has no such counter.
pub fn khz() -> Option<u64> {
    let (first, first_ticks) = look()?;
    thread::sleep(APART);
    let (last, last_ticks) = look()?;
    let nanoseconds = last.duration_since(first).as_nanos();
    u64::try_from(u128::from(last_ticks.saturating_sub(first_ticks)) * 1_000_000 / nanoseconds).ok()
}

/// Both clocks at nearly the same moment.
fn look() -> Option<(Instant, u64)> {
    let reading = || {
        let before = Instant::now();
        let ticks = ticks()?;
        Some((before.elapsed(), before, ticks))
    };
    let readings: Option<Vec<_>> = (0..READINGS).map(|_| reading()).collect();
    let (_, at, ticks) = readings?.into_iter().min_by_key(|(took, ..)| *took)?;
    Some((at, ticks))
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> Option<u64> {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets every process use it unless that process asked for
    // the contrary (PR_SET_TSC).
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
const fn ticks() -> Option<u64> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree_to_one_in_a_hundred() {
        let (first, second) = (khz().unwrap(), khz().unwrap());
        assert!(first > 100_000, "{first} kHz");
        assert!(first.abs_diff(second) * 100 < first, "{first} and {second} kHz");
    }
}
