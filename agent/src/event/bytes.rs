//! Byte counts without the sequence numbers that SYN and FIN occupy.
//!
//! The kernel's counters follow sequence numbers, so a FIN counts as a byte received and a SYN and a FIN as bytes
//! acknowledged. A line says payload.

use agent_common::{
    connection::{SocketFacts, role},
    tcp::{sock_flag, state},
};

/// Payload received: `bytes_received` less the peer's FIN.
#[must_use]
pub fn received(facts: &SocketFacts) -> u64 {
    facts.bytes_received.saturating_sub(u64::from(peer_finished(facts)))
}

/// Payload received and not read. An unread FIN is no payload, and once the application has read it `copied_seq` is
/// past it.
#[must_use]
pub fn unread(facts: &SocketFacts) -> u32 {
    let sequence = facts.receive_next.wrapping_sub(facts.copied);
    // Beyond half the sequence space: not a socket that ever received.
    if sequence.cast_signed() <= 0 { 0 } else { sequence - u32::from(peer_finished(facts)) }
}

/// Payload acknowledged, or `None` where it is not known whether our SYN is in the count.
#[must_use]
pub fn acked(facts: &SocketFacts, who: u8, connection_state: u8) -> Option<u64> {
    let syn = match who {
        role::CLIENT => 1,
        role::SERVER => 0,
        _ => return None,
    };
    let fin = u64::from(matches!(connection_state, state::FIN_WAIT2 | state::TIME_WAIT));
    Some(facts.bytes_acked.saturating_sub(syn + fin))
}

/// Sequence numbers sent and not acknowledged (a FIN in flight counts as one).
#[must_use]
pub fn in_flight(facts: &SocketFacts) -> u32 {
    distance(facts.send_unacked, facts.send_next)
}

/// Payload the application has written and the kernel has not sent.
#[must_use]
pub fn unsent(facts: &SocketFacts) -> u32 {
    distance(facts.send_next, facts.written)
}

fn distance(from: u32, to: u32) -> u32 {
    let distance = to.wrapping_sub(from);
    if distance.cast_signed() < 0 { 0 } else { distance }
}

fn peer_finished(facts: &SocketFacts) -> bool {
    facts.flags & sock_flag::DONE != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unread_fin_is_not_unread_data() {
        let facts = SocketFacts { receive_next: 101, copied: 100, flags: sock_flag::DONE, ..SocketFacts::default() };
        assert_eq!(unread(&facts), 0);
    }

    #[test]
    fn a_fin_that_was_read_takes_nothing_away() {
        let facts = SocketFacts { receive_next: 101, copied: 101, flags: sock_flag::DONE, ..SocketFacts::default() };
        assert_eq!(unread(&facts), 0);
    }

    #[test]
    fn five_unread_bytes_read_back_as_five_across_the_sequence_wrap() {
        let facts = SocketFacts { receive_next: 2, copied: u32::MAX - 2, ..SocketFacts::default() };
        assert_eq!(unread(&facts), 5);
    }

    #[test]
    fn the_peers_fin_is_no_received_byte() {
        let facts = SocketFacts { bytes_received: 518, flags: sock_flag::DONE, ..SocketFacts::default() };
        assert_eq!(received(&facts), 517);
    }

    #[test]
    fn a_clients_syn_is_no_acknowledged_byte() {
        let facts = SocketFacts { bytes_acked: 518, ..SocketFacts::default() };
        assert_eq!(acked(&facts, role::CLIENT, state::ESTABLISHED), Some(517));
        assert_eq!(acked(&facts, role::SERVER, state::ESTABLISHED), Some(518));
        assert_eq!(acked(&facts, role::SERVER, state::FIN_WAIT2), Some(517));
        assert_eq!(acked(&facts, role::UNKNOWN, state::ESTABLISHED), None);
    }

    #[test]
    fn what_is_in_flight_and_what_is_unsent() {
        let facts = SocketFacts { send_unacked: u32::MAX, send_next: 109, written: 119, ..SocketFacts::default() };
        assert_eq!((in_flight(&facts), unsent(&facts)), (110, 10));
    }
}
