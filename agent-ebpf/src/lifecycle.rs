//! A connection from birth to CLOSE, told by `inet_sock_set_state` (or the functions it sits in) and `tcp_destroy_sock`.
//!
//! Birth records are keyed by the socket's address because nothing better exists on every kernel (`skc_cookie` is 0 for
//! nearly every socket). What is needed after the socket is gone moves to the closed-connection table at CLOSE, so a
//! `tcp_destroy_sock` that comes *before* the reset of the same socket (orphans) loses nothing.

use agent_common::{
    connection::{Closed, Connection, Server, Tuple, connection_flag, first_fin, owner_from, role},
    event::{flag, kind, socket as socket_kind},
    jiffies,
    layout::Member,
    tcp::{shutdown, state},
};

use crate::{
    cgroup,
    kernel::{Kernel, field, has},
    owner, proxy,
    report::{faults, fill_actor, fill_connection, report, wanted},
    socket, task,
};

/// ETIMEDOUT.
const TIMED_OUT: u32 = 110;

/// `inet_sock_set_state`: `sk` moves from `old` to `new`.
///
/// The socket itself still says `old`. State machines must not rely on seeing every step: `FIN_WAIT1 → FIN_WAIT1`
/// happens (shutdown, then close), and a program that interrupts itself on one CPU is skipped by the kernel.
#[inline(always)]
pub fn on_state<K: Kernel>(kernel: &K, sk: u64, old: u8, new: u8) {
    if !socket::is_tcp(kernel, sk) {
        return;
    }
    match (old, new) {
        (state::CLOSE, state::SYN_SENT) => born_connecting(kernel, sk),
        (state::LISTEN, state::SYN_RECV) => born_accepted(kernel, sk),
        // The address may have belonged to a connection.
        (_, state::LISTEN) => kernel.remove_connection(sk),
        (_, state::ESTABLISHED) => established(kernel, sk, old),
        (_, state::FIN_WAIT1 | state::LAST_ACK) => {
            fin(kernel, sk, first_fin::LOCAL);
            // Not once more when what was shut down before is closed, nor in answer to the peer's FIN.
            if old == state::ESTABLISHED {
                proxy::closes(kernel, sk);
            }
        }
        (_, state::CLOSE_WAIT) => fin(kernel, sk, first_fin::PEER),
        (state::CLOSE | state::LISTEN, state::CLOSE) => {}
        (_, state::CLOSE) => closed(kernel, sk, old),
        _ => {}
    }
}

/// `tcp_destroy_sock`: the address may be reused from now on.
#[inline(always)]
pub fn on_destroy<K: Kernel>(kernel: &K, sk: u64) {
    kernel.remove_connection(sk);
}

/// `tcp_set_state()` is entered: what [`on_state`] is told by the tracepoint inside, a moment earlier.
#[inline(always)]
pub fn on_set_state<K: Kernel>(kernel: &K, sk: u64, new: u8) {
    let old: u8 = field(kernel, sk, Member::State);
    on_state(kernel, sk, old, new);
}

/// `inet_sk_set_state()` is entered: how a listener's child begins (`inet_csk_clone_lock`), and nothing else of TCP.
#[inline(always)]
pub fn on_child<K: Kernel>(kernel: &K, sk: u64, new: u8) {
    let old: u8 = field(kernel, sk, Member::State);
    if (old, new) == (state::LISTEN, state::SYN_RECV) && socket::is_tcp(kernel, sk) {
        born_accepted(kernel, sk);
    }
}

/// `accept()` is about to hand `sk` to the current process, or just took it out of the queue. 0: it failed.
#[inline(always)]
pub fn on_accept<K: Kernel>(kernel: &K, sk: u64) {
    // Not for a kernel thread that serves by itself (NFS).
    if sk == 0 || !socket::is_tcp(kernel, sk) || !task::in_process_context(kernel) {
        return;
    }
    if let Some(connection) = follow(kernel, sk)
        && connection.owner_from == owner_from::NONE
    {
        owner::learn(kernel, connection, owner_from::ACCEPT);
    }
}

