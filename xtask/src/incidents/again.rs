//! What failed while the machine stood still is played again.
//!
//! A story that waits for timeouts of seconds in real time measures to the tick. A cause that is wrong stays wrong when it is
//! played again; what a stop of the machine has torn apart does not.

use std::time::Duration;

use anyhow::Result;

use super::verdict::Verdict;
use crate::standstill::{NOTICEABLE, again};

/// How often at most.
const MOST: usize = 5;

/// Plays until it passes or nothing but itself can be why it fails.
pub fn if_it_stood_still(name: &str, play: impl Fn() -> Result<Verdict>) -> Result<Verdict> {
    // A story that could not be played is over: only what was played and found wrong is a failure here.
    let failing = || match play() {
        Ok(verdict) if !verdict.passed() => Err(verdict),
        over => Ok(over),
    };
    let tell = |verdict: &Verdict, still: Duration| {
        eprintln!(
            "     Playing {name} again: this machine stood still for {} ms, and\n{}",
            still.as_millis(),
            verdict.explanation().trim_end()
        );
    };
    again(MOST, NOTICEABLE, failing, tell).unwrap_or_else(Ok)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::incidents::verdict::Layer;

    fn failing() -> Verdict {
        let mut verdict = Verdict::default();
        verdict.problem(Layer::Cause, "another cause", None);
        verdict
    }

    #[test]
    fn what_passes_is_played_once() {
        let played = Cell::new(0);
        let verdict = if_it_stood_still("it", || {
            played.set(played.get() + 1);
            Ok(Verdict::default())
        });
        assert!(verdict.unwrap().passed());
        assert_eq!(played.get(), 1);
    }

    #[test]
    fn what_always_fails_fails_in_the_end() {
        let played = Cell::new(0);
        let verdict = if_it_stood_still("it", || {
            played.set(played.get() + 1);
            Ok(failing())
        });
        assert!(!verdict.unwrap().passed());
        assert!((1..=1 + MOST).contains(&played.get()));
    }

    /// How often something is played that fails each time.
    fn played(most: usize, least: Duration) -> usize {
        let (mut played, mut told) = (0, 0);
        let failing = || -> Result<(), ()> {
            played += 1;
            Err(())
        };
        assert_eq!(again(most, least, failing, |(), _| told += 1), Err(()));
        assert_eq!(told, played - 1, "each that was played again, and not the last");
        played
    }

    #[test]
    fn it_is_played_again_as_often_as_allowed_and_only_after_a_standstill() {
        assert_eq!(played(3, Duration::ZERO), 4);
        assert_eq!(played(3, Duration::MAX), 1);
        assert_eq!(played(0, Duration::ZERO), 1);
    }
}
