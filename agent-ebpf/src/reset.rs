//! Received and sent resets, told by `tcp_receive_reset` or `tcp_reset`, and by `tcp_send_reset`.

use agent_common::{
    connection::{Connection, connection_flag},
    event::{Event, flag, kind, socket as socket_kind},
    layout::Member,
    tcp::{flag as tcp_flag, shutdown, state},
};

use crate::{
    cgroup,
    kernel::{Kernel, field},
    lifecycle::follow,
    owner, proxy,
    report::{faults, fill_actor, fill_connection, fill_full, report},
    segment::{self, Received},
    socket,
};

/// `tcp_reset()` runs on `sk`, because of `skb`; 0 where the hook does not show that (the tracepoint inside). The socket
/// still has its old state, and `sk_err` is not set yet.
#[inline(always)]
pub fn on_receive_reset<K: Kernel>(kernel: &K, sk: u64, skb: u64) {
    let faults = faults(kernel);
    let old: u8 = field(kernel, sk, Member::State);
    let connection = match follow(kernel, sk) {
        Some(connection) => {
            owner::bring_up_to_date(kernel, sk, connection);
            connection.flags |= connection_flag::RESET_RECEIVED;
            Some(&*connection)
        }
        None => None,
    };
    // The refused connect is reported as such, once, when the socket reaches CLOSE with its error.
    if old == state::SYN_SENT {
        return;
    }
    if let Some(connection) = connection {
        proxy::failed(kernel, connection);
    }
    let tuple = socket::tuple(kernel, sk);
    let how: u8 = field(kernel, sk, Member::Shutdown);
    report(
        kernel,
        faults,
        &tuple,
        || judge(kernel, sk, connection),
        |event| {
            event.kind = kind::RESET_RECEIVED;
            fill_full(kernel, sk, old, event);
            fill_connection(connection, event);
            if may_be_data(old, how) {
                event.flags |= arrived(kernel, skb);
            }
        },
    );
}

/// Whether `tcp_reset()` in this state may have been called for data that nobody will read, not for a RST
/// (`tcp_rcv_state_process`, the step that processes the segment text).
///
/// Without the segment only a RST answered to the same socket tells (a RST is never answered), after this hook.
#[inline(always)]
#[must_use]
pub const fn may_be_data(state: u8, how: u8) -> bool {
    how & shutdown::RECEIVE != 0
        && matches!(state, state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSE_WAIT | state::CLOSING | state::LAST_ACK)
}

/// What the segment says about [data for a reader that is gone](may_be_data).
#[inline(always)]
fn arrived<K: Kernel>(kernel: &K, skb: u64) -> u32 {
    match segment::flags(kernel, skb) {
        0 => flag::AMBIGUOUS,
        flags if flags & tcp_flag::RST != 0 => 0,
        _ => flag::AMBIGUOUS | flag::NO_RST_ARRIVED,
    }
}

/// `tcp_send_reset`: a RST is sent. `sk` may be 0, a listener or a mini-socket; `skb`, the segment being answered, is 0
/// when the owner of the socket sends it by itself. `reason` is there from 6.10 on.
#[inline(always)]
pub fn on_send_reset<K: Kernel>(kernel: &K, sk: u64, skb: u64, reason: Option<u32>) {
    let faults = faults(kernel);
    if sk == 0 {
        return answered_for_nobody(kernel, faults, sk, skb, socket_kind::NONE, 0, reason);
    }
    let state: u8 = field(kernel, sk, Member::State);
    match socket::kind_of(state) {
        socket_kind::FULL => sent_for_connection(kernel, faults, sk, skb, state, reason),
        other => answered_for_nobody(kernel, faults, sk, skb, other, state, reason),
    }
}

/// `tcp_v4_send_reset` and `tcp_v6_send_reset` as functions: what the tracepoint inside them misses before about 6.10,
/// where it fires for full sockets and listeners only.
///
/// They are entered for every segment that fits no connection and return without sending for one that is a RST itself
/// or was not for this host.
#[inline(always)]
pub fn on_send_reset_function<K: Kernel>(kernel: &K, sk: u64, skb: u64) {
    let state: u8 = field(kernel, sk, Member::State);
    let kind_of_socket = if sk == 0 { socket_kind::NONE } else { socket::kind_of(state) };
    if !matches!(kind_of_socket, socket_kind::NONE | socket_kind::TIME_WAIT) {
        return;
    }
    let received = segment::read(kernel, skb);
    if received.segment.flags & tcp_flag::RST != 0 || (sk == 0 && !segment::is_for_this_host(kernel, skb, &received)) {
        return;
    }
    answered_for_nobody(kernel, faults(kernel), sk, skb, kind_of_socket, state, None);
}

