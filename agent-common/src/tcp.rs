//! Numbers of the kernel's TCP that never change: they are part of its user interface.

/// TCP states, `include/net/tcp_states.h` (also `tcpi_state` and `ss`'s state filter).
pub mod state {
    #![expect(missing_docs, reason = "the names are the kernel's own")]
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const TIME_WAIT: u8 = 6;
    pub const CLOSE: u8 = 7;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const LISTEN: u8 = 10;
    pub const CLOSING: u8 = 11;
    pub const NEW_SYN_RECV: u8 = 12;
}

/// The TCP header's flag byte (RFC 9293, 3.1).
pub mod flag {
    #![expect(missing_docs, reason = "the names are those of RFC 9293")]
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
}

/// Bits of `sk_shutdown`, `include/net/sock.h`.
pub mod shutdown {
    /// Nothing more is received: our `shutdown(SHUT_RD)`, or the peer's FIN.
    pub const RECEIVE: u8 = 1;
    /// Nothing more is sent.
    pub const SEND: u8 = 2;
    /// Both, as `close()` sets it.
    pub const BOTH: u8 = RECEIVE | SEND;
}

/// Bit masks of `sk_flags`, `enum sock_flags` in `include/net/sock.h`; the numbers are the same from 5.10 to 7.2.
pub mod sock_flag {
    /// `SOCK_DEAD`: no file refers to the socket any more (an orphan).
    pub const DEAD: u32 = 1 << 0;
    /// `SOCK_DONE`: the peer's FIN has arrived (`tcp_fin`).
    pub const DONE: u32 = 1 << 1;
    /// `SOCK_KEEPOPEN`: SO_KEEPALIVE is on.
    pub const KEEPOPEN: u32 = 1 << 3;
    /// `SOCK_LINGER`: SO_LINGER is on and `sk_lingertime` has a meaning.
    pub const LINGER: u32 = 1 << 4;
}

/// IPPROTO_TCP. `sk_protocol` is compared in its full 16 bits: MPTCP is 262, whose low byte is 6 too.
pub const IPPROTO_TCP: u16 = 6;
/// AF_INET.
pub const AF_INET: u16 = 2;
/// AF_INET6.
pub const AF_INET6: u16 = 10;
