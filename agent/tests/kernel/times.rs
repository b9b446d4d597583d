//! How long each test took: in a run of minutes one wants to know which tests they go to.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// The tests that have ended, and what each took.
#[derive(Clone, Default)]
pub struct Times(Arc<Mutex<Vec<(&'static str, Duration)>>>);

impl Times {
    /// Runs a test and notes its time, however it ends.
    pub fn measure(&self, name: &'static str, test: impl FnOnce()) {
        let _timer = Timer { times: self, name, start: Instant::now() };
        test();
    }

    /// Prints them, the longest first.
    pub fn print(&self) {
        let mut times = self.0.lock().expect("no test panics with the lock").clone();
        times.sort_by_key(|&(_, taken)| std::cmp::Reverse(taken));
        println!("seconds by test:");
        for (name, taken) in times {
            println!("{:7.2} {name}", taken.as_secs_f64());
        }
    }
}

struct Timer<'a> {
    times: &'a Times,
    name: &'static str,
    start: Instant,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.times.0.lock().expect("no test panics with the lock").push((self.name, self.start.elapsed()));
    }
}
