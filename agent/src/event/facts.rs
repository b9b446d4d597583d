//! The facts behind a line: what the diagnosis reasons with, shown with `--facts`.
//!
//! They travel with every event. A line shows them only on request, because a reader who wants to know who was reset
//! wants a short line.

use agent_common::{
    connection::{connection_flag, facts_flag, first_fin, owner_from},
    event::{Event, flag, kind},
    jiffies,
    tcp::{self, shutdown, sock_flag},
};
use serde::Serialize;

use super::{ConnectFailure, Millis, bytes, connect, errno, idle::resent};

/// A task that did something in process context.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Actor {
    /// Thread group id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the thread group's leader.
    pub comm: String,
    /// It was exiting.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exiting: bool,
    /// The signal that ended it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<u32>,
    /// Its exit status, if it exited by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<u32>,
}

/// The first FIN of a connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FirstFin {
    /// `local` or `peer`.
    pub by: &'static str,
    /// How long before the event.
    pub ms_ago: Millis,
    /// How long nothing had been received then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_rx_ms: Option<Millis>,
    /// How long nothing had been sent then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_tx_ms: Option<Millis>,
    /// Whether data came after it. The stamps tell, not a comparison of times: what came within the same tick as data
    /// before the FIN is not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_after: Option<bool>,
    /// Whether data was sent after it, with the same reservation; not known while a retransmission is outstanding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_after: Option<bool>,
}

impl FirstFin {
    /// How long no data had gone either way then; only if both are known.
    #[must_use]
    pub fn idle(&self) -> Option<Millis> {
        let (rx, tx) = (self.idle_rx_ms?, self.idle_tx_ms?);
        Some(if rx < tx { rx } else { tx })
    }
}

/// The segment that a RST answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Segment {
    /// Its flags by their names in RFC 9293, joined by `,`.
    pub flags: String,
    /// Its sequence number.
    pub sequence: u32,
    /// Its acknowledgement number.
    pub acknowledgement: u32,
    /// Its payload.
    pub payload_bytes: u32,
}

/// Sequence numbers of both directions. One end's `send_next` is the other's `receive_next`, even across NAT.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sequence {
    /// `snd_una`.
    pub send_unacked: u32,
    /// `snd_nxt`.
    pub send_next: u32,
    /// `rcv_nxt`.
    pub receive_next: u32,
}

/// Everything known beyond the line.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Facts {
    /// How a connect failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_failure: Option<ConnectFailure>,
    /// An ICMP error that the kernel only took a note of (`sk_err_soft`): the errno's name. Of a failed connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_error: Option<String>,
    /// The RST that arrived carried a timestamp option: a live socket made it. Only where timestamps are in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rst_had_timestamp: Option<bool>,
    /// The RST answered data that nobody was going to read: `tcp_reset()` ran without a RST received.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub data_without_reader: bool,
    /// Sequence numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// The segment being answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<Segment>,
    /// Who did it, in process context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// Who closed the socket, where a task did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closer: Option<Actor>,
    /// How the owner became known: `connect`, `accept`, `read`, `close` or `open`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_from: Option<&'static str>,
    /// The first FIN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_fin: Option<FirstFin>,
    /// How long before the event the connection had closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_ms_ago: Option<Millis>,
    /// State before CLOSE, of a connection that had closed before the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_from: Option<&'static str>,
    /// How long before the event it was established.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub established_ms_ago: Option<Millis>,
    /// Sent and not acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight_bytes: Option<u32>,
    /// Written and not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsent_bytes: Option<u32>,
    /// Retransmission timeouts in a row (`icsk_retransmits`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts_in_a_row: Option<u8>,
    /// Keepalive or window probes unanswered (`icsk_probes_out`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<u8>,
    /// `none`, `receive`, `send` or `both`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<&'static str>,
    /// SO_LINGER's time, if it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linger_ms: Option<Millis>,
    /// SO_KEEPALIVE is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<bool>,
    /// TCP_USER_TIMEOUT, if it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_timeout_ms: Option<Millis>,
    /// The peer's receive window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_window_bytes: Option<u32>,
    /// Of a reset that was sent: the connection had been ended here before (close, disconnect); false if the RST came
    /// first (keepalive, SOCK_DESTROY).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_before: Option<bool>,
    /// A file refers to the socket; false before `accept()` and after `close()`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_file: Option<bool>,
    /// Resolution of idle times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tick_ms: Option<Millis>,
}