/// A reset sent with the connection's own socket at hand.
#[inline(always)]
fn sent_for_connection<K: Kernel>(kernel: &K, faults: u64, sk: u64, skb: u64, state: u8, reason: Option<u32>) {
    let tuple = socket::tuple(kernel, sk);
    let closed = kernel.closed(&tuple).filter(|closed| closed.sk == sk);
    // A socket that is not in CLOSE yet lives on: followed from here on, so that its end (keepalive's timeout) is known
    // to have been told. One in CLOSE may be destroyed already, and nothing would ever remove its record.
    let living = if state == state::CLOSE { kernel.connection(sk) } else { follow(kernel, sk) };
    let connection = match living {
        Some(connection) => {
            // At CLOSE that was done, with the files as they were.
            if state != state::CLOSE {
                owner::bring_up_to_date(kernel, sk, connection);
            }
            if !lives_on(state, skb) {
                connection.flags |= connection_flag::RESET_SENT;
            }
            // By keepalive or an administrator, and not by whoever uses the connection.
            if skb == 0 && state != state::CLOSE {
                proxy::failed(kernel, connection);
            }
            Some(&*connection)
        }
        // Already destroyed: an orphan is, before the answer leaves.
        None => closed.map(|closed| &closed.connection),
    };
    // close(), linger 0 and disconnect have set CLOSE before they send; the state that matters is the one before.
    let before = match connection {
        Some(connection) if state == state::CLOSE && connection.last_state != 0 => connection.last_state,
        _ => state,
    };
    report(
        kernel,
        faults,
        &tuple,
        || judge(kernel, sk, connection),
        |event| {
            event.kind = if skb == 0 { kind::RESET_SENT } else { kind::RESET_ANSWERED };
            if state == state::CLOSE {
                event.flags |= flag::ENDED;
            }
            fill_full(kernel, sk, before, event);
            fill_connection(connection, event);
            fill_reason(reason, event);
            if skb == 0 {
                fill_actor(kernel, event);
                if state == state::CLOSE {
                    event.closed_ns = closed.map_or(0, |closed| closed.closed_ns);
                }
            } else {
                fill_segment(&segment::read(kernel, skb), event);
            }
        },
    );
}

/// Whether the socket survives this reset: an answer to a segment that fits no handshake ends neither the handshake nor
/// the socket.
#[inline(always)]
const fn lives_on(state: u8, skb: u64) -> bool {
    skb != 0 && matches!(state, state::SYN_SENT | state::SYN_RECV)
}

/// A reset answered by a listener, a mini-socket or nobody: the addresses are in the packet, and the connection, if
/// there was one, is in the closed-connection table.
#[inline(always)]
fn answered_for_nobody<K: Kernel>(
    kernel: &K,
    faults: u64,
    sk: u64,
    skb: u64,
    kind_of_socket: u8,
    state: u8,
    reason: Option<u32>,
) {
    let mut received = segment::read(kernel, skb);
    received.tuple.netns = if sk == 0 { segment::netns(kernel, skb) } else { socket::netns(kernel, sk) };
    // A SYN begins a connection: whoever had the same ends before has nothing to do with it.
    let opens = received.segment.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
    let closed = if opens { None } else { kernel.closed(&received.tuple) };
    let listener = kind_of_socket == socket_kind::LISTENER;
    let judge = || match closed {
        Some(closed) => closed.connection.owner_in_cgroup,
        None if listener => cgroup::judge_socket(kernel, sk),
        None => cgroup::verdict::OUTSIDE,
    };
    report(kernel, faults, &received.tuple, judge, |event| {
        event.kind = kind::RESET_ANSWERED;
        event.sk = sk;
        event.socket = kind_of_socket;
        event.state = state;
        event.family = received.family;
        fill_reason(reason, event);
        fill_segment(&received, event);
        if kind_of_socket == socket_kind::TIME_WAIT {
            event.substate = field(kernel, sk, Member::TwSubstate);
        }
        if let Some(closed) = closed {
            event.closed_ns = closed.closed_ns;
            event.closed_monotonic_ns = closed.closed_monotonic_ns;
            event.facts = closed.facts;
            event.cgroups = closed.cgroups;
            event.flags |= flag::CLOSED | flag::FACTS;
            fill_connection(Some(&closed.connection), event);
        } else if listener {
            event.cgroups = cgroup::of_socket(kernel, sk);
        }
    });
}

#[inline(always)]
fn fill_segment(received: &Received, event: &mut Event) {
    event.segment = received.segment;
    event.flags |= flag::SEGMENT;
}

#[inline(always)]
fn fill_reason(reason: Option<u32>, event: &mut Event) {
    if let Some(reason) = reason {
        event.reason = reason;
        event.flags |= flag::REASON;
    }
}

#[inline(always)]
fn judge<K: Kernel>(kernel: &K, sk: u64, connection: Option<&Connection>) -> u8 {
    match connection {
        Some(connection) if connection.owner_in_cgroup != cgroup::verdict::UNTESTED => connection.owner_in_cgroup,
        _ => cgroup::judge_socket(kernel, sk),
    }
}

#[cfg(test)]
mod tests;
