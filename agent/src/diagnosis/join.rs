//! Both ends of one connection on this node.
//!
//! On loopback the receiver's event comes before the sender's for a RST that its owner sends by itself, and after it
//! for an answer. So either may wait. They are paired by sequence numbers, which survive address translation.

use std::collections::VecDeque;

use super::{Diagnosed, cause::Cause};
use crate::event::{Endpoint, Event, What, party::Owner};

/// How long a received reset waits for its sender, nanoseconds. It takes microseconds; a virtual CPU that loses its core
/// in between can take many milliseconds.
pub const PATIENCE_NS: u64 = 100_000_000;
/// How many of each end are kept.
const MOST: usize = 8192;

/// What the two ends of one reset are found by.
#[derive(Clone, Debug, PartialEq)]
struct Numbers {
    /// Sequence numbers as the receiving end has them: the next it expects and the next it sends.
    receiver_expects: u32,
    receiver_sends: u32,
    ends: (Endpoint, Endpoint),
    boot_ns: u64,
}

/// What the end that sent a reset did.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    numbers: Numbers,
    /// Why it did.
    pub cause: Cause,
    /// Its process, if known.
    pub process: Option<String>,
}

impl Sent {
    /// The sender's side of a diagnosed reset; `None` if its sequence numbers are not known.
    #[must_use]
    pub fn of(diagnosed: &Diagnosed) -> Option<Self> {
        Some(Self {
            numbers: Numbers::of(&diagnosed.event)?,
            cause: diagnosed.cause.clone(),
            process: diagnosed.owner.process.as_ref().map(|process| process.comm.clone()),
        })
    }
}

impl Numbers {
    fn of(sent: &Event) -> Option<Self> {
        let (receiver_expects, receiver_sends) = match (&sent.facts.segment, &sent.facts.sequence) {
            // What it answers was sent by the receiver: it ends where the receiver goes on.
            (Some(segment), _) => {
                let occupied = |flag: &str| u32::from(segment.flags.split(',').any(|name| name == flag));
                let length = segment.payload_bytes + occupied("SYN") + occupied("FIN");
                (segment.acknowledgement, segment.sequence.wrapping_add(length))
            }
            (None, Some(sequence)) => (sequence.send_next, sequence.receive_next),
            (None, None) => return None,
        };
        Some(Self { receiver_expects, receiver_sends, ends: (sent.local, sent.peer), boot_ns: sent.boot_ns })
    }

    /// Whether `event` is the other end of this reset.
    fn fits(&self, event: &Event) -> bool {
        let Some(sequence) = &event.facts.sequence else { return false };
        // A connect has received nothing yet, and its SYN acknowledges nothing.
        let expects = if matches!(event.what, What::ConnectFailed(_)) { 0 } else { sequence.receive_next };
        // The receiver may have sent more since the segment that was answered; then the addresses have to agree.
        self.receiver_expects == expects
            && (self.receiver_sends == sequence.send_next || self.ends == (event.peer, event.local))
            && self.boot_ns.abs_diff(event.boot_ns) <= PATIENCE_NS
    }
}

/// Ends that look for each other.
#[derive(Debug, Default)]
pub struct Join {
    waiting: VecDeque<(Event, Owner)>,
    /// Those of the last [`PATIENCE_NS`], oldest first.
    senders: VecDeque<Sent>,
}

impl Join {
    /// Takes the receiving end: returns it with its sender if that came first. Else it waits;
    /// [`sent`](Self::sent) or [`expired`](Self::expired) will return it.
    pub fn received(&mut self, event: Event, owner: Owner) -> Option<(Event, Owner, Sent)> {
        let Some(sender) = self.senders.iter().rev().find(|sender| sender.numbers.fits(&event)) else {
            self.waiting.push_back((event, owner));
            return None;
        };
        let sender = sender.clone();
        Some((event, owner, sender))
    }

    /// Takes the sending end; returns the receiving one if that waits for it.
    pub fn sent(&mut self, sender: &Sent) -> Option<(Event, Owner)> {
        let fresh = |old: &Sent| sender.numbers.boot_ns.saturating_sub(old.numbers.boot_ns) <= PATIENCE_NS;
        while self.senders.len() == MOST || self.senders.front().is_some_and(|oldest| !fresh(oldest)) {
            self.senders.pop_front();
        }
        if let Some(index) = self.waiting.iter().position(|(event, _)| sender.numbers.fits(event)) {
            return self.waiting.remove(index);
        }
        self.senders.push_back(sender.clone());
        None
    }

    /// The end that waits for this reset's sender, if it came first.
    #[must_use]
    pub fn receiver(&self, sent: &Event) -> Option<&Event> {
        let numbers = Numbers::of(sent)?;
        self.waiting.iter().map(|(event, _)| event).find(|event| numbers.fits(event))
    }