/// Collects the facts of an event; `has` tells which members the running kernel has.
#[must_use]
pub fn facts(event: &Event, hz: u32, has: impl Fn(agent_common::layout::Member) -> bool) -> Facts {
    use agent_common::layout::Member;

    let socket = &event.facts;
    let connection = &event.connection;
    // Zeros of a failed read are not to be told from measured ones.
    let full = event.flags & flag::FACTS != 0 && event.flags & flag::READ_FAULT == 0;
    let known = event.flags & flag::CONNECTION != 0;
    let here = |member: Member| full && has(member);
    let ago = |ns: u64| (ns != 0).then(|| Millis::from_ns(event.boot_ns.saturating_sub(ns)));

    Facts {
        connect_failure: (event.kind == kind::CONNECT_FAILED).then(|| connect::failure(event)),
        icmp_error: (event.kind == kind::CONNECT_FAILED && here(Member::SoftError) && socket.soft_error != 0)
            .then(|| errno::name(socket.soft_error)),
        rst_had_timestamp: (event.kind == kind::RESET_RECEIVED
            && here(Member::SawTstamp)
            && socket.bits & facts_flag::TIMESTAMPS_ON != 0)
            .then_some(socket.bits & facts_flag::SAW_TIMESTAMP != 0),
        data_without_reader: false,
        sequence: (here(Member::SndNxt) && here(Member::RcvNxt) && here(Member::SndUna)).then_some(Sequence {
            send_unacked: socket.send_unacked,
            send_next: socket.send_next,
            receive_next: socket.receive_next,
        }),
        segment: (event.flags & flag::SEGMENT != 0).then(|| Segment {
            flags: segment_flags(event.segment.flags),
            sequence: event.segment.sequence,
            acknowledgement: event.segment.acknowledgement,
            payload_bytes: event.segment.payload,
        }),
        actor: (event.flags & flag::ACTOR != 0)
            .then(|| actor(&event.actor, event.flags & flag::ACTOR_EXITING != 0, event.exit_code)),
        closer: (known && connection.flags & connection_flag::CLOSER_KNOWN != 0).then(|| {
            actor(&connection.closer, connection.flags & connection_flag::CLOSER_EXITING != 0, connection.exit_code)
        }),
        owner_from: match connection.owner_from {
            owner_from::CONNECT => Some("connect"),
            owner_from::ACCEPT => Some("accept"),
            owner_from::OPEN => Some("open"),
            owner_from::READ => Some("read"),
            owner_from::CLOSE => Some("close"),
            _ => None,
        }
        // Several processes had it open.
        .filter(|_| connection.owner.tgid != 0),
        first_fin: first_fin_of(event, hz, full),
        closed_ms_ago: ago(event.closed_ns),
        closed_from: if event.flags & flag::CLOSED != 0 { state_name(connection.last_state) } else { None },
        established_ms_ago: ago(connection.established_ns),
        in_flight_bytes: (here(Member::SndNxt) && here(Member::SndUna)).then(|| bytes::in_flight(socket)),
        unsent_bytes: (here(Member::WriteSeq) && here(Member::SndNxt)).then(|| bytes::unsent(socket)),
        timeouts_in_a_row: here(Member::Retransmits).then_some(socket.retransmits),
        probes: here(Member::ProbesOut).then_some(socket.probes),
        shutdown: full.then_some(shutdown_name(socket.shutdown)),
        linger_ms: (here(Member::LingerTime) && socket.flags & sock_flag::LINGER != 0)
            .then(|| Millis::from_ticks(socket.linger, hz)),
        keepalive: full.then_some(socket.flags & sock_flag::KEEPOPEN != 0),
        user_timeout_ms: (here(Member::UserTimeout) && socket.user_timeout_ms != 0)
            .then(|| Millis(f64::from(socket.user_timeout_ms))),
        send_window_bytes: here(Member::SndWnd).then_some(socket.send_window),
        ended_before: (full && event.flags & flag::CLOSED == 0 && is_sent(event.kind))
            .then_some(event.flags & flag::ENDED != 0),
        has_file: here(Member::Socket).then_some(socket.bits & facts_flag::HAS_FILE != 0),
        tick_ms: full.then(|| Millis::from_ticks(1, hz)),
    }
}

