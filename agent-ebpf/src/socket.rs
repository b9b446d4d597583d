//! Reading a `struct sock` of any kind.
//!
//! What may be read depends on the kind, which `skc_state` tells: a TIME_WAIT mini-socket or a half-open request ends
//! long before `struct sock` does, and what lies there belongs to somebody else.

use agent_common::{
    connection::{SocketFacts, Tuple, facts_flag, mapped},
    event::socket as kind,
    layout::Member,
    tcp::{AF_INET6, IPPROTO_TCP, state},
};

use crate::kernel::{Kernel, bits, field};

/// Which kind of socket has this `skc_state`; one of [`agent_common::event::socket`].
#[inline(always)]
#[must_use]
pub const fn kind_of(state: u8) -> u8 {
    match state {
        state::TIME_WAIT => kind::TIME_WAIT,
        state::NEW_SYN_RECV => kind::REQUEST,
        state::LISTEN => kind::LISTENER,
        _ => kind::FULL,
    }
}

/// Whether a full socket speaks TCP. `inet_sock_set_state` also fires for DCCP, SCTP and MPTCP; the comparison is of
/// all 16 bits because MPTCP is 262, whose low byte is TCP's 6.
#[inline(always)]
pub fn is_tcp<K: Kernel>(kernel: &K, sk: u64) -> bool {
    let protocol: u16 = field(kernel, sk, Member::Protocol);
    protocol == IPPROTO_TCP
}

/// Inode number of the socket's network namespace; works for every kind of socket.
#[inline(always)]
pub fn netns<K: Kernel>(kernel: &K, sk: u64) -> u32 {
    let net: u64 = field(kernel, sk, Member::Net);
    field(kernel, net, Member::NetInum)
}

/// Both ends of a full socket.
///
/// The local port is `inet_sport`, which outlives the moment the port is given back (`__inet_put_port` clears
/// `skc_num`): at CLOSE, at a reset after `close()` and at destruction `skc_num` is 0.
#[inline(always)]
pub fn tuple<K: Kernel>(kernel: &K, sk: u64) -> Tuple {
    let family: u16 = field(kernel, sk, Member::Family);
    let (local, peer) = if family == AF_INET6 {
        (field(kernel, sk, Member::V6RcvSaddr), field(kernel, sk, Member::V6Daddr))
    } else {
        (mapped(field(kernel, sk, Member::RcvSaddr)), mapped(field(kernel, sk, Member::Daddr)))
    };
    Tuple {
        local,
        peer,
        local_port: u16::from_be(field(kernel, sk, Member::Sport)),
        peer_port: u16::from_be(field(kernel, sk, Member::Dport)),
        netns: netns(kernel, sk),
    }
}

/// The numbers of a full socket, written over `facts`.
#[inline(always)]
pub fn read_facts<K: Kernel>(kernel: &K, sk: u64, facts: &mut SocketFacts) {
    facts.cookie = field(kernel, sk, Member::Cookie);
    facts.bytes_sent = field(kernel, sk, Member::BytesSent);
    facts.bytes_acked = field(kernel, sk, Member::BytesAcked);
    facts.bytes_received = field(kernel, sk, Member::BytesReceived);
    facts.receive_queue_us = field(kernel, sk, Member::RcvqTime);
    facts.delivered_us = field(kernel, sk, Member::DeliveredStamp);
    facts.sent_stamp = field(kernel, sk, Member::LastSent);
    facts.received_stamp = field(kernel, sk, Member::LastReceived);
    facts.ack_stamp = field(kernel, sk, Member::LastAck);
    facts.cwnd_stamp = field(kernel, sk, Member::CwndStamp);
    facts.segments_in = field(kernel, sk, Member::SegsIn);
    facts.segments_out = field(kernel, sk, Member::SegsOut);
    facts.srtt_8us = field(kernel, sk, Member::Srtt);
    facts.total_retransmits = field(kernel, sk, Member::TotalRetrans);
    facts.receive_next = field(kernel, sk, Member::RcvNxt);
    facts.copied = field(kernel, sk, Member::CopiedSeq);
    facts.send_unacked = field(kernel, sk, Member::SndUna);
    facts.send_next = field(kernel, sk, Member::SndNxt);
    facts.written = field(kernel, sk, Member::WriteSeq);
    facts.packets_out = field(kernel, sk, Member::PacketsOut);
    facts.retransmits_out = field(kernel, sk, Member::RetransOut);
    let linger: u64 = field(kernel, sk, Member::LingerTime);
    facts.linger = if linger > u64::from(u32::MAX) { u32::MAX } else { linger as u32 };
    facts.flags = field(kernel, sk, Member::SkFlags);
    facts.error = field(kernel, sk, Member::Error);
    facts.soft_error = field(kernel, sk, Member::SoftError);
    facts.user_timeout_ms = field(kernel, sk, Member::UserTimeout);
    facts.send_window = field(kernel, sk, Member::SndWnd);
    facts.retransmits = field(kernel, sk, Member::Retransmits);
    facts.probes = field(kernel, sk, Member::ProbesOut);
    facts.shutdown = field(kernel, sk, Member::Shutdown);
    facts.bits = fact_bits(kernel, sk);
}

