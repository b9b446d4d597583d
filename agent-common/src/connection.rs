//! What is remembered about one connection: the value types of the two tables of the kernel side.

/// A process (thread group) seen in process context, and the thread of it that ran.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Thread group id, what userspace calls the pid; 0: nobody known.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// When the thread group's leader started, nanoseconds of CLOCK_BOOTTIME
    /// (`task_struct.start_boottime`); tells a reused pid from the same process.
    pub start_boottime_ns: u64,
    /// Id of its cgroup in the v2 hierarchy, the inode number of the directory.
    pub cgroup_id: u64,
    /// The thread group leader's name. Not the thread's: `wrk:worker_0` is of no help to anybody looking for `envoy`.
    pub comm: [u8; 16],
}

impl Task {
    /// Nobody known.
    pub const NOBODY: Self = Self { tgid: 0, tid: 0, start_boottime_ns: 0, cgroup_id: 0, comm: [0; 16] };
}

/// How the owner of a connection became known.
pub mod owner_from {
    /// Nobody yet.
    pub const NONE: u8 = 0;
    /// It called `connect()`.
    pub const CONNECT: u8 = 1;
    /// It read from the socket, the last that did (`tcp_rcv_space_adjust`).
    pub const READ: u8 = 2;
    /// It closed the socket or shut it down.
    pub const CLOSE: u8 = 3;
    /// It accepted the connection; another process may be the one that uses it.
    pub const ACCEPT: u8 = 4;
    /// It had the connection open when the agent started, and no other process had. Without a process
    /// ([`Task::tgid`](super::Task::tgid) 0): several had, and any of them may be the one that uses it.
    pub const OPEN: u8 = 5;

    /// Whether a process that closes the connection is a better answer. One that reads from it always is.
    #[must_use]
    pub const fn is_weak(how: u8) -> bool {
        matches!(how, NONE | ACCEPT | OPEN)
    }
}

/// Which end opened the connection, seen from the local socket.
pub mod role {
    /// Its birth was not seen.
    pub const UNKNOWN: u8 = 0;
    /// The local end called `connect()`.
    pub const CLIENT: u8 = 1;
    /// The local end accepted.
    pub const SERVER: u8 = 2;
}

/// Which end sent the first FIN.
pub mod first_fin {
    /// No FIN yet.
    pub const NONE: u8 = 0;
    /// The local end.
    pub const LOCAL: u8 = 1;
    /// The peer.
    pub const PEER: u8 = 2;
}

/// Bits of [`Connection::flags`].
pub mod connection_flag {
    /// A RST arrived (`tcp_receive_reset` fired).
    pub const RESET_RECEIVED: u8 = 1;
    /// A RST was sent for it.
    pub const RESET_SENT: u8 = 2;
    /// The closing task was exiting (`PF_EXITING`).
    pub const CLOSER_EXITING: u8 = 4;
    /// [`Connection::closer`](super::Connection::closer) is known.
    pub const CLOSER_KNOWN: u8 = 8;
    /// Its owner has ended while the socket stayed open: somebody else has it now. What the socket itself keeps of a
    /// cgroup is the former owner's.
    pub const HANDED_ON: u8 = 16;
}

/// A connection as the kernel side has followed it: value of the table keyed by the socket's address.
///
/// Socket addresses are reused at once (`SLAB_TYPESAFE_BY_RCU`), so every birth overwrites the whole record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// When the connection began, nanoseconds of CLOCK_BOOTTIME: `connect()` on the client, the handshake's last ACK
    /// on the server (`LISTEN → SYN_RECV`). 0: before the agent.
    pub birth_ns: u64,
    /// When it reached ESTABLISHED; 0: not seen.
    pub established_ns: u64,
    /// When the first FIN was sent or received; 0: none seen.
    pub first_fin_ns: u64,
    /// Address of the `struct task_struct` of the owner's thread group leader: an identity to be proved before use, never
    /// shown. 0: none.
    pub owner_leader: u64,
    /// Who uses the socket.
    pub owner: Task,
    /// Who closed it, where a task did.
    pub closer: Task,
    /// The tick counter at the first FIN.
    pub fin_jiffies: u32,
    /// [`SocketFacts::received_stamp`] at the first FIN. Raw, so that whether anything came after it is told by the stamps
    /// alone: on a machine that was stopped for a while (its host was busy) the tick counter lags behind every clock.
    pub fin_received_stamp: u32,
    /// [`SocketFacts::sent_stamp`] at the first FIN.
    pub fin_sent_stamp: u32,
    /// `task_struct.exit_code` of an exiting closer: the low seven bits are the signal.
    pub exit_code: u32,
    /// SYNs sent again before it was established.
    pub syn_retransmits: u32,
    /// One of [`role`].
    pub role: u8,
    /// One of [`owner_from`].
    pub owner_from: u8,
    /// One of [`first_fin`].
    pub first_fin: u8,
    /// State before CLOSE; 0: not closed yet.
    pub last_state: u8,
    /// See [`connection_flag`].
    pub flags: u8,
    /// Whether the owner's cgroup lies under the one the user asked for: 0 not tested, 1 no, 2 yes.
    pub owner_in_cgroup: u8,
    /// Explicit padding, 0.
    pub padding: [u8; 6],
}

