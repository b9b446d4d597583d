//! How connections end: CLOSE, failed connects, timeouts, and what the filters and failures make of them.

use agent_common::{
    counter::Counter,
    event::Event,
    settings::CgroupSubtree,
    tcp::{AF_INET, AF_INET6, sock_flag},
};

use super::*;
use crate::reset::{on_receive_reset, on_send_reset};

const REFUSED: u32 = 111;
const UNREACHABLE: u32 = 113;

// CLOSE.

#[test]
fn close_stores_the_connection_under_its_namespace_and_ends() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.set(sk, Member::BytesSent, 4711_u64);
    close(&mut kernel, sk, state::FIN_WAIT1);
    kernel.softirq();
    kernel.go(sk, state::FIN_WAIT2);
    kernel.wait(3);
    kernel.go(sk, state::CLOSE);
    let closed = kernel.closed(&ends()).unwrap();
    assert_eq!((closed.sk, closed.closed_ns, closed.closed_monotonic_ns), (sk, kernel.boot_ns, kernel.monotonic_ns));
    assert_eq!((closed.connection.last_state, closed.connection.role), (state::FIN_WAIT2, role::CLIENT));
    assert_eq!(closed.facts.bytes_sent, 4711);
    assert_eq!(kernel.closed(&Tuple { netns: NETNS + 1, ..ends() }), None, "the same ends in another namespace");
    assert_eq!(kernel.counted(Counter::ClosedRecorded), 1);
    assert_eq!(kernel.take_events().len(), 0, "an ordinary end is no event");
}

/// An orphan is destroyed before the reset it causes leaves.
#[test]
fn destruction_forgets_the_socket_but_not_the_closed_connection() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.go(sk, state::CLOSE);
    on_destroy(&kernel, sk);
    assert_eq!(kernel.followed(sk), None);
    assert_eq!(kernel.closed(&ends()).unwrap().connection.role, role::CLIENT);
}

#[test]
fn a_new_connection_with_the_same_ends_forgets_the_closed_one() {
    let mut kernel = Fake::new();
    for new in [Fake::connected, Fake::accepted] {
        let old = kernel.connected();
        kernel.go(old, state::CLOSE);
        assert!(kernel.closed(&ends()).is_some());
        new(&mut kernel);
        assert_eq!(kernel.closed(&ends()), None);
    }
}

#[test]
fn a_mapped_socket_is_stored_under_the_ipv4_packets_key() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.make_mapped(sk);
    kernel.go(sk, state::CLOSE);
    assert_eq!(kernel.closed(&ends()).unwrap().sk, sk);
}

// SYN_SENT → CLOSE.

fn failed_connect(kernel: &Fake) -> Event {
    let event = kernel.take_event();
    assert_eq!((event.kind, event.state), (kind::CONNECT_FAILED, state::SYN_SENT));
    assert_eq!((event.socket, event.tuple, event.family), (socket_kind::FULL, ends(), AF_INET));
    assert_ne!(event.flags & flag::FACTS, 0);
    event
}

#[test]
fn a_refused_connect_is_told_once_and_says_that_a_reset_came() {
    let mut kernel = Fake::new();
    let sk = kernel.connecting();
    kernel.softirq();
    on_receive_reset(&kernel, sk, 0);
    assert_eq!(kernel.take_events().len(), 0, "not yet: the error follows at CLOSE");
    // From the backlog: the connecting task itself lets go of the lock.
    kernel.process();
    kernel.set(sk, Member::Error, REFUSED);
    kernel.go(sk, state::CLOSE);
    let event = failed_connect(&kernel);
    assert_ne!(event.connection.flags & connection_flag::RESET_RECEIVED, 0);
    assert_eq!((event.facts.error, event.connection.owner.tgid), (REFUSED, 100));
    assert_eq!(event.flags & flag::ACTOR, 0, "the peer refused, nobody here did anything");
}

