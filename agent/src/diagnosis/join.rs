//! Both ends of one connection on this node.
//!
//! On loopback the receiver's event comes before the sender's for a RST that its owner sends by itself, and after it
//! for an answer. So either waits. They are paired by sequence numbers, which survive address translation.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::{cause::Cause, chain::recent::StepId};
use crate::event::{Event, What, party::Owner};

/// How long an end waits for the other, nanoseconds. It takes microseconds; a virtual CPU that loses its core in between
/// can take many milliseconds.
pub const PATIENCE_NS: u64 = 100_000_000;
/// The same for an end whose other end certainly is on this node and is seen there. If it is not, that means something
/// (a firewall), so a sender that lost its CPU between the sending and the tracepoint behind it must not be missed.
pub const CERTAIN_PATIENCE_NS: u64 = 1_000_000_000;
/// How many of each end may wait. In a storm none waits longer than there is room.
const MOST: usize = 8192;

/// What the two ends of one reset are found by: sequence numbers as the receiving end has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The next it expects; 0 of a connect, whose SYN acknowledges nothing.
    expects: u32,
    /// The next it sends.
    sends: u32,
}

impl Numbers {
    /// Of the end that sends the reset.
    fn of_sender(event: &Event) -> Option<Self> {
        match (&event.facts.segment, &event.facts.sequence) {
            // What it answers was sent by the receiver: it ends where the receiver goes on.
            (Some(segment), _) => {
                let occupied = |flag: &str| u32::from(segment.flags.split(',').any(|name| name == flag));
                let length = segment.payload_bytes + occupied("SYN") + occupied("FIN");
                Some(Self { expects: segment.acknowledgement, sends: segment.sequence.wrapping_add(length) })
            }
            (None, Some(sequence)) => Some(Self { expects: sequence.send_next, sends: sequence.receive_next }),
            (None, None) => None,
        }
    }

    /// Of the end that receives it.
    fn of_receiver(event: &Event) -> Option<Self> {
        let sequence = event.facts.sequence.as_ref()?;
        let expects = if matches!(event.what, What::ConnectFailed(_)) { 0 } else { sequence.receive_next };
        Some(Self { expects, sends: sequence.send_next })
    }

    /// Of any event about a connection.
    fn of(event: &Event) -> Option<Self> {
        if event.what == What::ResetSent { Self::of_sender(event) } else { Self::of_receiver(event) }
    }

    /// The number that both ends certainly share. What the receiver sends next does not: it may have sent more since the
    /// segment that was answered.
    const fn shared(self) -> u32 {
        if self.expects == 0 { self.sends } else { self.expects }
    }
}

/// A name for the connection of an event, the same for both of its ends, on two nodes as well unless addresses are
/// translated between them: 16 hexadecimal digits. Nothing can be read from it.
#[must_use]
pub fn connection_id(event: &Event) -> Option<String> {
    // A connect that failed before it had a port has no sequence numbers either, and no other end.
    let number = match event.local.port {
        Some(_) => Numbers::of(event)?.shared(),
        None => event.boot_ns as u32,
    };
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut ends = [event.local, event.peer].map(|end| (octets(end.ip), end.port.unwrap_or(0)));
    ends.sort_unstable();
    // FNV-1a, 64 bits: the same on every machine and in every version.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for (octets, port) in ends {
        feed(&octets);
        feed(&port.to_be_bytes());
    }
    feed(&number.to_be_bytes());
    Some(format!("{hash:016x}"))
}

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

/// When an end is due, and which of those it is.
type Place = (u64, u64);

/// Ends of one kind by the time when they are due, and by the number that both ends share.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    ends: BTreeMap<Place, End>,
    by_number: HashMap<u32, Vec<Place>>,
}

impl Waiting {
    fn push(&mut self, end: End, patience_ns: u64) {
        let place = (end.event.boot_ns.saturating_add(patience_ns), self.next);
        self.next += 1;
        if let Some(number) = shared_number(&end.event) {
            self.by_number.entry(number).or_default().push(place);
        }
        self.ends.insert(place, end);
    }

    fn take(&mut self, other: &End, fits: impl Fn(&End) -> bool) -> Option<End> {
        let candidates = self.by_number.get(&shared_number(&other.event)?)?;
        let place = *candidates.iter().rev().find(|place| self.ends.get(place).is_some_and(&fits))?;
        self.remove(place)
    }

