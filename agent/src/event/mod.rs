//! The domain event: what one line of output means.
//!
//! * [`decode`]: from the record of the kernel side to a typed [`Event`]; every rule that turns raw numbers into a
//!   statement is applied there ([`age`], [`idle`], [`connect`], [`bytes`]).
//! * [`mod@line`]: the JSON form, `rstscope.v1`, with [`link`] for what belongs together; [`id`]: what names a line;
//!   [`reason`]: a few words for the table.
//! * [`party`]: who an end of a connection belongs to.

pub mod address;
pub mod age;
pub mod bytes;
pub mod connect;
pub mod decode;
mod end;
pub mod errno;
pub mod facts;
pub mod id;
pub mod idle;
pub mod line;
pub mod link;
pub mod millis;
pub mod party;
pub mod reason;

use std::net::{IpAddr, SocketAddr};

use agent_common::connection::Task;
use jiff::Timestamp;

pub use self::{age::Age, connect::ConnectFailure, facts::Facts, idle::Idle, millis::Millis};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A RST arrived for a connection.
    ResetReceived,
    /// A RST was sent.
    ResetSent,
    /// A connect failed.
    ConnectFailed(ConnectFailure),
    /// An established connection ended by a timer, no RST either way.
    TimedOut,
    /// A process closed a connection with a FIN right after another one of its had failed. It has no line of its own: the
    /// other one's may name it as what it led to.
    Closed,
}

impl What {
    /// The `type` of its line.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::ResetReceived | Self::ResetSent => "reset",
            Self::ConnectFailed(_) => "connect_failure",
            Self::TimedOut => "timeout",
            Self::Closed => "close",
        }
    }

    /// Which way the RST went, if there was one.
    #[must_use]
    pub const fn direction(self) -> Option<&'static str> {
        match self {
            Self::ResetReceived | Self::ConnectFailed(ConnectFailure::Refused) => Some("received"),
            Self::ResetSent => Some("sent"),
            Self::ConnectFailed(_) | Self::TimedOut | Self::Closed => None,
        }
    }
}

/// What kind of socket the reset was received by or sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Socket {
    /// The connection's own socket.
    Full,
    /// A TIME_WAIT mini-socket.
    Timewait,
    /// A half-open request.
    Request,
    /// A listener.
    Listener,
    /// None at all.
    None,
}

/// Who opened the connection, seen from the local end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The local end.
    Client,
    /// The peer.
    Server,
    /// Not seen.
    Unknown,
}

/// Address and port of one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address; an IPv4-mapped one is given as IPv4.
    pub ip: IpAddr,
    /// The port; `None` if none was chosen.
    pub port: Option<u16>,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(formatter),
            None => self.ip.fmt(formatter),
        }
    }
}

/// The connection's numbers, as `ss -i` would have shown them.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Tcp {
    /// State before the event, the kernel's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// The error the application gets, the errno's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Payload bytes sent, retransmissions included (`tcpi_bytes_sent`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_sent: Option<u64>,
    /// Payload bytes the peer acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_acked: Option<u64>,
    /// Payload bytes received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_received: Option<u64>,
    /// Payload bytes received and not read by the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread_bytes: Option<u32>,
    /// Segments sent and not acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unacked_segments: Option<u32>,
    /// Segments retransmitted over the connection's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u32>,
    /// SYNs retransmitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syn_retransmits: Option<u32>,
    /// Smoothed round-trip time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srtt_ms: Option<Millis>,
    /// Segments received, the RST itself included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segs_in: Option<u32>,
    /// Segments sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segs_out: Option<u32>,
}

/// One reset, failed connect or timed-out connection, before anybody is named.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When the kernel saw it.
    pub time: Timestamp,
    /// The same on CLOCK_BOOTTIME, nanoseconds.
    pub boot_ns: u64,
    /// What it was.
    pub what: What,
    /// The kind of socket concerned.
    pub socket: Socket,
    /// The kernel's own reason (`enum sk_rst_reason` without its prefix), where it gives one.
    pub kernel_reason: Option<String>,
    /// Who opened the connection.
    pub role: Role,
    /// How old the connection is.
    pub age: Option<Age>,
    /// How long nothing was sent or received.
    pub idle: Idle,
    /// The connection's numbers.
    pub tcp: Tcp,
    /// Our end.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// The endpoint that the peer's address stands for, if that is another: decoding leaves it open.
    pub backend: Option<SocketAddr>,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// The process that uses the socket, if it was seen.
    pub owner: Option<Task>,
    /// Cgroup of the socket: id, and whether it is only the creator's.
    pub cgroup: Option<(u64, bool)>,
    /// Facts behind the line that later stages reason with.
    pub facts: Facts,
}
