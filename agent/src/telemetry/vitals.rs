//! What the stages write down about themselves while they work.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    attribution::pods::health::Healths,
    kernel::{attach::Attached, losses::Runs, plan::Hook},
};

/// The agent's vital signs.
#[derive(Debug)]
pub struct Vitals {
    started: Instant,
    /// The loop that reads the ring buffer.
    pub reader: Beat,
    /// The thread behind it.
    pub pipeline: Beat,
    /// Records that wait between the two.
    pub queue: Queue,
    /// Events that filters left out, in the kernel and in the agent.
    pub filtered: [AtomicU64; 2],
    /// Reloads of the configuration.
    pub reloads: Reloads,
    attached: OnceLock<(Vec<Hook>, u64)>,
    healths: OnceLock<Arc<Healths>>,
    programs: Mutex<Vec<(Hook, Runs)>>,
}

impl Default for Vitals {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            reader: Beat::default(),
            pipeline: Beat::default(),
            queue: Queue::default(),
            filtered: Default::default(),
            reloads: Reloads::default(),
            attached: OnceLock::new(),
            healths: OnceLock::new(),
            programs: Mutex::default(),
        }
    }
}

/// Index of [`Vitals::filtered`]: left out by the programs in the kernel.
pub const BY_KERNEL: usize = 0;
/// Index of [`Vitals::filtered`]: left out by a filter on names.
pub const BY_AGENT: usize = 1;

impl Vitals {
    /// How long the agent has been there.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The programs are attached.
    pub fn attached(&self, attached: &Attached) {
        // A second agent in one process would be a second `Vitals`.
        let _only_once = self.attached.set((attached.hooks.clone(), attached.unseen.len() as u64));
    }

    /// The hooks, and how many things this kernel does not show; once they are attached.
    #[must_use]
    pub fn hooks(&self) -> Option<(&[Hook], u64)> {
        self.attached.get().map(|(hooks, unseen)| (hooks.as_slice(), *unseen))
    }

    /// Where the sources of pods' names say how they fare.
    pub fn asks(&self, healths: Arc<Healths>) {
        let _only_once = self.healths.set(healths);
    }

    /// How they fare; nothing before they are asked.
    #[must_use]
    pub fn healths(&self) -> Option<&Healths> {
        self.healths.get().map(AsRef::as_ref)
    }

    /// What the kernel counts of each program so far.
    pub fn ran(&self, programs: Vec<(Hook, Runs)>) {
        *self.lock_programs() = programs;
    }

    /// See [`Vitals::ran`].
    #[must_use]
    pub fn programs(&self) -> Vec<(Hook, Runs)> {
        self.lock_programs().clone()
    }

    fn lock_programs(&self) -> MutexGuard<'_, Vec<(Hook, Runs)>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records between two threads.
#[derive(Debug, Default)]
pub struct Queue {
    put: AtomicU64,
    taken: AtomicU64,
}

impl Queue {
    /// One more.
    pub fn put(&self) {
        self.put.fetch_add(1, Relaxed);
    }

    /// One less.
    pub fn took(&self) {
        self.taken.fetch_add(1, Relaxed);
    }

    /// How many are in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        let taken = self.taken.load(Relaxed);
        self.put.load(Relaxed).saturating_sub(taken)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The last sign of life of a loop that never waits long.
#[derive(Debug)]
pub struct Beat {
    since: Instant,
    /// Milliseconds after `since`.
    last: AtomicU64,
}

impl Default for Beat {
    fn default() -> Self {
        Self { since: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Beat {
    /// A sign of life.
    pub fn beat(&self) {
        self.last.store(u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How long ago the last one was; since it was made, if there was none.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.since.elapsed().saturating_sub(Duration::from_millis(self.last.load(Relaxed)))
    }
}

/// Reloads of the configuration, by how they ended.
#[derive(Debug, Default)]
pub struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    was_refused: std::sync::atomic::AtomicBool,
}

impl Reloads {
    /// The configuration was read again, and taken or not.
    pub fn count(&self, is_applied: bool) {
        if is_applied { &self.applied } else { &self.refused }.fetch_add(1, Relaxed);
        self.was_refused.store(!is_applied, Relaxed);
    }

    /// How many were taken, how many not, and whether the last one was, or there was none.
    #[must_use]
    pub fn read(&self) -> (u64, u64, bool) {
        (self.applied.load(Relaxed), self.refused.load(Relaxed), !self.was_refused.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_ends_the_silence() {
        let beat = Beat { since: Instant::now() - Duration::from_secs(60), last: AtomicU64::new(0) };
        assert!(beat.silence() >= Duration::from_secs(60));
        beat.beat();
        assert!(beat.silence() < Duration::from_secs(10));
    }

    #[test]
    fn a_refused_reload_is_the_state_until_one_is_applied() {
        let reloads = Reloads::default();
        assert_eq!(reloads.read(), (0, 0, true));
        reloads.count(false);
        assert_eq!(reloads.read(), (0, 1, false));
        reloads.count(true);
        assert_eq!(reloads.read(), (1, 1, true));
    }
}
