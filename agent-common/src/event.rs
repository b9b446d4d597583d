//! The record that travels through the ring buffer: one per reset, failed connect or timed-out connection.

use crate::connection::{Connection, SocketCgroups, SocketFacts, Task, Tuple};

/// What happened; [`Event::kind`].
pub mod kind {
    /// `tcp_reset()` ran on a synchronised socket. With [`flag::AMBIGUOUS`](super::flag::AMBIGUOUS) it is not known yet
    /// whether a RST packet arrived.
    pub const RESET_RECEIVED: u8 = 1;
    /// A RST was sent by the owner of a socket, answering nothing (`tcp_send_active_reset`).
    pub const RESET_SENT: u8 = 2;
    /// A RST was sent in answer to a segment (`tcp_v4_send_reset`, `tcp_v6_send_reset`).
    pub const RESET_ANSWERED: u8 = 3;
    /// SYN_SENT → CLOSE.
    pub const CONNECT_FAILED: u8 = 4;
    /// An established connection ended by a timer, with no RST.
    pub const TIMED_OUT: u8 = 5;
    /// A process closed a connection with a FIN right after another one of its had failed. No line by itself: a proxy may
    /// have done the one because of the other.
    pub const CLOSED: u8 = 6;
}

/// What kind of socket the reset hook was given; [`Event::socket`].
pub mod socket {
    /// A connection's own socket.
    pub const FULL: u8 = 1;
    /// A TIME_WAIT mini-socket.
    pub const TIME_WAIT: u8 = 2;
    /// A half-open request.
    pub const REQUEST: u8 = 3;
    /// A listener.
    pub const LISTENER: u8 = 4;
    /// None at all.
    pub const NONE: u8 = 5;
}

/// Bits of [`Event::flags`].
pub mod flag {
    /// The socket was shut for reading in a state in which `tcp_reset()` also runs for *data* that nobody will read
    /// (`tcp_rcv_state_process`), and the hook did not see a segment with RST set. If a
    /// [`RESET_ANSWERED`](super::kind::RESET_ANSWERED) of the same socket follows, no RST arrived: one was sent.
    pub const AMBIGUOUS: u32 = 1;
    /// [`Event::connection`](super::Event::connection) was followed by the agent; else it is what could be read now.
    pub const CONNECTION: u32 = 1 << 1;
    /// [`Event::facts`](super::Event::facts) holds a socket's numbers.
    pub const FACTS: u32 = 1 << 2;
    /// The connection had closed before: the facts and the connection are from the closed-connection table.
    pub const CLOSED: u32 = 1 << 3;
    /// [`Event::segment`](super::Event::segment) is the segment being answered.
    pub const SEGMENT: u32 = 1 << 4;
    /// The hook ran in process context: [`Event::actor`](super::Event::actor) is the task that did it.
    pub const ACTOR: u32 = 1 << 5;
    /// The actor was exiting.
    pub const ACTOR_EXITING: u32 = 1 << 6;
    /// A read of kernel memory failed while the event was made.
    pub const READ_FAULT: u32 = 1 << 7;
    /// [`Event::reason`](super::Event::reason) is the kernel's own (`enum sk_rst_reason`).
    pub const REASON: u32 = 1 << 8;
    /// The socket was in CLOSE already when the hook ran: whoever sends the RST had ended the connection first
    /// (`close()`, disconnect). Without it the RST came before the end (keepalive, SOCK_DESTROY).
    pub const ENDED: u32 = 1 << 9;
    /// With [`AMBIGUOUS`]: the segment was seen and is no RST, so `tcp_reset()` ran for data and an answer follows.
    pub const NO_RST_ARRIVED: u32 = 1 << 10;
}

/// The segment that a RST answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its sequence number.
    pub sequence: u32,
    /// Its acknowledgement number.
    pub acknowledgement: u32,
    /// Payload bytes.
    pub payload: u32,
    /// The TCP header's flag byte.
    pub flags: u8,
    /// Explicit padding, 0.
    pub padding: [u8; 3],
}

/// One event.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When, nanoseconds of CLOCK_BOOTTIME.
    pub boot_ns: u64,
    /// The same instant on CLOCK_MONOTONIC: the `_us` stamps are on that clock.
    pub monotonic_ns: u64,
    /// Address of the socket: an identity, never shown. 0: none.
    pub sk: u64,
    /// When the connection closed, CLOCK_BOOTTIME, with [`flag::CLOSED`]; of a reset that its closing
    /// sent too, if that was seen.
    pub closed_ns: u64,
    /// The same on CLOCK_MONOTONIC, with [`flag::CLOSED`].
    pub closed_monotonic_ns: u64,
    /// The low 32 bits of jiffies at the event.
    pub jiffies: u32,
    /// See [`flag`].
    pub flags: u32,
    /// Both ends.
    pub tuple: Tuple,
    /// Value of `enum sk_rst_reason`, with [`flag::REASON`].
    pub reason: u32,
    /// `exit_code` of an exiting actor.
    pub exit_code: u32,
    /// One of [`kind`].
    pub kind: u8,
    /// One of [`socket`].
    pub socket: u8,
    /// The connection's state before this event.
    pub state: u8,
    /// `tw_substate` of a TIME_WAIT mini-socket.
    pub substate: u8,
    /// Address family of the socket or packet (AF_INET, AF_INET6).
    pub family: u16,
    /// CPU the hook ran on.
    pub cpu: u16,
    /// The segment being answered.
    pub segment: Segment,
    /// The task in whose context it happened.
    pub actor: Task,
    /// The connection.
    pub connection: Connection,
    /// The socket's numbers.
    pub facts: SocketFacts,
    /// The socket's cgroups.
    pub cgroups: SocketCgroups,
}

impl Event {
    /// Reads a record as the ring buffer delivered it; `None` if the length is not that of a record.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: the length was checked, every bit pattern is a valid `Event` (integers only), and `read_unaligned`
        // asks for no alignment.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }

    /// The record's bytes, for tests that play the kernel.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        // SAFETY: `Event` is `repr(C)`, made of integers, and `records_have_no_padding` proves there is no padding.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Padding bytes of a ring-buffer record would leak whatever the buffer held before.
    #[test]
    fn records_have_no_padding() {
        assert_eq!(size_of::<Segment>(), 3 * 4 + 4);
        assert_eq!(
            size_of::<Event>(),
            5 * 8
                + 2 * 4
                + size_of::<Tuple>()
                + 2 * 4
                + 4
                + 2 * 2
                + size_of::<Segment>()
                + size_of::<Task>()
                + size_of::<Connection>()
                + size_of::<SocketFacts>()
                + size_of::<SocketCgroups>()
        );
    }

    #[test]
    fn a_record_survives_the_ring_buffer() {
        let event = Event { boot_ns: 7, kind: kind::RESET_SENT, jiffies: u32::MAX, ..Event::default() };
        assert_eq!(Event::from_bytes(event.as_bytes()), Some(event));
    }

    #[test]
    fn a_short_or_long_record_is_refused() {
        let event = Event::default();
        let mut bytes = event.as_bytes().to_vec();
        bytes.push(0);
        assert_eq!(Event::from_bytes(&bytes), None);
        assert_eq!(Event::from_bytes(&bytes[..bytes.len() - 2]), None);
        assert_eq!(Event::from_bytes(&[]), None);
    }
}
