//! From the record of the kernel side to a typed event.

use std::collections::HashMap;

use agent_common::{
    connection::{SocketFacts, Tuple, connection_flag, role},
    event::{Event as Record, flag, kind, socket},
    layout::{Locations, Member},
    tcp::{self, state},
};
use jiff::Timestamp;

use super::{
    Endpoint, Event, Millis, Role, Socket, Tcp, What, address,
    age::age,
    bytes, connect, errno,
    facts::{facts, state_name},
    idle::{connection_state, idle},
};

/// What decoding needs to know about the running kernel.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// Ticks per second, measured.
    pub hz: u32,
    /// Which members exist: what does not is left out of the event.
    pub locations: Locations,
    /// Names of `enum sk_rst_reason` without the prefix.
    pub reasons: HashMap<u32, String>,
}

impl Decoder {
    /// Decodes a record. `realtime_offset_ns` is CLOCK_REALTIME − CLOCK_BOOTTIME.
    #[must_use]
    pub fn decode(&self, record: &Record, realtime_offset_ns: i128) -> Event {
        let known = record.flags & flag::CONNECTION != 0;
        let idle = if self.trusts_facts(record) { idle(record, self.hz) } else { super::Idle::default() };
        Event {
            boot_ns: record.boot_ns,
            time: wall_time(record.boot_ns, realtime_offset_ns),
            what: what(record),
            socket: socket_kind(record.socket),
            kernel_reason: self.reason(record),
            role: match record.connection.role {
                role::CLIENT if known => Role::Client,
                role::SERVER if known => Role::Server,
                _ => implied_role(record),
            },
            age: age(record, self.hz),
            idle,
            tcp: self.tcp(record),
            local: endpoint(&record.tuple.local, record.tuple.local_port),
            peer: endpoint(&record.tuple.peer, record.tuple.peer_port),
            backend: None,
            netns: (record.tuple.netns != 0).then_some(record.tuple.netns),
            owner: (known && record.connection.owner.tgid != 0).then_some(record.connection.owner),
            cgroup: cgroup(record),
            facts: facts(record, self.hz, |member| self.has(member)),
        }
    }

    fn has(&self, member: Member) -> bool {
        self.locations[member as usize].is_present()
    }

    /// A failed read leaves zeros in the record: not to be told from measured ones.
    fn trusts_facts(&self, record: &Record) -> bool {
        record.flags & flag::FACTS != 0 && record.flags & flag::READ_FAULT == 0
    }

    fn reason(&self, record: &Record) -> Option<String> {
        if record.flags & flag::REASON == 0 || record.reason == 0 {
            return None;
        }
        self.reasons.get(&record.reason).cloned()
    }

    fn tcp(&self, record: &Record) -> Tcp {
        let mut tcp = Tcp { state: state_name(record.state), ..Tcp::default() };
        if !self.trusts_facts(record) {
            return tcp;
        }
        let facts = &record.facts;
        let when = |member: Member| self.has(member);
        let state = connection_state(record);
        let who = record.connection.role;
        let known = record.flags & flag::CONNECTION != 0;
        let connecting = record.kind == kind::CONNECT_FAILED;

        tcp.error = error(record);
        tcp.bytes_sent = when(Member::BytesSent).then_some(facts.bytes_sent);
        tcp.bytes_acked = if when(Member::BytesAcked) { bytes::acked(facts, who, state) } else { None };
        tcp.bytes_received = when(Member::BytesReceived).then(|| bytes::received(facts));
        tcp.unread_bytes =
            (when(Member::RcvNxt) && when(Member::CopiedSeq) && !connecting).then(|| bytes::unread(facts));
        tcp.unacked_segments = when(Member::PacketsOut).then_some(facts.packets_out);
        tcp.retransmits = when(Member::TotalRetrans).then_some(facts.total_retransmits);
        tcp.syn_retransmits = if connecting {
            when(Member::Retransmits).then_some(u32::from(facts.retransmits))
        } else {
            // Counted at ESTABLISHED; a connection whose birth was not seen has no such number.
            (known && who == role::CLIENT && record.connection.established_ns != 0)
                .then_some(record.connection.syn_retransmits)
        };
        // 0 until the first measurement.
        tcp.srtt_ms =
            (when(Member::Srtt) && facts.srtt_8us != 0).then(|| Millis::from_us(u64::from(facts.srtt_8us) / 8));
        tcp.segs_in = when(Member::SegsIn).then_some(facts.segments_in);
        tcp.segs_out = when(Member::SegsOut).then_some(facts.segments_out);
        tcp
    }
}