fn first_fin_of(event: &Event, hz: u32, full: bool) -> Option<FirstFin> {
    let Event { connection, facts, .. } = event;
    let idle = |stamp| jiffies::since(connection.fin_jiffies, stamp).map(|ticks| Millis::from_ticks(ticks, hz));
    let by = match connection.first_fin {
        first_fin::LOCAL => "local",
        first_fin::PEER => "peer",
        _ => return None,
    };
    Some(FirstFin {
        by,
        ms_ago: Millis::from_ns(event.boot_ns.saturating_sub(connection.first_fin_ns)),
        idle_rx_ms: idle(connection.fin_received_stamp),
        idle_tx_ms: idle(connection.fin_sent_stamp),
        received_after: full.then_some(facts.received_stamp != connection.fin_received_stamp),
        sent_after: (full && !resent(facts)).then_some(facts.sent_stamp != connection.fin_sent_stamp),
    })
}

fn actor(task: &agent_common::connection::Task, exiting: bool, code: u32) -> Actor {
    // `exit_code` is what wait(2) hands out: the signal in the low seven bits, else the status above them.
    let signal = code & 0x7f;
    Actor {
        pid: task.tgid,
        tid: task.tid,
        comm: comm(&task.comm),
        exiting,
        signal: (exiting && signal != 0).then_some(signal),
        exit_status: (exiting && signal == 0).then_some((code >> 8) & 0xff),
    }
}

/// A task's name as the kernel keeps it: up to 15 bytes and a NUL, which need not be UTF-8.
#[must_use]
pub fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

const fn is_sent(what: u8) -> bool {
    matches!(what, kind::RESET_SENT | kind::RESET_ANSWERED)
}

const fn shutdown_name(how: u8) -> &'static str {
    match how & shutdown::BOTH {
        shutdown::RECEIVE => "receive",
        shutdown::SEND => "send",
        shutdown::BOTH => "both",
        _ => "none",
    }
}

fn segment_flags(flags: u8) -> String {
    use tcp::flag::{ACK, FIN, PSH, RST, SYN};
    let names = [(SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK")];
    let set: Vec<&str> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    set.join(",")
}

/// The kernel's name of a TCP state, as `include/net/tcp_states.h` has it; 0 is none.
#[must_use]
pub const fn state_name(state: u8) -> Option<&'static str> {
    Some(match state {
        tcp::state::ESTABLISHED => "ESTABLISHED",
        tcp::state::SYN_SENT => "SYN_SENT",
        tcp::state::SYN_RECV | tcp::state::NEW_SYN_RECV => "SYN_RECV",
        tcp::state::FIN_WAIT1 => "FIN_WAIT1",
        tcp::state::FIN_WAIT2 => "FIN_WAIT2",
        tcp::state::TIME_WAIT => "TIME_WAIT",
        tcp::state::CLOSE => "CLOSE",
        tcp::state::CLOSE_WAIT => "CLOSE_WAIT",
        tcp::state::LAST_ACK => "LAST_ACK",
        tcp::state::LISTEN => "LISTEN",
        tcp::state::CLOSING => "CLOSING",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use agent_common::connection::Task;

    use super::*;

    #[test]
    fn exit_code_is_a_signal_or_a_status() {
        let killed = actor(&Task::NOBODY, true, 9);
        assert_eq!((killed.signal, killed.exit_status), (Some(9), None));
        let exited = actor(&Task::NOBODY, true, 3 << 8);
        assert_eq!((exited.signal, exited.exit_status), (None, Some(3)));
        let alive = actor(&Task::NOBODY, false, 0);
        assert_eq!((alive.signal, alive.exit_status), (None, None));
    }

    #[test]
    fn flags_have_their_rfc_names() {
        assert_eq!(segment_flags(0x18), "PSH,ACK");
        assert_eq!(segment_flags(0x02), "SYN");
    }

    #[test]
    fn timestamp_of_the_rst_means_nothing_without_timestamps() {
        let mut event = Event { kind: kind::RESET_RECEIVED, flags: flag::FACTS, ..Event::default() };
        event.facts.bits = facts_flag::SAW_TIMESTAMP;
        assert_eq!(facts(&event, 250, |_| true).rst_had_timestamp, None);
        event.facts.bits |= facts_flag::TIMESTAMPS_ON;
        assert_eq!(facts(&event, 250, |_| true).rst_had_timestamp, Some(true));
    }

    #[test]
    fn hostile_names_become_text() {
        assert_eq!(comm(b"\xffbad\x01\0xxxxxxxxxx"), "\u{fffd}bad\u{1}");
        assert_eq!(comm(b"0123456789abcdef"), "0123456789abcdef");
    }
}
