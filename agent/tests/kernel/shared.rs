//! One agent for all tests that need nothing special of it: starting one takes longer than most of them.
//!
//! A test looks only at its own network namespace, and so does not see what others made the agent say. Whoever needs
//! flags, an agent that has just started, or its end, starts one of its own.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use crate::agent::Agent;

/// All tests are one process, and what a process went through in the last 50 ms can be the cause of what it does
/// (`diagnosis/recent.rs`): one test's resets must not explain the next one's.
const APART: Duration = Duration::from_millis(60);

static IDLE: Mutex<Option<Agent>> = Mutex::new(None);

/// The agent, lent to a test.
pub struct Shared(Option<Agent>);

impl Agent {
    /// The agent that tests share, which runs from the first one's start on. A test that fails takes it along.
    pub fn shared() -> Shared {
        let idle = idle().take();
        let mut agent = idle.unwrap_or_else(|| Self::start(&[]));
        std::thread::sleep(APART);
        agent.forget();
        Shared(Some(agent))
    }
}

impl Deref for Shared {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        self.0.as_ref().expect("there until it is given back")
    }
}

impl DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut Agent {
        self.0.as_mut().expect("there until it is given back")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            *idle() = self.0.take();
        }
    }
}

/// Stops it as Ctrl-C does, with what [`Agent::stop`] asserts of every agent.
pub fn stop() {
    let agent = idle().take();
    if let Some(agent) = agent {
        agent.stop();
    }
}

fn idle() -> MutexGuard<'static, Option<Agent>> {
    IDLE.lock().expect("no test panics with the lock")
}
