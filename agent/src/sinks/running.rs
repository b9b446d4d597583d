//! A sink's threads, and how they are asked to do something else than to take lines.

use std::{
    fmt::Display,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What the threads of one sink are told.
#[derive(Debug, Default)]
pub struct Orders {
    end_by: Mutex<Option<Instant>>,
    changed: Condvar,
    reopen: AtomicBool,
}

impl Orders {
    /// The sink has to end by then: whatever it cannot hand on is left, or counted.
    pub fn end_by(&self, deadline: Instant) {
        *self.end_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        self.changed.notify_all();
    }

    /// When the sink has to have ended, if it has to.
    pub fn deadline(&self) -> Option<Instant> {
        *self.end_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the time to end has come.
    pub fn is_over(&self) -> bool {
        self.deadline().is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits; less if the sink has to end.
    pub fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut end_by = self.end_by.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let until = end_by.map_or(until, |deadline| until.min(deadline));
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return;
            };
            end_by = self.changed.wait_timeout(end_by, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for so long, or until the sink is told to end by any time: whether it was.
    pub fn pause_or_end(&self, time: Duration) -> bool {
        let end_by = self.end_by.lock().unwrap_or_else(PoisonError::into_inner);
        let told = self.changed.wait_timeout_while(end_by, time, |end_by| end_by.is_none());
        told.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    /// The sink has to open its file again, as logrotate asks for after it moved the old one.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// Whether it has to, once.
    pub fn take_reopen(&self) -> bool {
        self.reopen.swap(false, Ordering::Relaxed)
    }
}

/// A sink that runs.
#[derive(Debug)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// For its threads.
    pub orders: std::sync::Arc<Orders>,
    /// They end when the pipeline has dropped its end and everything was handed on.
    pub threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Waits until its threads have ended, but not much longer than they were told to take.
    ///
    /// # Errors
    ///
    /// If they have not; the name of the sink.
    pub fn wait(self) -> Result<(), String> {
        const SLACK: Duration = Duration::from_millis(500);
        loop {
            if self.threads.iter().all(JoinHandle::is_finished) {
                return Ok(());
            }
            if self.orders.deadline().is_some_and(|deadline| Instant::now() > deadline + SLACK) {
                return Err(self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What goes well or not with one sink, said in the agent's own log: when it changes, and every few minutes while it does
/// not.
#[derive(Debug)]
pub struct Health {
    name: String,
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    since: Instant,
    said: Instant,
    what: String,
}

const REPEAT: Duration = Duration::from_secs(300);

impl Health {
    /// Of the sink with this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), trouble: None }
    }

    /// Something goes wrong, and this is said once.
    pub fn say(&self, what: impl Display) {
        tracing::warn!(sink = self.name, "{what}");
    }

    /// Something else than trouble.
    pub fn tell(&self, what: impl Display) {
        tracing::info!(sink = self.name, "{what}");
    }

    /// Something fails; the same trouble is said again only after a while.
    pub fn fails(&mut self, what: &str) {
        let now = Instant::now();
        match &mut self.trouble {
            Some(trouble) if trouble.what == what && trouble.said.elapsed() < REPEAT => return,
            Some(trouble) => {
                trouble.said = now;
                what.clone_into(&mut trouble.what);
            }
            None => self.trouble = Some(Trouble { since: now, said: now, what: what.to_owned() }),
        }
        self.say(what);
    }

    /// It works, perhaps again.
    pub fn works(&mut self) {
        if let Some(trouble) = self.trouble.take() {
            self.tell(format_args!("works again after {:.1} s", trouble.since.elapsed().as_secs_f64()));
        }
    }
}