impl Connection {
    /// Nothing known: what [`Default`] gives, as a constant.
    pub const NONE: Self = Self {
        birth_ns: 0,
        established_ns: 0,
        first_fin_ns: 0,
        owner_leader: 0,
        owner: Task::NOBODY,
        closer: Task::NOBODY,
        fin_jiffies: 0,
        fin_received_stamp: 0,
        fin_sent_stamp: 0,
        exit_code: 0,
        syn_retransmits: 0,
        role: role::UNKNOWN,
        owner_from: owner_from::NONE,
        first_fin: first_fin::NONE,
        last_state: 0,
        flags: 0,
        owner_in_cgroup: 0,
        padding: [0; 6],
    };
}

/// Both ends of a connection as one end sees them: key of the closed-connection table.
///
/// Addresses are in network byte order, IPv4 in its IPv4-mapped IPv6 form. So an AF_INET6 socket with a mapped
/// address and the AF_INET packets of the same connection have the same key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Local address.
    pub local: [u32; 4],
    /// Peer's address.
    pub peer: [u32; 4],
    /// Local port, host byte order; 0: not known.
    pub local_port: u16,
    /// Peer's port, host byte order.
    pub peer_port: u16,
    /// Inode number of the network namespace (`net.ns.inum`); 0: not known.
    pub netns: u32,
}

/// The third word of an IPv4-mapped IPv6 address, in network byte order.
pub const MAPPED_PREFIX: u32 = 0xffff_u32.to_be();

/// An IPv4 address in network byte order as IPv4-mapped IPv6 address.
#[inline(always)]
#[must_use]
pub const fn mapped(v4: u32) -> [u32; 4] {
    [0, 0, MAPPED_PREFIX, v4]
}

/// Numbers read from a full socket (`struct tcp_sock` and what it contains).
///
/// Stamps are raw, so that idle times can be computed at the time of the event from a socket that closed long before:
/// `*_stamp` are the low 32 bits of jiffies, `*_us` microseconds of CLOCK_MONOTONIC. A member the running kernel does
/// not have reads as 0; the agent knows which those are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketFacts {
    /// `sock_common.skc_cookie`: a number no other socket ever gets, handed out when somebody asks for it; 0: nobody has.
    pub cookie: u64,
    /// `tcp_sock.bytes_sent`: payload sent, retransmissions included.
    pub bytes_sent: u64,
    /// `tcp_sock.bytes_acked`: counts a client's SYN and the FIN as one each.
    pub bytes_acked: u64,
    /// `tcp_sock.bytes_received`: counts the FIN as one.
    pub bytes_received: u64,
    /// `tcp_sock.rcvq_space.time`: set when the connection is established, later when the application reads.
    pub receive_queue_us: u64,
    /// `tcp_sock.delivered_mstamp`.
    pub delivered_us: u64,
    /// `tcp_sock.lsndtime`: last data segment sent, retransmissions included.
    pub sent_stamp: u32,
    /// `inet_connection_sock.icsk_ack.lrcvtime`: last in-order data received.
    pub received_stamp: u32,
    /// `tcp_sock.rcv_tstamp`: last acceptable ACK.
    pub ack_stamp: u32,
    /// `tcp_sock.snd_cwnd_stamp`: set when the connection is established, later when the congestion window moves.
    pub cwnd_stamp: u32,
    /// `tcp_sock.segs_in`, the RST itself included.
    pub segments_in: u32,
    /// `tcp_sock.segs_out`.
    pub segments_out: u32,
    /// `tcp_sock.srtt_us`: smoothed round-trip time in eighths of a microsecond.
    pub srtt_8us: u32,
    /// `tcp_sock.total_retrans`.
    pub total_retransmits: u32,
    /// `tcp_sock.rcv_nxt`.
    pub receive_next: u32,
    /// `tcp_sock.copied_seq`: how far the application has read.
    pub copied: u32,
    /// `tcp_sock.snd_una`.
    pub send_unacked: u32,
    /// `tcp_sock.snd_nxt`.
    pub send_next: u32,
    /// `tcp_sock.write_seq`: how far the application has written.
    pub written: u32,
    /// `tcp_sock.packets_out`: segments sent and not acknowledged.
    pub packets_out: u32,
    /// `tcp_sock.retrans_out`.
    pub retransmits_out: u32,
    /// `sock.sk_lingertime` in jiffies, meaningful with [`sock_flag::LINGER`](crate::tcp::sock_flag::LINGER).
    pub linger: u32,
    /// The low bits of `sock_common.skc_flags`.
    pub flags: u32,
    /// `sock.sk_err`.
    pub error: u32,
    /// `sock.sk_err_soft`.
    pub soft_error: u32,
    /// `inet_connection_sock.icsk_user_timeout`: TCP_USER_TIMEOUT in milliseconds, 0 if not set.
    pub user_timeout_ms: u32,
    /// `tcp_sock.snd_wnd`: the peer's receive window.
    pub send_window: u32,
    /// `inet_connection_sock.icsk_retransmits`: timeouts in a row.
    pub retransmits: u8,
    /// `inet_connection_sock.icsk_probes_out`: keepalive or window probes unanswered.
    pub probes: u8,
    /// `sock.sk_shutdown`.
    pub shutdown: u8,
    /// See [`facts_flag`].
    pub bits: u8,
}

