//! Both ends of one connection on this node.
//!
//! On loopback the receiver's event comes before the sender's for a RST that its owner sends by itself, and after it
//! for an answer. So either waits. They are paired by sequence numbers, which survive address translation.

mod numbers;
#[cfg(test)]
mod tests;
mod waiting;

use super::{cause::Cause, chain::recent::StepId};
use crate::event::{Event, party::Owner};
use numbers::Numbers;
pub use numbers::connection_id;
use waiting::Waiting;

/// How long an end waits for the other, nanoseconds. It takes microseconds; a virtual CPU that loses its core in between
/// can take many milliseconds.
pub const PATIENCE_NS: u64 = 100_000_000;
/// The same for an end whose other end certainly is on this node and is seen there. If it is not, that means something
/// (a firewall), so a sender that lost its CPU between the sending and the tracepoint behind it must not be missed.
pub const CERTAIN_PATIENCE_NS: u64 = 1_000_000_000;

/// One end that waits for the other.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// What happened there.
    pub event: Event,
    /// Whose it is.
    pub owner: Owner,
    /// Why, of the end that sent the reset, as far as can be told without the other end.
    pub cause: Option<Cause>,
    /// What is remembered of it.
    pub step: Option<StepId>,
}

/// Both ends of one reset.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The end that sent it.
    pub sender: End,
    /// The end that received it.
    pub receiver: End,
    /// The sender waited in vain, and its line has been told.
    pub sender_is_told: bool,
}

/// An end that no longer waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Expired {
    /// The end.
    pub end: End,
    /// It certainly has no sender on this node: it waited as long as one that is there can take.
    pub sender_missing: bool,
}

/// Which resets that this node's sockets and closed ports send come here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Some.
    #[default]
    Some,
    /// Those of the connections that are asked for, by their addresses: worth waiting for. One that is missing may have other
    /// addresses, where they are translated.
    AskedFor,
    /// All since that time (CLOCK_BOOTTIME, nanoseconds). One that is missing means something.
    AllSince(u64),
}

/// Ends that look for each other.
#[derive(Debug, Default)]
pub struct Join {
    receivers: Waiting,
    /// Those whose sender is one that is seen.
    certain: Waiting,
    senders: Waiting,
    /// Senders that have waited in vain: a receiver that comes too late still learns from its sender.
    told: Waiting,
    seen: Seen,
    /// Up to when everything has come, and it is known what was lost.
    complete_until_ns: u64,
}

impl Join {
    /// Where these senders are seen.
    #[must_use]
    pub fn new(seen: Seen) -> Self {
        Self { seen, ..Self::default() }
    }

    /// Everything that happened before has come, but for what [`Self::lost`] was told.
    pub fn complete(&mut self, until_ns: u64) {
        self.complete_until_ns = self.complete_until_ns.max(until_ns);
    }

    /// Events were lost before that time: one of them may be the sender of whoever received about then.
    pub fn lost(&mut self, until_ns: u64) {
        if let Seen::AllSince(since) = &mut self.seen {
            *since = (*since).max(until_ns.saturating_add(CERTAIN_PATIENCE_NS));
        }
    }

    /// Takes the receiving end: with its sender if that came first, else it waits.
    pub fn received(&mut self, receiver: End) -> Option<Pair> {
        let fits = |sender: &End| is_one_reset(&sender.event, &receiver.event);
        if let Some(sender) = self.senders.take(&receiver, fits) {
            return Some(Pair { sender, receiver, sender_is_told: false });
        }
        if let Some(sender) = self.told.take(&receiver, fits) {
            return Some(Pair { sender, receiver, sender_is_told: true });
        }
        if self.has_a_seen_sender(&receiver.event) {
            self.certain.push(receiver, CERTAIN_PATIENCE_NS);
        } else {
            self.receivers.push(receiver, PATIENCE_NS);
        }
        None
    }

    /// Takes the sending end: with its receiver if that came first, else it waits.
    pub fn sent(&mut self, sender: End) -> Option<Pair> {
        let fits = |receiver: &End| is_one_reset(&sender.event, &receiver.event);
        match self.receivers.take(&sender, fits).or_else(|| self.certain.take(&sender, fits)) {
            Some(receiver) => Some(Pair { sender, receiver, sender_is_told: false }),
            None => {
                self.senders.push(sender, PATIENCE_NS);
                None
            }
        }
    }

    /// The next end that has waited in vain at `boot_ns`. That a sender is missing is not said before it is known that all
    /// has come which was not lost.
    pub fn expired(&mut self, boot_ns: u64) -> Option<Expired> {
        while self.told.expired(boot_ns).is_some() {}
        if let Some((end, _)) = self.senders.expired(boot_ns) {
            self.told.push(end.clone(), CERTAIN_PATIENCE_NS);
            return Some(Expired { end, sender_missing: false });
        }
        if let Some((end, _)) = self.receivers.expired(boot_ns) {
            return Some(Expired { end, sender_missing: false });
        }
        let (end, waited) = self.certain.expired(boot_ns.min(self.complete_until_ns))?;
        let sender_missing = waited && matches!(self.seen, Seen::AllSince(since) if end.event.boot_ns > since);
        Some(Expired { end, sender_missing })
    }

    /// The next end that waits, whether or not it has waited in vain: nothing more will come.
    pub fn left(&mut self) -> Option<Expired> {
        let not_missing = |(end, _)| Expired { end, sender_missing: false };
        self.expired(u64::MAX).or_else(|| self.certain.expired(u64::MAX).map(not_missing))
    }

    /// Whether the sender of what was received there is one that is seen.
    fn has_a_seen_sender(&self, receiver: &Event) -> bool {
        self.seen != Seen::Some && is_own_address(receiver)
    }
}

/// Whether the two events are both ends of the same reset.
fn is_one_reset(sender: &Event, receiver: &Event) -> bool {
    let (Some(ours), Some(theirs)) = (Numbers::of_sender(sender), Numbers::of_receiver(receiver)) else { return false };
    // The receiver may have sent more since the segment that was answered; then the addresses have to agree.
    ours.expects == theirs.expects
        && (ours.sends == theirs.sends || (sender.local, sender.peer) == (receiver.peer, receiver.local))
        && sender.boot_ns.abs_diff(receiver.boot_ns) <= CERTAIN_PATIENCE_NS
}

/// Whether the peer's address is this node's own, so that a sender of this node's kernel would have been seen. (One that is
/// translated is another's: a NodePort may lead to any node.)
fn is_own_address(event: &Event) -> bool {
    event.backend.is_none() && (event.peer.ip.is_loopback() || event.peer.ip == event.local.ip)
}