#[test]
fn the_same_error_without_a_reset_is_not_taken_for_one() {
    let mut kernel = Fake::new();
    let sk = kernel.connecting();
    kernel.softirq();
    kernel.set(sk, Member::Error, REFUSED);
    kernel.go(sk, state::CLOSE);
    assert_eq!(failed_connect(&kernel).connection.flags & connection_flag::RESET_RECEIVED, 0);
}

#[test]
fn a_connect_that_times_out_is_one_event_without_an_actor() {
    let mut kernel = Fake::new();
    let sk = kernel.connecting();
    kernel.softirq();
    kernel.set(sk, Member::Retransmits, 6_u8);
    kernel.set(sk, Member::Error, TIMED_OUT);
    kernel.go(sk, state::CLOSE);
    let event = failed_connect(&kernel);
    assert_eq!((event.facts.retransmits, event.flags & flag::ACTOR), (6, 0));
}

#[test]
fn an_abandoned_connect_names_who_gave_up() {
    let mut kernel = Fake::new();
    let sk = kernel.connecting();
    kernel.wait(250);
    kernel.run(200, "child");
    kernel.set_task_flags(EXITING);
    kernel.set_exit_code(15);
    close(&mut kernel, sk, state::CLOSE);
    let event = failed_connect(&kernel);
    assert_eq!((event.facts.error, event.facts.shutdown), (0, shutdown::BOTH));
    assert_eq!(event.flags & (flag::ACTOR | flag::ACTOR_EXITING), flag::ACTOR | flag::ACTOR_EXITING);
    assert_eq!((event.actor.tgid, event.exit_code, event.connection.owner.tgid), (200, 15, 100));
}

/// No local port: it never had a name of its own to be found by.
#[test]
fn a_connect_that_fails_without_a_port_is_told_but_not_stored() {
    let mut kernel = Fake::new();
    let sk = kernel.connecting();
    kernel.set(sk, Member::Sport, 0_u16);
    kernel.go(sk, state::CLOSE);
    assert_eq!(kernel.take_event().kind, kind::CONNECT_FAILED);
    assert_eq!(kernel.counted(Counter::ClosedRecorded), 0);
}

// Timeouts.

/// An established connection that ends in softirq with these numbers.
fn end_by_timer(kernel: &mut Fake, sk: u64, error: u32, soft_error: u32, retransmits: u8) {
    kernel.softirq();
    kernel.set(sk, Member::Error, error);
    kernel.set(sk, Member::SoftError, soft_error);
    kernel.set(sk, Member::Retransmits, retransmits);
    kernel.go(sk, state::CLOSE);
}

#[test]
fn a_timeout_is_told_only_where_a_timer_ended_the_connection() {
    for (error, soft_error, retransmits, told) in [
        (TIMED_OUT, 0, 15, true),
        (TIMED_OUT, 0, 0, true),
        // tcp_write_err prefers what ICMP said earlier.
        (UNREACHABLE, UNREACHABLE, 15, true),
        (UNREACHABLE, UNREACHABLE, 0, false),
        (UNREACHABLE, 0, 15, false),
        (ABORTED, 0, 15, false),
        (0, 0, 15, false),
    ] {
        let mut kernel = Fake::new();
        let sk = kernel.connected();
        end_by_timer(&mut kernel, sk, error, soft_error, retransmits);
        let kinds: Vec<_> = kernel.take_events().iter().map(|event| (event.kind, event.state)).collect();
        let expected: &[_] = if told { &[(kind::TIMED_OUT, state::ESTABLISHED)] } else { &[] };
        assert_eq!(kinds, expected, "error {error}, soft error {soft_error}, {retransmits} retransmits");
    }
}

#[test]
fn unanswered_probes_count_like_retransmits() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.set(sk, Member::ProbesOut, 9_u8);
    end_by_timer(&mut kernel, sk, UNREACHABLE, UNREACHABLE, 0);
    assert_eq!(kernel.take_event().kind, kind::TIMED_OUT);
}