    fn remove(&mut self, place: Place) -> Option<End> {
        let end = self.ends.remove(&place)?;
        if let Some(number) = shared_number(&end.event)
            && let Some(places) = self.by_number.get_mut(&number)
        {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.by_number.remove(&number);
            }
        }
        Some(end)
    }

    /// The next that is due at `boot_ns`, or has to make room, and which of both it is.
    fn expired(&mut self, boot_ns: u64) -> Option<(End, bool)> {
        let (&place, _) = self.ends.first_key_value()?;
        let is_due = place.0 <= boot_ns;
        if !is_due && self.ends.len() <= MOST {
            return None;
        }
        self.remove(place).map(|end| (end, is_due))
    }
}

fn shared_number(event: &Event) -> Option<u32> {
    Numbers::of(event).map(Numbers::shared)
}

/// Whether the peer's address is certainly this node's own, so that a sender of this node's kernel would have been seen.
fn is_own_address(event: &Event) -> bool {
    event.peer.ip.is_loopback() || event.peer.ip == event.local.ip
}

#[cfg(test)]
mod tests {
    use agent_common::{
        connection::{Tuple, mapped},
        event::{Event as Record, Segment, flag, kind, socket},
        tcp::state,
    };

    use super::*;
    use crate::event::decode::Decoder;