/// `tcp_rcv_space_adjust`: somebody read from the socket. The only tracepoint that shows who uses it. Whoever connected,
/// accepted or read it before may have handed it on (PostgreSQL, Node's cluster, ssh's ProxyUseFdpass, PgBouncer's
/// takeover); of no interest while it is the same process.
#[inline(always)]
pub fn on_read<K: Kernel>(kernel: &K, sk: u64) {
    let reader = (kernel.current_pid_tgid() >> 32) as u32;
    match kernel.connection(sk) {
        Some(connection) if connection.owner.tgid == reader && !owner_from::is_weak(connection.owner_from) => {}
        // In-kernel readers (a kTLS parser, a sockmap verdict) read in softirq or a worker.
        _ if !task::in_process_context(kernel) => {}
        Some(connection) => owner::learn(kernel, connection, owner_from::READ),
        None if !socket::is_tcp(kernel, sk) => {}
        None => {
            if let Some(connection) = kernel.begin_connection(sk) {
                owner::learn(kernel, connection, owner_from::READ);
            }
        }
    }
}

/// `connect()`. The local port is not chosen yet, so a closed connection with the same ends is forgotten later.
#[inline(always)]
fn born_connecting<K: Kernel>(kernel: &K, sk: u64) {
    let Some(connection) = kernel.begin_connection(sk) else { return };
    connection.birth_ns = kernel.boot_ns();
    connection.role = role::CLIENT;
    // Not for a kernel worker connecting on its own behalf (NFS, an MPTCP subflow).
    if task::in_process_context(kernel) {
        owner::learn(kernel, connection, owner_from::CONNECT);
    }
}

/// The handshake's last ACK made a child of a listener. The socket is a copy of the listener: nothing in it tells who
/// will accept it.
#[inline(always)]
fn born_accepted<K: Kernel>(kernel: &K, sk: u64) {
    let Some(connection) = kernel.begin_connection(sk) else { return };
    connection.birth_ns = kernel.boot_ns();
    connection.role = role::SERVER;
}

#[inline(always)]
fn established<K: Kernel>(kernel: &K, sk: u64, old: u8) {
    if let Some(connection) = kernel.connection(sk) {
        connection.established_ns = kernel.boot_ns();
        if old == state::SYN_SENT {
            connection.syn_retransmits = field(kernel, sk, Member::TotalRetrans);
        }
    }
    kernel.remove_closed(&socket::tuple(kernel, sk));
}

/// A FIN was sent (in process context, by `close()` or `shutdown()`) or received.
#[inline(always)]
fn fin<K: Kernel>(kernel: &K, sk: u64, by: u8) {
    let Some(connection) = follow(kernel, sk) else { return };
    if connection.first_fin == first_fin::NONE {
        connection.first_fin = by;
        connection.first_fin_ns = kernel.boot_ns();
        connection.fin_jiffies = kernel.jiffies();
        connection.fin_received_stamp = field(kernel, sk, Member::LastReceived);
        connection.fin_sent_stamp = field(kernel, sk, Member::LastSent);
        learn_idle_limit(kernel, sk, connection);
    }
    if by == first_fin::LOCAL {
        owner::bring_up_to_date(kernel, sk, connection);
        learn_closer(kernel, sk, connection);
    }
}

/// Ticks below which a close tells nothing about an idle limit: 0.4 s at HZ 250.
const SHORTEST_LIMIT: u32 = 100;

/// A server that closes a connection with nothing outstanding either way shows how long it lets one be idle. Seen from
/// its own end by its FIN, from the client's by the FIN that arrives.
#[inline(always)]
fn learn_idle_limit<K: Kernel>(kernel: &K, sk: u64, connection: &Connection) {
    let since = |stamp: u32| jiffies::since(connection.fin_jiffies, stamp).unwrap_or(u32::MAX);
    let (rx, tx) = (since(connection.fin_received_stamp), since(connection.fin_sent_stamp));
    let idle = if rx < tx { rx } else { tx };
    let written: u32 = field(kernel, sk, Member::WriteSeq);
    let acked: u32 = field(kernel, sk, Member::SndUna);
    let received: u32 = field(kernel, sk, Member::RcvNxt);
    let read: u32 = field(kernel, sk, Member::CopiedSeq);
    // The peer's FIN itself is received and not read.
    let fin = (connection.first_fin == first_fin::PEER) as u32;
    if idle < SHORTEST_LIMIT || idle == u32::MAX || written != acked || received.wrapping_sub(read) != fin {
        return;
    }
    let tuple = socket::tuple(kernel, sk);
    let server = match (connection.role, connection.first_fin) {
        (role::SERVER, first_fin::LOCAL) => {
            Server { address: tuple.local, port: tuple.local_port.into(), netns: tuple.netns }
        }
        (role::CLIENT, first_fin::PEER) => {
            Server { address: tuple.peer, port: tuple.peer_port.into(), netns: tuple.netns }
        }
        _ => return,
    };
    kernel.learn_idle_limit(&server, idle);
}