/// Keepalive sends a RST first, which is the event. Also for a connection older than the agent.
#[test]
fn an_exhausted_keepalive_is_not_told_twice() {
    for new in [Fake::connected, Fake::established] {
        let mut kernel = Fake::new();
        let sk = new(&mut kernel);
        kernel.set(sk, Member::SkFlags, sock_flag::KEEPOPEN);
        kernel.set(sk, Member::ProbesOut, 9_u8);
        kernel.softirq();
        on_send_reset(&kernel, sk, 0, Some(15));
        assert_eq!(kernel.take_event().kind, kind::RESET_SENT);
        end_by_timer(&mut kernel, sk, TIMED_OUT, 0, 0);
        assert_eq!(kernel.take_events().len(), 0);
    }
}

#[test]
fn a_received_reset_is_no_timeout_whatever_the_error() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.receive_rst(sk, TIMED_OUT);
    assert_eq!(kernel.take_event().kind, kind::RESET_RECEIVED);
}

/// A RST sent while connecting, in answer to a stray segment, ended nothing.
#[test]
fn an_answer_during_the_handshake_does_not_hide_a_later_timeout() {
    let mut kernel = Fake::new();
    let sk = kernel.connecting();
    let skb = kernel.packet_v4([10, 0, 0, 1], 40000, [10, 0, 0, 2], 80, 0x10, 0);
    kernel.softirq();
    on_send_reset(&kernel, sk, skb, Some(2));
    assert_eq!(kernel.take_event().kind, kind::RESET_ANSWERED);
    kernel.go(sk, state::ESTABLISHED);
    end_by_timer(&mut kernel, sk, TIMED_OUT, 0, 15);
    assert_eq!(kernel.take_event().kind, kind::TIMED_OUT);
}

// Filters and failures.

#[test]
fn closed_connections_outside_the_filter_take_no_room() {
    let mut kernel = Fake::new();
    kernel.settings.port_count = 1;
    kernel.settings.ports[0] = 443;
    let sk = kernel.connected();
    kernel.go(sk, state::CLOSE);
    assert_eq!((kernel.counted(Counter::ClosedRecorded), kernel.closed(&ends())), (0, None));
}

#[test]
fn a_full_table_is_counted_and_the_event_still_comes() {
    let mut kernel = Fake::new();
    kernel.capacity = 0;
    let sk = kernel.connecting();
    assert_eq!(kernel.counted(Counter::ConnectionTableFull), 1);
    kernel.set(sk, Member::Error, TIMED_OUT);
    kernel.go(sk, state::CLOSE);
    let event = failed_connect(&kernel);
    assert_eq!((event.flags & flag::CONNECTION, event.facts.error), (0, TIMED_OUT));
    assert_eq!(kernel.closed(&ends()).unwrap().connection.last_state, state::SYN_SENT);
}

#[test]
fn a_full_table_does_not_put_a_connection_outside_the_cgroup_filter() {
    let mut kernel = Fake::new();
    kernel.capacity = 0;
    kernel.settings.cgroup_count = 1;
    kernel.settings.cgroups[0] = CgroupSubtree { id: 700, level: 1 };
    let cgroup = kernel.cgroup(700, &[1, 700]);
    let sk = kernel.established();
    kernel.set(sk, Member::SkCgroup, cgroup);
    end_by_timer(&mut kernel, sk, TIMED_OUT, 0, 15);
    assert_eq!(kernel.take_event().kind, kind::TIMED_OUT);
}

/// Everything but the event's own head is read before it is known that there will be an event.
#[test]
fn a_read_fault_before_the_event_begins_marks_it_too() {
    let mut kernel = Fake::new();
    let sk = kernel.connecting();
    kernel.make_mapped(sk);
    kernel.unmap(sk, Member::BytesSent);
    kernel.go(sk, state::CLOSE);
    let event = kernel.take_event();
    assert_eq!((event.flags & flag::READ_FAULT, event.family), (flag::READ_FAULT, AF_INET6));
    assert_eq!(kernel.counted(Counter::ReadFault), 1);
}
