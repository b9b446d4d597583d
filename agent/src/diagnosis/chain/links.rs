//! The chain of a line: what it follows from and what it leads to, from connection to connection.
//!
//! A reset has up to two ends on this node. The proxy at the sending end sent it because of another connection, and the
//! proxy at the receiving end ends another one because of it; so the way goes from end to end and from connection to
//! connection, over as many proxies as there are on this node.

use super::recent::{Before, Recent, StepId};
use crate::{
    diagnosis::cause::Confidence,
    event::{
        Millis,
        link::{End, Link, Relation},
    },
};

/// How many links a line has at most in either direction: more proxies than that are hardly on one node.
const MOST: usize = 4;

/// The links of a line about these ends, those that it follows from first, each the nearest first.
#[must_use]
pub fn links(recent: &Recent, ends: &[StepId]) -> Vec<Link> {
    let mut links = backward(recent, ends);
    links.extend(forward(recent, ends));
    links
}

/// Where a walk is.
struct Place {
    ends: Vec<StepId>,
    /// The weakest link on the way.
    confidence: Confidence,
    /// How long it took.
    after: Millis,
    seen: Vec<StepId>,
}

impl Place {
    fn start(ends: &[StepId]) -> Self {
        Self { ends: ends.to_vec(), confidence: Confidence::Certain, after: Millis(0.0), seen: ends.to_vec() }
    }

    /// Goes on to another connection; `None` if it was there before.
    fn go(&mut self, recent: &Recent, next: StepId, link: &Before<'_>) -> Option<()> {
        if self.seen.contains(&next) {
            return None;
        }
        self.ends = std::iter::once(next).chain(recent.twin(next)).collect();
        self.seen.extend(&self.ends);
        self.confidence = self.confidence.min(link.confidence);
        self.after = Millis(self.after.0 + link.ago.0);
        Some(())
    }

    fn link(&self, recent: &Recent, relation: Relation, id: StepId) -> Option<Link> {
        let step = recent.step(id)?;
        let (far_owner, far_netns) = step.far.clone().unwrap_or_default();
        Some(Link {
            relation,
            what: step.what,
            time: step.time,
            cause: step.cause.map(|cause| cause.name()),
            connection: step.connection.clone(),
            age: step.age,
            local: End { endpoint: step.local, owner: step.owner.clone(), netns: step.netns },
            peer: End { endpoint: step.peer, owner: far_owner, netns: far_netns },
            after: self.after,
            confidence: self.confidence.name(),
        })
    }
}

fn backward(recent: &Recent, ends: &[StepId]) -> Vec<Link> {
    let mut place = Place::start(ends);
    let next = || {
        let before = place.ends.iter().find_map(|id| recent.before(*id))?;
        place.go(recent, before.id, &before)?;
        place.link(recent, Relation::FollowsFrom, before.id)
    };
    std::iter::from_fn(next).take(MOST).collect()
}

fn forward(recent: &Recent, ends: &[StepId]) -> Vec<Link> {
    let mut place = Place::start(ends);
    let next = || {
        let after = place.ends.iter().find_map(|id| recent.after(*id))?;
        place.go(recent, after, &recent.before(after)?)?;
        place.link(recent, Relation::LeadsTo, after)
    };
    std::iter::from_fn(next).take(MOST).collect()
}
