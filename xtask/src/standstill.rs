//! How long this machine stood still: the host of a virtual machine that has no time for it stops it for tens of
//! milliseconds, and its ticks with it. What is to happen within a few milliseconds of something else is then late, through
//! nobody's fault.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// From here on a test that wants two things within a few ticks may have missed that.
pub const NOTICEABLE: Duration = Duration::from_millis(20);

/// How often the watch looks; what is shorter is not seen.
const BEAT: Duration = Duration::from_millis(10);

/// Plays, and as often as `most` times again while it fails and the machine stood still for at least `least` meanwhile. Each
/// failure that is played again is told with the time of the standstill; the last result counts.
pub fn again<T, E>(
    most: usize,
    least: Duration,
    mut play: impl FnMut() -> Result<T, E>,
    mut tell: impl FnMut(&E, Duration),
) -> Result<T, E> {
    for _ in 0..most {
        let watch = Watch::start();
        let result = play();
        let still = watch.longest();
        match &result {
            Err(failure) if still >= least => tell(failure, still),
            _ => return result,
        }
    }
    play()
}

/// Looks at the time, from its start until it is dropped.
struct Watch {
    longest_ns: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Watch {
    /// Starts to look, in a thread of its own.
    fn start() -> Self {
        let watch = Self { longest_ns: Arc::default(), over: Arc::default() };
        let (longest_ns, over) = (Arc::clone(&watch.longest_ns), Arc::clone(&watch.over));
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                thread::sleep(BEAT);
                let late = start.elapsed().saturating_sub(BEAT);
                longest_ns.fetch_max(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        watch
    }

    /// The longest time so far for which this thread was not let run although it was its turn.
    fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest_ns.load(Ordering::Relaxed))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
