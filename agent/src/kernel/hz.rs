//! The length of a tick, measured.
//!
//! CONFIG_HZ is not `sysconf(_SC_CLK_TCK)`, which is 100 everywhere, and Debian's kernels have no `/proc/config.gz`. So
//! a program reads (jiffies, CLOCK_MONOTONIC) at two moments when jiffies just moved, and the ratio is rounded to a
//! value kernels are built with.

use std::time::Duration;

/// What `kernel/Kconfig.hz` offers, so nearly every kernel. They lie 17 % apart or more.
const USUAL: [u32; 4] = [100, 250, 300, 1000];
/// What other architectures and patched kernels have. Only believed from a long measurement: 256 is close to 250.
const ODD: [u32; 8] = [24, 48, 128, 200, 256, 500, 512, 1024];

/// How sharp an edge has to be: the two samples around it must not be further apart.
const SHARP_NS: u64 = 700_000;

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
    for (window, odd) in [(150_u64, false), (500, false), (2000, true)] {
        let start = edge(&mut sample, &mut pause).map_err(HzError::Sample)?;
        pause(Duration::from_millis(window));
        let end = edge(&mut sample, &mut pause).map_err(HzError::Sample)?;
        let (ticks, ns) = (end.jiffies - start.jiffies, end.ns - start.ns);
        let odd = if odd { nearest(&ODD, 0.005, ticks, ns) } else { None };
        if let Some(hz) = odd.or_else(|| nearest(&USUAL, 0.01, ticks, ns)) {
            return Ok(hz);
        }
        last = (ticks, ns / 1_000_000);
    }
    Err(HzError::Unclear { ticks: last.0, ms: last.1 })
}

/// The first sample after jiffies moved. Where this thread lost its CPU around that moment, the next such moment counts:
/// an edge seen 3 ms late would make 256 of 250.
fn edge<E>(sample: &mut impl FnMut() -> Result<Sample, E>, pause: &mut impl FnMut(Duration)) -> Result<Sample, E> {
    let mut before = sample()?;
    let mut blurred = 0;
    loop {
        let now = sample()?;
        if now.jiffies != before.jiffies {
            let sharp = now.jiffies - before.jiffies == 1 && now.ns - before.ns <= SHARP_NS;
            // On a machine that never gets there the result has to prove itself by its value.
            if sharp || blurred == 100 {
                return Ok(now);
            }
            blurred += 1;
        }
        before = now;
        pause(Duration::from_micros(100));
    }
}

/// The one of `known` within `tolerance` (a fraction) of the ratio.
fn nearest(known: &[u32], tolerance: f64, ticks: u64, ns: u64) -> Option<u32> {
    if ns == 0 {
        return None;
    }
    let measured = ticks as f64 * 1e9 / ns as f64;
    known.iter().copied().find(|hz| (f64::from(*hz) - measured).abs() <= f64::from(*hz) * tolerance)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible};

    use super::*;

    /// A machine whose tick has this length, whose every sample takes 20 µs, and which loses its CPU for `stall_ns`
    /// around every `every`th sample.
    fn measured(hz: u64, stall_ns: u64, every: u64) -> u32 {
        let now = Cell::new(3_000_000_u64);
        let samples = Cell::new(0_u64);
        measure(
            || {
                samples.set(samples.get() + 1);
                let stalled = if samples.get().is_multiple_of(every) { stall_ns } else { 0 };
                now.set(now.get() + 20_000 + stalled);
                Ok::<_, Infallible>(Sample { jiffies: 4_294_892_296 + now.get() * hz / 1_000_000_000, ns: now.get() })
            },
            |time| now.set(now.get() + time.as_nanos() as u64),
        )
        .unwrap()
    }

    #[test]
    fn every_hz_is_told_from_its_neighbours() {
        for hz in USUAL.into_iter().chain(ODD) {
            assert_eq!(measured(hz.into(), 0, 1), hz);
        }
    }

    #[test]
    fn a_busy_machine_does_not_make_256_of_250() {
        for stall_ms in [1, 3, 5, 9, 30] {
            for every in [2, 3, 5, 7, 20] {
                assert_eq!(measured(250, stall_ms * 1_000_000, every), 250, "{stall_ms} ms every {every} samples");
            }
        }
    }

    #[test]
    fn a_ratio_that_fits_nothing_is_refused() {
        assert_eq!(nearest(&USUAL, 0.01, 70, 1_000_000_000), None);
        assert_eq!(nearest(&USUAL, 0.01, 0, 0), None);
    }
}
