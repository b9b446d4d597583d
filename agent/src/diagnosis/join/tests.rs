//! Which ends find each other, and when they stop waiting.

use agent_common::{
    connection::{Tuple, mapped},
    event::{Event as Record, Segment, flag, kind, socket},
    tcp::state,
};

use super::{waiting::MOST, *};
use crate::event::{What, decode::Decoder};

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
        self.receivers.len() + self.certain.len() + self.senders.len() > 0
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
    while join.left().is_some() {}
    assert!(!join.is_waiting());
    assert!(join.told.len() <= MOST + 1, "{} senders are remembered", join.told.len());
}

/// On a machine that stood still a sender lost its CPU for 148 ms behind the sending, before its tracepoint fired.
#[test]
fn a_receiver_whose_sender_is_on_this_node_waits_for_it() {
    let mut join = Join::new(Seen::AllSince(0));
    assert!(join.received(of(&end(kind::RESET_RECEIVED, 9, 7, 90))).is_none());
    assert!(join.expired(90 + 148_000_000).is_none());
    assert!(join.sent(of(&end(kind::RESET_SENT, 7, 9, 90 + 148_000_000))).is_some());

    assert!(join.received(of(&end(kind::RESET_RECEIVED, 9, 8, 90))).is_none());
    assert_eq!(is_missed(&mut join, 90 + CERTAIN_PATIENCE_NS - 1), None);
    assert_eq!(is_missed(&mut join, 90 + CERTAIN_PATIENCE_NS), Some(true));
}

/// Whether the sender is missing of who waits, if he does not wait any more when all has come up to that time.
fn is_missed(join: &mut Join, boot_ns: u64) -> Option<bool> {
    join.complete(boot_ns);
    join.expired(boot_ns).map(|expired| expired.sender_missing)
}

/// A refusal at this time, with its sender, if any, among what was lost.
fn refused(join: &mut Join, boot_ns: u64) {
    assert!(join.received(of(&end(kind::RESET_RECEIVED, 9, 8, boot_ns))).is_none());
}

#[test]
fn nobody_is_missed_before_all_has_come() {
    let mut join = Join::new(Seen::AllSince(0));
    refused(&mut join, 90);
    assert!(join.expired(90 + 5 * CERTAIN_PATIENCE_NS).is_none(), "a record from then is not all of them");
    assert_eq!(is_missed(&mut join, 90 + CERTAIN_PATIENCE_NS), Some(true));
}

/// In a storm the ring buffer was full: what it did not hold may have been the closed port that sent it.
#[test]
fn nobody_is_missed_who_may_have_been_lost() {
    const S: u64 = CERTAIN_PATIENCE_NS;
    for (refused_ns, missed) in [(9 * S, false), (10 * S, false), (11 * S, false), (11 * S + 1, true)] {
        let mut join = Join::new(Seen::AllSince(0));
        refused(&mut join, refused_ns);
        join.lost(10 * S);
        assert_eq!(is_missed(&mut join, refused_ns + S), Some(missed), "at {refused_ns}");
    }
    // And one that comes to the agent after that.
    let mut join = Join::new(Seen::AllSince(0));
    join.lost(10 * S);
    refused(&mut join, 9 * S);
    assert_eq!(is_missed(&mut join, 10 * S), Some(false));
}

#[test]
fn nobody_is_missed_from_before_the_hooks() {
    for (refused_ns, missed) in [(100, false), (101, true)] {
        let mut join = Join::new(Seen::AllSince(100));
        refused(&mut join, refused_ns);
        assert_eq!(is_missed(&mut join, refused_ns + CERTAIN_PATIENCE_NS), Some(missed));
    }
}

/// Where addresses are translated the sender's may be one that is not asked for. It is waited for all the same.
#[test]
fn nobody_is_missed_with_a_filter_by_address() {
    let mut join = Join::new(Seen::AskedFor);
    refused(&mut join, 90);
    assert_eq!(is_missed(&mut join, 90 + CERTAIN_PATIENCE_NS - 1), None);
    assert_eq!(is_missed(&mut join, 90 + CERTAIN_PATIENCE_NS), Some(false));
}

/// Nothing more comes: it had no time to wait, which proves nothing.
#[test]
fn nobody_is_missed_when_the_agent_ends() {
    let mut join = Join::new(Seen::AllSince(0));
    refused(&mut join, 90);
    assert!(!join.left().unwrap().sender_missing);
    assert!(join.left().is_none());
}

/// A NodePort on this node's own address leads to a pod on any.
#[test]
fn nobody_is_missed_behind_a_translated_address() {
    let mut join = Join::new(Seen::AllSince(0));
    let mut translated = of(&end(kind::RESET_RECEIVED, 9, 8, 90));
    translated.event.backend = Some("10.79.0.9:8080".parse().unwrap());
    assert!(join.received(translated).is_none());
    assert_eq!(join.expired(90 + PATIENCE_NS).map(|expired| expired.sender_missing), Some(false));
}

#[test]
fn nothing_is_said_of_a_sender_that_may_be_elsewhere() {
    let (_, elsewhere) = answered_early();
    let mut join = Join::new(Seen::AllSince(0));
    assert!(join.received(of(&elsewhere)).is_none());
    let expired = join.expired(elsewhere.boot_ns + PATIENCE_NS).unwrap();
    assert!(!expired.sender_missing);
}

/// Who had to make room in a storm did not wait long enough to say that there is no sender.
#[test]
fn who_makes_room_does_not_miss_a_sender() {
    let mut join = Join::new(Seen::AllSince(0));
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
    let mut join = Join::new(Seen::AllSince(0));
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