    fn decode(record: &Record) -> Event {
        Decoder::of_a_whole_kernel(&[]).decode(record, 0)
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

    impl Join {
        fn is_waiting(&self) -> bool {
            !self.receivers.ends.is_empty() || !self.senders.ends.is_empty()
        }
    }

    fn of(record: &Record) -> End {
        End { event: decode(record), owner: Owner::default(), cause: None, step: None }
    }

    #[test]
    fn ends_find_each_other_in_either_order() {
        let sent = of(&end(kind::RESET_SENT, 7, 9, 100));
        let received = of(&end(kind::RESET_RECEIVED, 9, 7, 90));
        let whole = Some(Pair { sender: sent.clone(), receiver: received.clone(), sender_is_told: false });
        let mut join = Join::default();
        assert!(join.received(received.clone()).is_none());
        assert_eq!(join.sent(sent.clone()), whole);
        assert!(!join.is_waiting());

        assert!(join.sent(sent).is_none());
        assert_eq!(join.received(received), whole);
        assert!(!join.is_waiting());
    }

    #[test]
    fn other_numbers_are_another_connection() {
        let mut join = Join::default();
        assert!(join.received(of(&end(kind::RESET_RECEIVED, 9, 8, 90))).is_none());
        assert!(join.sent(of(&end(kind::RESET_SENT, 7, 9, 100))).is_none());
        assert!(join.expired(90 + PATIENCE_NS - 1).is_none());
        assert_eq!(join.expired(90 + PATIENCE_NS).unwrap().end.event.what, What::ResetReceived);
        assert_eq!(join.expired(100 + PATIENCE_NS).unwrap().end.event.what, What::ResetSent);
        assert!(!join.is_waiting());
    }

    #[test]
    fn an_old_sender_is_not_taken_for_a_new_ones() {
        let mut join = Join::default();
        assert!(join.sent(of(&end(kind::RESET_SENT, 7, 9, 100))).is_none());
        assert!(join.received(of(&end(kind::RESET_RECEIVED, 9, 7, 101 + CERTAIN_PATIENCE_NS))).is_none());
    }

    /// A storm of answers: each leaves as soon as there are too many, oldest first, and the index keeps nothing of it.
    #[test]
    fn what_waits_is_bounded() {
        let mut join = Join::default();
        let more = MOST as u32 + 3;
        for number in 1..=more {
            assert!(join.sent(of(&end(kind::RESET_SENT, number, 1, 100))).is_none());
        }
        let left: Vec<u32> = std::iter::from_fn(|| join.expired(100))
            .map(|expired| expired.end.event.facts.sequence.unwrap().send_next)
            .collect();
        assert_eq!(left, [1, 2, 3]);
        while join.expired(u64::MAX).is_some() {}
        assert!(join.senders.by_number.is_empty() && !join.is_waiting());
        assert!(join.told.ends.len() <= MOST + 1, "{} senders are remembered", join.told.ends.len());
    }

    /// On a machine that stood still a sender lost its CPU for 148 ms behind the sending, before its tracepoint fired.
    #[test]
    fn a_receiver_whose_sender_is_on_this_node_waits_for_it() {
        let mut join = Join::new(true);
        assert!(join.received(of(&end(kind::RESET_RECEIVED, 9, 7, 90))).is_none());
        assert!(join.expired(90 + 148_000_000).is_none());
        assert!(join.sent(of(&end(kind::RESET_SENT, 7, 9, 90 + 148_000_000))).is_some());

        assert!(join.received(of(&end(kind::RESET_RECEIVED, 9, 8, 90))).is_none());
        assert!(join.expired(90 + CERTAIN_PATIENCE_NS - 1).is_none());
        assert!(join.expired(90 + CERTAIN_PATIENCE_NS).unwrap().sender_missing);
    }

    #[test]
    fn nothing_is_said_of_a_sender_that_may_be_elsewhere() {
        let (_, elsewhere) = answered_early();
        let mut join = Join::new(true);
        assert!(join.received(of(&elsewhere)).is_none());
        let expired = join.expired(elsewhere.boot_ns + PATIENCE_NS).unwrap();
        assert!(!expired.sender_missing);
    }

    /// Who had to make room in a storm did not wait long enough to say that there is no sender.
    #[test]
    fn who_makes_room_does_not_miss_a_sender() {
        let mut join = Join::new(true);
        for number in 0..=MOST as u32 {
            assert!(join.received(of(&end(kind::RESET_RECEIVED, number, number + 1, 90))).is_none());
        }
        assert!(!join.expired(91).unwrap().sender_missing);
        assert!(join.expired(91).is_none());
    }

    /// The answer was sent, and the CPU that was to deliver it stood still.
    #[test]
    fn a_receiver_that_comes_late_finds_the_sender_that_was_told() {
        let sent = of(&end(kind::RESET_SENT, 7, 9, 100));
        let received = of(&end(kind::RESET_RECEIVED, 9, 7, 100 + 3 * PATIENCE_NS));
        let mut join = Join::new(true);
        assert!(join.sent(sent.clone()).is_none());
        assert_eq!(join.expired(100 + 2 * PATIENCE_NS).unwrap().end, sent);
        let pair = Some(Pair { sender: sent, receiver: received.clone(), sender_is_told: true });
        assert_eq!(join.received(received.clone()), pair);
        assert!(join.received(received).is_none(), "there was one reset");
    }

    /// Ten thousand connections at once, the receivers in any order.
    #[test]
    fn many_find_each_their_own() {
        let mut join = Join::default();
        for number in 1..=8000_u32 {
            assert!(join.received(of(&end(kind::RESET_RECEIVED, number, number.wrapping_mul(31), 90))).is_none());
        }
        for number in (1..=8000_u32).rev() {
            let pair = join.sent(of(&end(kind::RESET_SENT, number.wrapping_mul(31), number, 100))).unwrap();
            assert_eq!(pair.receiver.event.facts.sequence.unwrap().send_next, number);
        }
    }

    /// The first of two segments in flight is answered; the receiver has sent more since.
    #[test]
    fn an_answer_to_an_earlier_segment_is_found_by_its_addresses() {
        let (answer, receiver) = answered_early();
        let mut join = Join::default();
        assert!(join.sent(of(&answer)).is_none());
        assert!(join.received(of(&receiver)).is_some());
    }

    fn answered_early() -> (Record, Record) {
        let (client, server) = (mapped(1), mapped(2));
        let mut answer = end(kind::RESET_ANSWERED, 0, 0, 100);
        answer.flags = flag::SEGMENT;
        answer.tuple = Tuple { local: server, peer: client, local_port: 80, peer_port: 40000, netns: 1 };
        answer.segment = Segment { sequence: 50, acknowledgement: 7, payload: 10, ..Segment::default() };
        let mut receiver = end(kind::RESET_RECEIVED, 80, 7, 110);
        receiver.tuple = Tuple { local: client, peer: server, local_port: 40000, peer_port: 80, netns: 2 };
        (answer, receiver)
    }

    #[test]
    fn both_ends_have_one_name_and_another_connection_has_another() {
        let (answer, receiver) = answered_early();
        let id = connection_id(&decode(&answer)).unwrap();
        assert_eq!(connection_id(&decode(&receiver)), Some(id.clone()));
        assert_eq!(id, "f53ddc39857e7597", "the same in every version");
        let mut other = receiver;
        other.facts.receive_next += 1;
        assert_ne!(connection_id(&decode(&other)).unwrap(), id);
        other = receiver;
        other.tuple.local_port += 1;
        assert_ne!(connection_id(&decode(&other)).unwrap(), id);
    }
}
