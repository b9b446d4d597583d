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

/// Ends that look for each other.
#[derive(Debug, Default)]
pub struct Join {
    receivers: Waiting,
    senders: Waiting,
    /// Senders that have waited in vain: a receiver that comes too late still learns from its sender.
    told: Waiting,
    sees_every_sender: bool,
}

impl Join {
    /// `sees_every_sender` tells whether every RST that this node's sockets and closed ports send comes here.
    #[must_use]
    pub fn new(sees_every_sender: bool) -> Self {
        Self { sees_every_sender, ..Self::default() }
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
        let patience = if self.is_certain(&receiver.event) { CERTAIN_PATIENCE_NS } else { PATIENCE_NS };
        self.receivers.push(receiver, patience);
        None
    }

    /// Takes the sending end: with its receiver if that came first, else it waits.
    pub fn sent(&mut self, sender: End) -> Option<Pair> {
        match self.receivers.take(&sender, |receiver| is_one_reset(&sender.event, &receiver.event)) {
            Some(receiver) => Some(Pair { sender, receiver, sender_is_told: false }),
            None => {
                self.senders.push(sender, PATIENCE_NS);
                None
            }
        }
    }

    /// The next end that has waited in vain at `boot_ns`.
    pub fn expired(&mut self, boot_ns: u64) -> Option<Expired> {
        while self.told.expired(boot_ns).is_some() {}
        if let Some((end, _)) = self.senders.expired(boot_ns) {
            self.told.push(end.clone(), CERTAIN_PATIENCE_NS);
            return Some(Expired { end, sender_missing: false });
        }
        let (end, waited) = self.receivers.expired(boot_ns)?;
        let sender_missing = waited && self.is_certain(&end.event);
        Some(Expired { end, sender_missing })
    }

    /// Whether the sender of what was received there is one that is seen.
    fn is_certain(&self, receiver: &Event) -> bool {
        self.sees_every_sender && is_own_address(receiver)
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

/// Whether the peer's address is certainly this node's own, so that a sender of this node's kernel would have been seen.
fn is_own_address(event: &Event) -> bool {
    event.peer.ip.is_loopback() || event.peer.ip == event.local.ip
}
