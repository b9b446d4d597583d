//! The sequence numbers by which both ends of a reset are found, and the name that both give to their connection.

use std::net::IpAddr;

use crate::event::{Event, What};

/// What the two ends of one reset are found by: sequence numbers as the receiving end has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The next it expects; 0 of a connect, whose SYN acknowledges nothing.
    pub expects: u32,
    /// The next it sends.
    pub sends: u32,
}

impl Numbers {
    /// Of the end that sends the reset.
    pub fn of_sender(event: &Event) -> Option<Self> {
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
    pub fn of_receiver(event: &Event) -> Option<Self> {
        let sequence = event.facts.sequence.as_ref()?;
        let expects = if matches!(event.what, What::ConnectFailed(_)) { 0 } else { sequence.receive_next };
        Some(Self { expects, sends: sequence.send_next })
    }

    /// Of any event about a connection.
    pub fn of(event: &Event) -> Option<Self> {
        if event.what == What::ResetSent { Self::of_sender(event) } else { Self::of_receiver(event) }
    }

    /// The number that both ends certainly share. What the receiver sends next does not: it may have sent more since the
    /// segment that was answered.
    pub const fn shared(self) -> u32 {
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