/// Bits of [`SocketFacts::bits`].
pub mod facts_flag {
    /// `tcp_options_received.saw_tstamp`: the last segment carried a timestamp option. At a received RST: the RST did,
    /// hence a live socket made it and not a bare answer.
    pub const SAW_TIMESTAMP: u8 = 1;
    /// `tcp_options_received.tstamp_ok`: timestamps are in use at all, else the bit above says nothing.
    pub const TIMESTAMPS_ON: u8 = 2;
    /// `sk_socket` is set: a file refers to the socket, or did until this `close()`.
    pub const HAS_FILE: u8 = 4;
}

/// Which server an idle limit belongs to: key of the idle-limit table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// The server's address, in the form of [`Tuple::local`].
    pub address: [u32; 4],
    /// The server's port, host byte order.
    pub port: u32,
    /// Network namespace of the end that learned it.
    pub netns: u32,
}

/// How long a server lets a connection be idle, learned from connections it closed with nothing outstanding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdleLimit {
    /// Jiffies of idleness at the last such close.
    pub last: u32,
    /// The least seen.
    pub least: u32,
    /// How many were seen.
    pub count: u32,
    /// Explicit padding, 0.
    pub padding: u32,
}

/// A process one of whose connections has just failed: value of a table keyed by thread group id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// When, nanoseconds of CLOCK_BOOTTIME.
    pub boot_ns: u64,
    /// Of that connection: one of [`role`].
    pub role: u32,
    /// How many closes may still be told of.
    pub left: u32,
}

/// Cgroups found through the socket rather than through a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCgroups {
    /// Through `sk_memcg`: the acceptor's. 0: none, or its hierarchy is not cgroup v2.
    pub memory: u64,
    /// Through `sk_cgrp_data`: the creator's; on an accepted socket the creator of the *listener*. 0: none.
    pub creator: u64,
}

/// A connection that is gone: value of the closed-connection table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Address of the socket it had.
    pub sk: u64,
    /// When it reached CLOSE, nanoseconds of CLOCK_BOOTTIME.
    pub closed_ns: u64,
    /// CLOCK_MONOTONIC at the same time, to read the `_us` stamps against.
    pub closed_monotonic_ns: u64,
    /// What was known of it.
    pub connection: Connection,
    /// Its last numbers.
    pub facts: SocketFacts,
    /// Its cgroups.
    pub cgroups: SocketCgroups,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel hashes a key byte by byte: padding would make two equal keys differ.
    #[test]
    fn records_have_no_padding() {
        assert_eq!(size_of::<Tuple>(), 2 * 16 + 2 * 2 + 4);
        assert_eq!(size_of::<Task>(), 2 * 4 + 2 * 8 + 16);
        assert_eq!(size_of::<Connection>(), 4 * 8 + 2 * size_of::<Task>() + 5 * 4 + 6 + 6);
        assert_eq!(size_of::<SocketFacts>(), 6 * 8 + 21 * 4 + 4);
        assert_eq!(size_of::<Failure>(), 8 + 2 * 4);
        assert_eq!(
            size_of::<Closed>(),
            24 + size_of::<Connection>() + size_of::<SocketFacts>() + size_of::<SocketCgroups>()
        );
    }

    #[test]
    fn ipv4_is_kept_in_its_mapped_form() {
        let address = mapped(u32::from_ne_bytes([127, 0, 0, 1]));
        let mut bytes = [0; 16];
        for (i, word) in address.iter().enumerate() {
            bytes[i * 4..][..4].copy_from_slice(&word.to_ne_bytes());
        }
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1]);
    }
}
