//! Rules on made-up events: what no test can provoke for real, and what a rule must not say. The rules' own files have
//! theirs here under the same names; [`played`] has what real programs were seen to do.

mod closing;
mod connect;
mod played;
mod received;
mod sent;
mod timeout;

use agent_common::{
    connection::{connection_flag, facts_flag, first_fin, role},
    event::{Event as Record, Segment, flag, kind, socket},
    tcp::{flag as tcp_flag, sock_flag, state},
};

use super::*;
use crate::{
    diagnosis::{Other, Sent, chain::recent::Recent, kernel_reason, limits::NoLimits, timeouts::Timeouts},
    event::{
        decode::Decoder,
        party::{Owner, Process},
    },
};

const REASONS: [(u32, &str); 10] = [
    (1, "NO_SOCKET"),
    (8, "TCP_ABORT_ON_DATA"),
    (9, "TCP_TIMEWAIT_SOCKET"),
    (10, "INVALID_SYN"),
    (11, "TCP_ABORT_ON_CLOSE"),
    (12, "TCP_ABORT_ON_LINGER"),
    (13, "TCP_ABORT_ON_MEMORY"),
    (14, "TCP_STATE"),
    (15, "TCP_KEEPALIVE_TIMEOUT"),
    (18, "MPTCP_RST_EMPTCP"),
];

/// The cause of a reset of an established client connection, decoded as the agent does it.
fn judged(change: impl FnOnce(&mut Record)) -> Cause {
    judged_as(None, None, change)
}

/// The same, of a process with this name, and with the end that sent it at hand.
fn judged_as(process: Option<&str>, sender: Option<&Sent>, change: impl FnOnce(&mut Record)) -> Cause {
    judged_with(process, Other { sender, ..Other::default() }, &Recent::default(), change)
}

/// The same, where the sender would have been seen and was not.
fn judged_without_a_sender(change: impl FnOnce(&mut Record)) -> Cause {
    judged_with(None, Other { missing: true, ..Other::default() }, &Recent::default(), change)
}

/// The same, after what went before in its process.
fn judged_after(recent: &Recent, change: impl FnOnce(&mut Record)) -> Cause {
    judged_with(None, Other::default(), recent, change)
}

fn judged_with(process: Option<&str>, other: Other<'_>, recent: &Recent, change: impl FnOnce(&mut Record)) -> Cause {
    let event = decoded(change);
    judged_event(&event, process, other, recent)
}

/// The same of an event at hand.
fn judged_event(event: &Event, process: Option<&str>, other: Other<'_>, recent: &Recent) -> Cause {
    let timeouts = Timeouts::built_in();
    let context = Context {
        process,
        before: recent.before_event(event),
        limits: &NoLimits,
        timeouts: &timeouts,
        sender: other.sender,
        receiver: other.receiver,
        sender_missing: other.missing,
    };
    judge(event, &context)
}

fn decoded(change: impl FnOnce(&mut Record)) -> Event {
    let mut record = Record {
        boot_ns: 100_000_000_000,
        monotonic_ns: 100_000_000_000,
        jiffies: 100_000,
        kind: kind::RESET_RECEIVED,
        socket: socket::FULL,
        state: state::ESTABLISHED,
        flags: flag::FACTS | flag::CONNECTION,
        ..Record::default()
    };
    record.connection.birth_ns = 50_000_000_000;
    record.connection.role = role::CLIENT;
    record.facts.bits = facts_flag::HAS_FILE | facts_flag::TIMESTAMPS_ON | facts_flag::SAW_TIMESTAMP;
    record.facts.received_stamp = 99_500;
    record.facts.sent_stamp = 99_400;
    record.facts.bytes_received = 100;
    record.facts.bytes_sent = 100;
    change(&mut record);
    Decoder::of_a_whole_kernel(&REASONS).decode(&record, 0)
}

fn sent(reason: u32, change: impl FnOnce(&mut Record)) -> Cause {
    judged(|record| {
        record.kind = kind::RESET_SENT;
        record.reason = reason;
        record.flags |= flag::REASON;
        change(record);
    })
}

/// The client end's RST, a given time after the kernel saw this FIN and these stamps (in ticks).
fn with_fin(record: &mut Record, by: u8, fin_ms: u64, idle_rx: u32, idle_tx: u32) {
    record.connection.first_fin = by;
    record.connection.first_fin_ns = record.boot_ns - fin_ms * 1_000_000;
    // HZ is 250.
    let jiffies = record.jiffies - u32::try_from(fin_ms / 4).unwrap();
    record.connection.fin_jiffies = jiffies;
    record.connection.fin_received_stamp = jiffies - idle_rx;
    record.connection.fin_sent_stamp = jiffies - idle_tx;
}

/// No data went either way after the FIN.
fn nothing_since_the_fin(record: &mut Record) {
    record.facts.received_stamp = record.connection.fin_received_stamp;
    record.facts.sent_stamp = record.connection.fin_sent_stamp;
}

fn answering(record: &mut Record, on: u8, flags: u8, payload: u32) {
    record.kind = kind::RESET_ANSWERED;
    record.socket = on;
    record.flags |= flag::SEGMENT;
    record.segment = Segment { flags, payload, ..Segment::default() };
}

/// Of a connection that this host had closed before.
fn after_close(who: u8, change: impl FnOnce(&mut Record)) -> Cause {
    judged(|record| {
        answering(record, socket::TIME_WAIT, tcp_flag::PSH | tcp_flag::ACK, 72);
        record.flags |= flag::CLOSED;
        record.closed_ns = record.boot_ns - 100_000_000;
        record.state = state::TIME_WAIT;
        record.connection.role = who;
        record.connection.last_state = state::FIN_WAIT2;
        change(record);
    })
}
