//! The length of a tick, measured.
//!
//! CONFIG_HZ is not `sysconf(_SC_CLK_TCK)`, which is 100 everywhere, and Debian's kernels have no `/proc/config.gz`. So
//! a program reads (jiffies, CLOCK_MONOTONIC) at two moments when jiffies just moved, and the ratio is rounded to a
//! value kernels are built with.

use std::time::Duration;

/// What `CONFIG_HZ` can be: `kernel/Kconfig.hz`, and the odd ones of alpha, arm and mips.
const KNOWN: [u32; 10] = [24, 48, 100, 128, 200, 250, 256, 300, 1000, 1024];

/// Jiffies and CLOCK_MONOTONIC nanoseconds, read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Jiffies, 64 bits.
    pub jiffies: u64,
    /// Nanoseconds.
    pub ns: u64,
}

/// HZ could not be told.
#[derive(Debug, thiserror::Error)]
pub enum HzError<E> {
    /// The program could not be run.
    #[error(transparent)]
    Sample(E),
    /// The clock and jiffies do not agree with any known HZ.
    #[error(
        "the kernel's tick could not be measured ({ticks} ticks in {ms} ms fit no known HZ): the machine was too busy; \
         try again"
    )]
    Unclear {
        /// Ticks seen.
        ticks: u64,
        /// In this time.
        ms: u64,
    },
}

/// Measures HZ with `sample`; `pause` waits between two samples.
///
/// # Errors
///
/// If sampling fails, or after several attempts the ratio fits no value kernels are built with.
pub fn measure<E>(
    mut sample: impl FnMut() -> Result<Sample, E>,
    mut pause: impl FnMut(Duration),
) -> Result<u32, HzError<E>> {
    let mut last = (0, 0);
    // 100 ms tell 250 from 256 (25 ticks against 25.6) only with edges on both sides; longer on a noisy machine.
    for window in [100_u64, 400, 1500] {
        let start = edge(&mut sample, &mut pause).map_err(HzError::Sample)?;
        pause(Duration::from_millis(window));
        let end = edge(&mut sample, &mut pause).map_err(HzError::Sample)?;
        let (ticks, ns) = (end.jiffies - start.jiffies, end.ns - start.ns);
        if let Some(hz) = nearest(ticks, ns) {
            return Ok(hz);
        }
        last = (ticks, ns / 1_000_000);
    }
    Err(HzError::Unclear { ticks: last.0, ms: last.1 })
}

/// The first sample after jiffies moved.
fn edge<E>(sample: &mut impl FnMut() -> Result<Sample, E>, pause: &mut impl FnMut(Duration)) -> Result<Sample, E> {
    let first = sample()?;
    loop {
        let next = sample()?;
        if next.jiffies != first.jiffies {
            return Ok(next);
        }
        pause(Duration::from_micros(100));
    }
}

/// The known HZ within 1.5 % of the ratio.
fn nearest(ticks: u64, ns: u64) -> Option<u32> {
    if ns == 0 {
        return None;
    }
    let measured = ticks as f64 * 1e9 / ns as f64;
    let best = KNOWN
        .into_iter()
        .min_by(|a, b| (f64::from(*a) - measured).abs().total_cmp(&(f64::from(*b) - measured).abs()))?;
    ((f64::from(best) - measured).abs() <= f64::from(best) * 0.012).then_some(best)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible};

    use super::*;

    /// A machine whose tick has this length and whose every sample takes 20 µs.
    fn measured(hz: u64) -> u32 {
        let now = Cell::new(3_000_000_u64);
        measure(
            || {
                now.set(now.get() + 20_000);
                Ok::<_, Infallible>(Sample { jiffies: 4_294_892_296 + now.get() * hz / 1_000_000_000, ns: now.get() })
            },
            |time| now.set(now.get() + time.as_nanos() as u64),
        )
        .unwrap()
    }

    #[test]
    fn every_usual_hz_is_told_from_its_neighbours() {
        for hz in [100, 250, 300, 1000] {
            assert_eq!(u64::from(measured(hz)), hz);
        }
    }

    #[test]
    fn a_ratio_that_fits_nothing_is_refused() {
        assert_eq!(nearest(70, 1_000_000_000), None);
        assert_eq!(nearest(0, 0), None);
    }

    #[test]
    fn lost_and_late_ticks_are_forgiven_within_reason() {
        assert_eq!(nearest(249, 1_000_000_000), Some(250));
        assert_eq!(nearest(251, 1_001_500_000), Some(250));
    }
}