/// The record of `sk`, made now if its birth was not seen; `None` if there is no room.
#[inline(always)]
pub fn follow<K: Kernel>(kernel: &K, sk: u64) -> Option<&mut Connection> {
    match kernel.connection(sk) {
        Some(connection) => Some(connection),
        None => kernel.begin_connection(sk),
    }
}

#[inline(always)]
fn closed<K: Kernel>(kernel: &K, sk: u64, old: u8) {
    let Some(record) = kernel.closed_scratch() else { return };
    let faults = faults(kernel);
    let tuple = socket::tuple(kernel, sk);
    record.sk = sk;
    record.closed_ns = kernel.boot_ns();
    record.closed_monotonic_ns = kernel.monotonic_ns();
    socket::read_facts(kernel, sk, &mut record.facts);
    record.cgroups = cgroup::of_socket(kernel, sk);
    let followed = if let Some(connection) = follow(kernel, sk) {
        owner::bring_up_to_date(kernel, sk, connection);
        // Without a reset received and without an error, in process context: whoever runs closes the socket. An error
        // means the kernel or an administrator (SOCK_DESTROY) did.
        if connection.flags & connection_flag::RESET_RECEIVED == 0 && record.facts.error == 0 {
            learn_closer(kernel, sk, connection);
        }
        if connection.owner_in_cgroup == cgroup::verdict::UNTESTED {
            connection.owner_in_cgroup = cgroup::judge_socket(kernel, sk);
        }
        connection.last_state = old;
        record.connection = *connection;
        true
    } else {
        record.connection = Connection::default();
        record.connection.last_state = old;
        record.connection.owner_in_cgroup = cgroup::judge_socket(kernel, sk);
        false
    };

    let ended_by_itself = old == state::SYN_SENT || is_timeout(record);
    if ended_by_itself && followed {
        proxy::failed(kernel, &record.connection);
    }
    if old == state::SYN_SENT {
        report_ended(kernel, faults, kind::CONNECT_FAILED, &tuple, record, followed);
    } else if ended_by_itself {
        report_ended(kernel, faults, kind::TIMED_OUT, &tuple, record, followed);
    }
    if tuple.local_port != 0 && wanted(kernel, &tuple) {
        kernel.store_closed(&tuple, record);
    }
}

/// Whether a timer ended an established connection with no RST either way (`tcp_write_err`). Keepalive sends a RST
/// first, which was reported.
#[inline(always)]
fn is_timeout(record: &Closed) -> bool {
    let facts = &record.facts;
    let unanswered = facts.retransmits > 0 || facts.probes > 0;
    record.connection.flags & (connection_flag::RESET_RECEIVED | connection_flag::RESET_SENT) == 0
        && facts.error != 0
        && (facts.error == TIMED_OUT || (facts.error == facts.soft_error && unanswered))
}

#[inline(always)]
fn report_ended<K: Kernel>(kernel: &K, faults: u64, what: u8, tuple: &Tuple, record: &Closed, followed: bool) {
    report(
        kernel,
        faults,
        tuple,
        || record.connection.owner_in_cgroup,
        |event| {
            event.kind = what;
            event.sk = record.sk;
            event.socket = socket_kind::FULL;
            event.state = record.connection.last_state;
            event.family = field(kernel, record.sk, Member::Family);
            event.facts = record.facts;
            event.cgroups = record.cgroups;
            event.flags |= flag::FACTS;
            fill_connection(followed.then_some(&record.connection), event);
            if record.connection.flags & connection_flag::RESET_RECEIVED == 0 && record.facts.error == 0 {
                fill_actor(kernel, event);
            }
        },
    );
}

/// Notes the current process as the one that closes the socket; the caller knows that it is a closing.
#[inline(always)]
fn learn_closer<K: Kernel>(kernel: &K, sk: u64, connection: &mut Connection) {
    if !task::in_process_context(kernel) {
        return;
    }
    if connection.flags & connection_flag::CLOSER_KNOWN == 0 {
        task::read_current(kernel, &mut connection.closer);
        connection.flags |= connection_flag::CLOSER_KNOWN;
        if let Some(code) = task::exiting(kernel) {
            connection.exit_code = code;
            connection.flags |= connection_flag::CLOSER_EXITING;
        }
    }
    // A child in the accept queue dies with its listener: whoever closes that never owned the connection.
    let held = !has(kernel, Member::Socket) || socket::has_file(kernel, sk);
    let how: u8 = field(kernel, sk, Member::Shutdown);
    if held && how & shutdown::SEND != 0 && owner_from::is_weak(connection.owner_from) {
        owner::learn(kernel, connection, owner_from::CLOSE);
    }
}

#[cfg(test)]
mod tests;