fn what(record: &Record) -> What {
    match record.kind {
        kind::RESET_RECEIVED => What::ResetReceived,
        kind::CONNECT_FAILED => What::ConnectFailed(connect::failure(record)),
        kind::TIMED_OUT => What::TimedOut,
        kind::CLOSED => What::Closed,
        _ => What::ResetSent,
    }
}

const fn socket_kind(kind: u8) -> Socket {
    match kind {
        socket::FULL => Socket::Full,
        socket::TIME_WAIT => Socket::Timewait,
        socket::REQUEST => Socket::Request,
        socket::LISTENER => Socket::Listener,
        _ => Socket::None,
    }
}

/// What the segments themselves tell where nobody saw a birth: who sends a SYN is the client, so whoever answers one
/// with a RST would have been the server; and only a client is ever in SYN_SENT.
fn implied_role(record: &Record) -> Role {
    let opening = tcp::flag::SYN | tcp::flag::ACK;
    if record.state == state::SYN_SENT {
        return Role::Client;
    }
    if record.flags & flag::SEGMENT == 0 {
        return Role::Unknown;
    }
    match record.segment.flags & opening {
        tcp::flag::SYN => Role::Server,
        flags if flags == opening => Role::Client,
        _ => Role::Unknown,
    }
}

/// The error the application gets. `tcp_reset()` sets `sk_err` only after the tracepoint; which one it will be depends
/// on the state alone (`net/ipv4/tcp_input.c`, the switch in `tcp_reset`).
fn error(record: &Record) -> Option<String> {
    if record.kind == kind::RESET_RECEIVED {
        let errno = if record.state == state::CLOSE_WAIT { libc::EPIPE } else { libc::ECONNRESET };
        return Some(errno::name(errno.cast_unsigned()));
    }
    // Of a connection that closed before, the error is history.
    (record.facts.error != 0 && record.flags & flag::CLOSED == 0).then(|| errno::name(record.facts.error))
}

/// By order of evidence: the owner's own, the acceptor's (memory controller), the creator's. The acceptor's is no better
/// than the creator's once the acceptor has ended and somebody else has the socket. An owner without a process is several
/// that share a cgroup.
fn cgroup(record: &Record) -> Option<(u64, bool)> {
    let known = record.flags & flag::CONNECTION != 0;
    let connection = &record.connection;
    if known && connection.owner.cgroup_id != 0 {
        Some((connection.owner.cgroup_id, false))
    } else if record.cgroups.memory != 0 {
        Some((record.cgroups.memory, known && connection.flags & connection_flag::HANDED_ON != 0))
    } else if record.cgroups.creator != 0 {
        Some((record.cgroups.creator, true))
    } else {
        None
    }
}

fn endpoint(address: &[u32; 4], port: u16) -> Endpoint {
    Endpoint { ip: address::from_words(address), port: (port != 0).then_some(port) }
}

fn wall_time(boot_ns: u64, realtime_offset_ns: i128) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(boot_ns) + realtime_offset_ns).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// What an ambiguous received reset adds to the answer that proved no RST had arrived: the state and numbers of the
/// socket while it was still whole.
pub fn merge_into_answer(received: &Record, answer: &mut Record) {
    answer.state = received.state;
    answer.facts = SocketFacts { error: answer.facts.error, ..received.facts };
    if answer.flags & flag::CONNECTION == 0 && received.flags & flag::CONNECTION != 0 {
        answer.connection = received.connection;
        answer.flags |= flag::CONNECTION;
    }
    if answer.tuple.local_port == 0 {
        answer.tuple = Tuple { ..received.tuple };
    }
}

#[cfg(test)]
impl Decoder {
    /// For tests: a kernel of 250 Hz that has every member, and these reasons.
    pub fn of_a_whole_kernel(reasons: &[(u32, &str)]) -> Self {
        use agent_common::{
            layout::{Location, MEMBERS},
            settings::Settings,
        };
        let mut locations = Settings::EMPTY.locations;
        for (index, place) in locations.iter_mut().enumerate().take(MEMBERS.len()) {
            *place = Location::new(index as u32 * 8, 0).unwrap();
        }
        let reasons = reasons.iter().map(|&(value, name)| (value, name.to_owned())).collect();
        Self { hz: 250, locations, reasons }
    }
}

#[cfg(test)]
mod tests {
    use agent_common::{
        connection::{Connection, SocketCgroups, Task, mapped, owner_from},
        layout::Location,
    };

    use super::*;

    fn decoder() -> Decoder {
        Decoder::of_a_whole_kernel(&[(11, "TCP_ABORT_ON_CLOSE")])
    }

