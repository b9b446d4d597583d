//! How each source fares, and where it says so.

use std::sync::{Arc, Mutex, MutexGuard};

use serde::Serialize;

use super::{failure::Failure, store::SOURCES};
use crate::event::party::Source;

/// How a source fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Health {
    /// Nobody asks it.
    #[default]
    Off,
    /// It was asked and has not answered yet.
    Waiting,
    /// It answers.
    Answers {
        /// The pods of this node that it knows.
        pods: usize,
        /// Entries of its answer that make no sense and are left out.
        #[serde(skip_serializing_if = "is_none")]
        left_out: usize,
        /// What it does not tell, and why.
        #[serde(skip_serializing_if = "Option::is_none")]
        lacks: Option<String>,
    },
    /// It does not answer; what it said before stays known for a while.
    Fails {
        /// Why.
        what: String,
        /// What helps.
        remedy: String,
    },
}

impl Health {
    /// Whether it is worth a line: it has begun to answer or has ceased to, and not just learned of another pod.
    #[must_use]
    pub fn differs_from(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Answers { .. }, Self::Answers { .. }) | (Self::Fails { .. }, Self::Fails { .. }) => false,
            _ => before != self,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

/// How all of them fare.
#[derive(Debug, Default)]
pub struct Healths(Mutex<[Health; SOURCES.len()]>);

impl Healths {
    /// Each with its source.
    #[must_use]
    pub fn all(&self) -> [(Source, Health); SOURCES.len()] {
        let healths = self.lock().clone();
        std::array::from_fn(|index| (SOURCES[index], healths[index].clone()))
    }

    /// Whether somebody who may know a name yet unknown is being asked.
    #[must_use]
    pub fn any_may_learn(&self) -> bool {
        self.lock().iter().any(|health| matches!(health, Health::Waiting | Health::Answers { .. }))
    }

    fn lock(&self) -> MutexGuard<'_, [Health; SOURCES.len()]> {
        self.0.lock().expect("nobody panics with the lock")
    }
}

/// Where one source says how it fares.
pub struct Report {
    healths: Arc<Healths>,
    source: Source,
}

impl Report {
    /// For one source.
    pub fn new(healths: &Arc<Healths>, source: Source) -> Self {
        Self { healths: healths.clone(), source }
    }

    /// Whose it is.
    pub const fn source(&self) -> Source {
        self.source
    }

    /// It is being asked.
    pub fn asked(&self) {
        self.say(Health::Waiting);
    }

    /// It has answered, and knows so many pods.
    pub fn answered(&self, pods: usize) {
        self.say(Health::Answers { pods, left_out: 0, lacks: None });
    }

    /// It does not answer as it should.
    pub fn failed(&self, failure: Failure) {
        self.say(Health::Fails { what: failure.what, remedy: failure.remedy });
    }

    /// It has neither answered nor failed yet.
    pub fn is_waiting(&self) -> bool {
        self.healths.lock()[self.source as usize] == Health::Waiting
    }

    /// How it fares from now on.
    pub fn say(&self, health: Health) {
        let mut healths = self.healths.lock();
        let before = std::mem::replace(&mut healths[self.source as usize], health);
        let now = &healths[self.source as usize];
        if now.differs_from(&before) {
            // The lines tell it as well, to whoever reads those.
            tracing::debug!(source = self.source.name(), health = ?now, "a source of pods' names fares differently");
        }
    }

    /// Somebody better answers.
    pub fn is_spare(&self) -> bool {
        let health = self.healths.lock();
        health[..self.source as usize].iter().any(|health| matches!(health, Health::Answers { .. }))
    }
}
