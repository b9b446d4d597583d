//! Reading the segment that a RST answers.
//!
//! Where a reset is sent without a connection's own socket, the addresses are in the packet only. There they are the
//! other way round: our side is the packet's destination.

use agent_common::{
    connection::{Tuple, mapped},
    event::Segment,
    layout::Member,
    tcp::{AF_INET, AF_INET6},
};

use crate::kernel::{Kernel, field, has};

/// A segment and both ends as its receiver sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Both ends; local is the packet's destination.
    pub tuple: Tuple,
    /// AF_INET or AF_INET6; 0: not an IP packet.
    pub family: u16,
    /// The segment.
    pub segment: Segment,
}

/// Reads the headers of `skb` (a `struct sk_buff` inside `tcp_v4_rcv` or `tcp_v6_rcv`).
///
/// The headers are taken from `head + network_header` and `head + transport_header`: `tcp_skb_cb` has the same
/// numbers but changed its layout in 6.18.
#[inline(always)]
pub fn read<K: Kernel>(kernel: &K, skb: u64) -> Received {
    let head: u64 = field(kernel, skb, Member::SkbHead);
    let network_offset: u16 = field(kernel, skb, Member::SkbNetworkHeader);
    let transport_offset: u16 = field(kernel, skb, Member::SkbTransportHeader);
    let mut received = Received::default();
    if head == 0 {
        return received;
    }
    let ip = head + u64::from(network_offset);
    let tcp = head + u64::from(transport_offset);

    let version: u8 = kernel.read(ip, 0);
    let total: u32 = match version >> 4 {
        4 => {
            received.family = AF_INET;
            received.tuple.peer = mapped(kernel.read(ip, 12));
            received.tuple.local = mapped(kernel.read(ip, 16));
            u32::from(u16::from_be(kernel.read(ip, 2)))
        }
        6 => {
            received.family = AF_INET6;
            received.tuple.peer = kernel.read(ip, 8);
            received.tuple.local = kernel.read(ip, 24);
            40 + u32::from(u16::from_be(kernel.read(ip, 4)))
        }
        _ => return received,
    };

    received.tuple.peer_port = u16::from_be(kernel.read(tcp, 0));
    received.tuple.local_port = u16::from_be(kernel.read(tcp, 2));
    let header_words: u8 = kernel.read(tcp, 12);
    // From the IP header to the end of the TCP header, IPv6 extension headers included.
    let headers = u32::from(transport_offset.wrapping_sub(network_offset)) + u32::from(header_words >> 4) * 4;
    received.segment = Segment {
        sequence: u32::from_be(kernel.read(tcp, 4)),
        acknowledgement: u32::from_be(kernel.read(tcp, 8)),
        // A jumbogram or a coalesced packet above 64 KiB says 0 in its IP header.
        payload: total.saturating_sub(headers),
        flags: kernel.read(tcp, 13),
        padding: [0; 3],
    };
    received
}

/// The flag byte of the TCP header of `skb`; 0 if it cannot be read, which no segment of a connection has.
#[inline(always)]
pub fn flags<K: Kernel>(kernel: &K, skb: u64) -> u8 {
    let head: u64 = field(kernel, skb, Member::SkbHead);
    let transport_offset: u16 = field(kernel, skb, Member::SkbTransportHeader);
    if head == 0 { 0 } else { kernel.read(head, u64::from(transport_offset) + 13) }
}

/// `RTN_LOCAL`, `include/uapi/linux/rtnetlink.h`.
const LOCAL_ROUTE: u16 = 2;
/// `RTF_LOCAL`, `include/uapi/linux/ipv6_route.h`.
const LOCAL_ROUTE_V6: u32 = 0x8000_0000;

/// Whether the segment was routed to this host itself, as `tcp_v4_send_reset` and `tcp_v6_send_reset` require where there
/// is no socket. Where that cannot be read, yes: others hardly ever get there.
#[inline(always)]
pub fn is_for_this_host<K: Kernel>(kernel: &K, skb: u64, received: &Received) -> bool {
    // The lowest bit says whether the reference is counted (SKB_DST_NOREF).
    let reference: u64 = field(kernel, skb, Member::SkbRefdst);
    let route = reference & !1;
    if route == 0 {
        return true;
    }
    if received.family == AF_INET {
        let kind: u16 = field(kernel, route, Member::RouteType);
        !has(kernel, Member::RouteType) || kind == LOCAL_ROUTE
    } else {
        let flags: u32 = field(kernel, route, Member::RouteFlagsV6);
        !has(kernel, Member::RouteFlagsV6) || flags & LOCAL_ROUTE_V6 != 0
    }
}

/// Network namespace of the device that `skb` arrived on; 0 where the path has already cleared it.
#[inline(always)]
pub fn netns<K: Kernel>(kernel: &K, skb: u64) -> u32 {
    let device: u64 = field(kernel, skb, Member::SkbDev);
    let net: u64 = field(kernel, device, Member::DevNet);
    field(kernel, net, Member::NetInum)
}

#[cfg(test)]
mod tests {
    use agent_common::tcp::flag;

    use super::*;
    use crate::fake::{Fake, v4, v6};

    #[test]
    fn ipv4_segment_is_read_from_the_receivers_side() {
        let mut kernel = Fake::new();
        let skb = kernel.packet_v4([10, 0, 0, 1], 40000, [10, 0, 0, 2], 80, flag::PSH | flag::ACK, 110);
        let received = read(&kernel, skb);
        assert_eq!(received.family, AF_INET);
        assert_eq!(received.tuple.local, v4(10, 0, 0, 2));
        assert_eq!(received.tuple.peer, v4(10, 0, 0, 1));
        assert_eq!((received.tuple.local_port, received.tuple.peer_port), (80, 40000));
        assert_eq!(received.segment.payload, 110);
        assert_eq!(received.segment.flags, flag::PSH | flag::ACK);
        assert_eq!((received.segment.sequence, received.segment.acknowledgement), (1000, 2000));
        assert_eq!(netns(&kernel, skb), 4_026_531_840);
    }

    #[test]
    fn ipv6_segment_is_read_from_the_receivers_side() {
        let mut kernel = Fake::new();
        let skb = kernel.packet_v6(1, 40000, 2, 80, flag::SYN, 0);
        let received = read(&kernel, skb);
        assert_eq!(received.family, AF_INET6);
        assert_eq!((received.tuple.local, received.tuple.peer), (v6(2), v6(1)));
        assert_eq!((received.segment.payload, received.segment.flags), (0, flag::SYN));
    }

    #[test]
    fn what_is_no_ip_packet_gives_no_addresses() {
        let kernel = Fake::new();
        assert_eq!(read(&kernel, 0), Received::default());
    }
}