    fn record() -> Record {
        Record {
            boot_ns: 5_000_000_000,
            kind: kind::RESET_RECEIVED,
            socket: socket::FULL,
            state: state::ESTABLISHED,
            flags: flag::FACTS | flag::CONNECTION,
            tuple: Tuple {
                local: mapped(u32::from_ne_bytes([10, 0, 0, 1])),
                peer: [u32::from_be(0xfd00_0000), 0, 0, u32::from_be(7)],
                local_port: 40000,
                peer_port: 80,
                netns: 4_026_531_840,
            },
            ..Record::default()
        }
    }

    #[test]
    fn addresses_are_the_readers() {
        let event = decoder().decode(&record(), 0);
        assert_eq!(event.local.ip.to_string(), "10.0.0.1");
        assert_eq!(event.peer.ip.to_string(), "fd00::7");
        assert_eq!(event.time.to_string(), "1970-01-01T00:00:05Z");
    }

    #[test]
    fn error_is_what_the_application_will_get() {
        let mut record = record();
        assert_eq!(decoder().decode(&record, 0).tcp.error.as_deref(), Some("ECONNRESET"));
        record.state = state::CLOSE_WAIT;
        assert_eq!(decoder().decode(&record, 0).tcp.error.as_deref(), Some("EPIPE"));
    }

    #[test]
    fn a_member_the_kernel_lacks_is_absent_and_not_zero() {
        let mut decoder = decoder();
        decoder.locations[Member::BytesSent as usize] = Location::ABSENT;
        let event = decoder.decode(&record(), 0);
        assert_eq!(event.tcp.bytes_sent, None);
        assert_eq!(event.tcp.bytes_received, Some(0));
    }

    #[test]
    fn numbers_of_a_failed_read_are_not_shown() {
        let mut record = record();
        record.flags |= flag::READ_FAULT;
        let event = decoder().decode(&record, 0);
        assert_eq!((event.tcp.bytes_sent, event.tcp.unread_bytes, event.idle.rx), (None, None, None));
    }

    #[test]
    fn unspecified_reason_names_nothing() {
        let mut record = record();
        record.flags |= flag::REASON;
        assert_eq!(decoder().decode(&record, 0).kernel_reason, None);
        record.reason = 11;
        assert_eq!(decoder().decode(&record, 0).kernel_reason.as_deref(), Some("TCP_ABORT_ON_CLOSE"));
        record.reason = 4242;
        assert_eq!(decoder().decode(&record, 0).kernel_reason, None);
    }

    #[test]
    fn who_answers_a_syn_would_have_been_the_server() {
        let mut record = record();
        record.flags = flag::SEGMENT;
        record.segment.flags = tcp::flag::SYN;
        assert_eq!(decoder().decode(&record, 0).role, Role::Server);
        record.segment.flags = tcp::flag::SYN | tcp::flag::ACK;
        assert_eq!(decoder().decode(&record, 0).role, Role::Client);
        record.segment.flags = tcp::flag::ACK;
        assert_eq!(decoder().decode(&record, 0).role, Role::Unknown);
    }

    #[test]
    fn cgroup_of_the_owner_comes_before_the_acceptors_before_the_creators() {
        let mut record = record();
        record.cgroups = SocketCgroups { memory: 20, creator: 30 };
        record.connection = Connection { owner: Task { tgid: 1, cgroup_id: 10, ..Task::NOBODY }, ..Connection::NONE };
        assert_eq!(decoder().decode(&record, 0).cgroup, Some((10, false)));
        record.connection = Connection::NONE;
        assert_eq!(decoder().decode(&record, 0).cgroup, Some((20, false)));
        record.cgroups.memory = 0;
        assert_eq!(decoder().decode(&record, 0).cgroup, Some((30, true)));
    }

    #[test]
    fn what_was_handed_on_has_the_cgroup_of_whoever_had_it_before() {
        let mut record = record();
        record.cgroups = SocketCgroups { memory: 20, creator: 30 };
        record.connection.flags = connection_flag::HANDED_ON;
        let event = decoder().decode(&record, 0);
        assert_eq!((event.owner, event.cgroup), (None, Some((20, true))));
        // Until somebody is seen to use it.
        record.connection.owner = Task { tgid: 1, cgroup_id: 10, ..Task::NOBODY };
        assert_eq!(decoder().decode(&record, 0).cgroup, Some((10, false)));
    }

    #[test]
    fn several_holders_share_their_cgroup_and_none_is_named() {
        let mut record = record();
        record.cgroups = SocketCgroups { memory: 20, creator: 30 };
        record.connection.owner = Task { cgroup_id: 10, ..Task::NOBODY };
        record.connection.owner_from = owner_from::OPEN;
        let event = decoder().decode(&record, 0);
        assert_eq!((event.owner, event.cgroup, event.facts.owner_from), (None, Some((10, false)), None));
    }
}