    /// The next receiving end that has waited in vain at `boot_ns`.
    pub fn expired(&mut self, boot_ns: u64) -> Option<(Event, Owner)> {
        let (first, _) = self.waiting.front()?;
        // In a storm the oldest wait no longer than there is room.
        if self.waiting.len() <= MOST && boot_ns.saturating_sub(first.boot_ns) < PATIENCE_NS {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Whether anything waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// Whether the peer's address is certainly this node's own, so that a sender of this node's kernel would have been seen.
#[must_use]
pub fn is_own_address(event: &Event) -> bool {
    event.peer.ip.is_loopback() || event.peer.ip == event.local.ip
}

#[cfg(test)]
mod tests {
    use agent_common::{
        connection::{Tuple, mapped},
        event::{Event as Record, Segment, flag, kind, socket},
        layout::{Location, MEMBERS},
        settings::Settings,
        tcp::state,
    };

    use super::*;
    use crate::{
        diagnosis::{cause::Confidence, code::Code},
        event::decode::Decoder,
    };

    fn decode(record: &Record) -> Event {
        let mut locations = Settings::EMPTY.locations;
        for (index, place) in locations.iter_mut().enumerate().take(MEMBERS.len()) {
            *place = Location::new(index as u32 * 8, 0).unwrap();
        }
        Decoder { hz: 250, locations, reasons: std::collections::HashMap::new() }.decode(record, 0)
    }

    fn end(what: u8, send_next: u32, receive_next: u32, boot_ns: u64) -> Record {
        let mut record = Record {
            kind: what,
            socket: socket::FULL,
            state: state::ESTABLISHED,
            flags: flag::FACTS | flag::CONNECTION,
            boot_ns,
            ..Record::default()
        };
        record.facts.send_next = send_next;
        record.facts.receive_next = receive_next;
        record
    }

    fn sender(record: &Record) -> Sent {
        let cause = Cause::new(Code::LingerZeroClose, Confidence::Certain, "closed", "see");
        Sent::of(&Diagnosed { event: decode(record), owner: Owner::default(), cause }).unwrap()
    }

    #[test]
    fn ends_find_each_other_in_either_order() {
        let sent = sender(&end(kind::RESET_SENT, 7, 9, 100));
        let received = decode(&end(kind::RESET_RECEIVED, 9, 7, 90));
        let mut join = Join::default();
        assert!(join.received(received.clone(), Owner::default()).is_none());
        assert_eq!(join.receiver(&decode(&end(kind::RESET_SENT, 7, 9, 100))), Some(&received));
        assert!(join.sent(&sent).is_some());
        assert!(!join.is_waiting());

        assert!(join.sent(&sent).is_none());
        assert!(join.received(received, Owner::default()).is_some());
    }

    #[test]
    fn other_numbers_are_another_connection() {
        let mut join = Join::default();
        assert!(join.received(decode(&end(kind::RESET_RECEIVED, 9, 8, 90)), Owner::default()).is_none());
        assert!(join.sent(&sender(&end(kind::RESET_SENT, 7, 9, 100))).is_none());
        assert!(join.expired(90 + PATIENCE_NS - 1).is_none());
        assert!(join.expired(90 + PATIENCE_NS).is_some());
    }

    #[test]
    fn an_old_sender_is_not_taken_for_a_new_ones() {
        let mut join = Join::default();
        assert!(join.sent(&sender(&end(kind::RESET_SENT, 7, 9, 100))).is_none());
        let late = decode(&end(kind::RESET_RECEIVED, 9, 7, 101 + PATIENCE_NS));
        assert!(join.received(late, Owner::default()).is_none());
    }

    /// The first of two segments in flight is answered; the receiver has sent more since.
    #[test]
    fn an_answer_to_an_earlier_segment_is_found_by_its_addresses() {
        let (client, server) = (mapped(1), mapped(2));
        let mut answer = end(kind::RESET_ANSWERED, 0, 0, 100);
        answer.flags = flag::SEGMENT;
        answer.tuple = Tuple { local: server, peer: client, local_port: 80, peer_port: 40000, netns: 1 };
        answer.segment = Segment { sequence: 50, acknowledgement: 7, payload: 10, ..Segment::default() };
        let mut receiver = end(kind::RESET_RECEIVED, 80, 7, 110);
        receiver.tuple = Tuple { local: client, peer: server, local_port: 40000, peer_port: 80, netns: 2 };
        let mut join = Join::default();
        assert!(join.sent(&sender(&answer)).is_none());
        assert!(join.received(decode(&receiver), Owner::default()).is_some());
    }
}