#[inline(always)]
fn fact_bits<K: Kernel>(kernel: &K, sk: u64) -> u8 {
    let mut found = 0;
    if bits(kernel, sk, Member::SawTstamp) != 0 {
        found |= facts_flag::SAW_TIMESTAMP;
    }
    if bits(kernel, sk, Member::TstampOk) != 0 {
        found |= facts_flag::TIMESTAMPS_ON;
    }
    if has_file(kernel, sk) {
        found |= facts_flag::HAS_FILE;
    }
    found
}

/// Whether a file refers to the socket. Not before `accept()`, and not after `close()` has let go of it.
#[inline(always)]
pub fn has_file<K: Kernel>(kernel: &K, sk: u64) -> bool {
    let socket: u64 = field(kernel, sk, Member::Socket);
    socket != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, v4, v6};

    #[test]
    fn mptcp_is_not_tcp() {
        let mut kernel = Fake::new();
        let sk = kernel.established();
        assert!(is_tcp(&kernel, sk));
        kernel.set(sk, Member::Protocol, 262_u16);
        assert!(!is_tcp(&kernel, sk));
    }

    #[test]
    fn ends_of_an_ipv4_socket() {
        let mut kernel = Fake::new();
        let sk = kernel.established();
        let tuple = tuple(&kernel, sk);
        assert_eq!((tuple.local, tuple.peer), (v4(10, 0, 0, 2), v4(10, 0, 0, 1)));
        assert_eq!((tuple.local_port, tuple.peer_port, tuple.netns), (80, 40000, 4_026_531_840));
    }

    #[test]
    fn mapped_socket_and_plain_packet_have_the_same_key() {
        let mut kernel = Fake::new();
        let plain = kernel.established();
        let mapped_socket = kernel.established();
        kernel.set(mapped_socket, Member::Family, AF_INET6);
        kernel.set(mapped_socket, Member::V6RcvSaddr, v4(10, 0, 0, 2));
        kernel.set(mapped_socket, Member::V6Daddr, v4(10, 0, 0, 1));
        assert_eq!(tuple(&kernel, plain), tuple(&kernel, mapped_socket));
        kernel.set(mapped_socket, Member::V6Daddr, v6(9));
        assert_eq!(tuple(&kernel, mapped_socket).peer, v6(9));
    }

    #[test]
    fn timestamp_bits_share_a_byte() {
        let mut kernel = Fake::new();
        let sk = kernel.established();
        let mut facts = SocketFacts::default();
        kernel.set(sk, Member::SawTstamp, 0b10_u8);
        read_facts(&kernel, sk, &mut facts);
        assert_eq!(facts.bits & facts_flag::SAW_TIMESTAMP, 0);
        assert_ne!(facts.bits & facts_flag::TIMESTAMPS_ON, 0);
        kernel.set(sk, Member::SawTstamp, 0b01_u8);
        read_facts(&kernel, sk, &mut facts);
        assert_ne!(facts.bits & facts_flag::SAW_TIMESTAMP, 0);
    }
}
