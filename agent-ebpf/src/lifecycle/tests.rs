mod ends;

use agent_common::counter::Counter;

use super::*;
use crate::{
    fake::{Fake, NETNS, v4},
    reset::on_receive_reset,
};

const KERNEL_THREAD: u32 = 0x0020_0000;
const EXITING: u32 = 0x0000_0004;
const ABORTED: u32 = 103;

/// The ends of every socket the fake makes.
fn ends() -> Tuple {
    Tuple { local: v4(10, 0, 0, 2), peer: v4(10, 0, 0, 1), local_port: 80, peer_port: 40000, netns: NETNS }
}

fn owner_name(connection: &Connection) -> &str {
    std::str::from_utf8(&connection.owner.comm).unwrap().trim_end_matches('\0')
}

/// `close()` by the current process, up to the moment its state changes.
fn close(kernel: &mut Fake, sk: u64, new: u8) {
    kernel.process();
    kernel.set(sk, Member::Shutdown, shutdown::BOTH);
    kernel.go(sk, new);
}

// Births.

#[test]
fn a_client_is_born_at_connect_and_owned_by_its_caller() {
    let mut kernel = Fake::new();
    let born = kernel.boot_ns;
    let sk = kernel.connecting();
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.birth_ns, connection.role, connection.established_ns), (born, role::CLIENT, 0));
    assert_eq!((connection.owner.tgid, connection.owner_from), (100, owner_from::CONNECT));
    assert_eq!((owner_name(&connection), connection.owner.cgroup_id), ("envoy", 700));

    kernel.wait(10);
    kernel.set(sk, Member::TotalRetrans, 2_u32);
    kernel.softirq();
    kernel.go(sk, state::ESTABLISHED);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.birth_ns, connection.established_ns), (born, born + 40_000_000));
    assert_eq!(connection.syn_retransmits, 2);
}

/// The functions that the tracepoint sits in are entered before it: they find the old state in the socket.
#[test]
fn the_functions_tell_what_the_tracepoint_tells() {
    let mut kernel = Fake::new();
    let sk = kernel.unconnected();
    on_set_state(&kernel, sk, state::SYN_SENT);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.role, connection.birth_ns), (role::CLIENT, kernel.boot_ns));

    let child = kernel.listener();
    on_child(&kernel, child, state::SYN_RECV);
    let connection = kernel.followed(child).unwrap();
    assert_eq!((connection.role, connection.birth_ns), (role::SERVER, kernel.boot_ns));
}

/// Were it more, a change of state that both functions show would be told twice.
#[test]
fn the_childs_function_tells_births_only() {
    let mut kernel = Fake::new();
    let sk = kernel.connecting();
    on_child(&kernel, sk, state::CLOSE);
    assert_eq!(kernel.take_events().len(), 0);
    let listener = kernel.listener();
    on_child(&kernel, listener, state::CLOSE);
    assert_eq!(kernel.followed_count(), 1);
}

#[test]
fn a_server_is_born_in_softirq_and_owned_by_nobody_yet() {
    let mut kernel = Fake::new();
    let sk = kernel.accepted();
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.birth_ns, connection.role), (kernel.boot_ns, role::SERVER));
    assert_eq!((connection.owner, connection.owner_from), (agent_common::connection::Task::NOBODY, owner_from::NONE));
}

#[test]
fn retransmissions_of_a_servers_child_are_no_syns() {
    let mut kernel = Fake::new();
    let sk = kernel.listener();
    kernel.set(sk, Member::TotalRetrans, 1_u32);
    kernel.go(sk, state::SYN_RECV);
    kernel.go(sk, state::ESTABLISHED);
    assert_eq!(kernel.followed(sk).unwrap().syn_retransmits, 0);
}

/// Sockets are SLAB_TYPESAFE_BY_RCU: the same address, at once, with no destruction seen in between.
#[test]
fn a_birth_overwrites_what_an_earlier_socket_left_at_the_address() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.receive_rst(sk, 104);
    assert_ne!(kernel.followed(sk).unwrap().flags, 0);
    kernel.wait(5);
    kernel.set(sk, Member::State, state::LISTEN);
    kernel.softirq();
    kernel.go(sk, state::SYN_RECV);
    let fresh = Connection { birth_ns: kernel.boot_ns, role: role::SERVER, ..Connection::NONE };
    assert_eq!(kernel.followed(sk), Some(fresh));

    kernel.process();
    kernel.set(sk, Member::State, state::CLOSE);
    kernel.go(sk, state::SYN_SENT);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.role, connection.last_state, connection.flags), (role::CLIENT, 0, 0));
}

#[test]
fn a_listener_is_no_connection_whatever_the_address_was() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.set(sk, Member::State, state::CLOSE);
    kernel.go(sk, state::LISTEN);
    assert_eq!(kernel.followed(sk), None);
    kernel.go(sk, state::CLOSE);
    assert_eq!((kernel.followed(sk), kernel.closed(&ends())), (None, None));
}

#[test]
fn mptcp_and_other_protocols_are_left_alone() {
    let mut kernel = Fake::new();
    for protocol in [262_u16, 33, 132] {
        let sk = kernel.unconnected();
        kernel.set(sk, Member::Protocol, protocol);
        kernel.go(sk, state::SYN_SENT);
        kernel.go(sk, state::ESTABLISHED);
        on_read(&kernel, sk);
        kernel.go(sk, state::CLOSE);
    }
    assert_eq!((kernel.followed_count(), kernel.take_events().len()), (0, 0));
    assert_eq!(kernel.counted(Counter::ClosedRecorded), 0);
}

// Owners.

#[test]
fn a_kernel_worker_that_connects_is_no_owner() {
    let mut kernel = Fake::new();
    kernel.set_task_flags(KERNEL_THREAD);
    let sk = kernel.connecting();
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.role, connection.owner_from, connection.owner.tgid), (role::CLIENT, owner_from::NONE, 0));
}

/// A server may look at the first bytes and then hand the connection to the process that serves it.
#[test]
fn the_last_to_read_owns_an_accepted_socket() {
    let mut kernel = Fake::new();
    let sk = kernel.accepted();
    for (tgid, name) in [(200, "dispatcher"), (300, "worker")] {
        kernel.run(tgid, name);
        on_read(&kernel, sk);
        let connection = kernel.followed(sk).unwrap();
        assert_eq!((connection.owner.tgid, connection.owner_from), (tgid, owner_from::READ));
        assert_eq!(owner_name(&connection), name);
    }
}

#[test]
fn whoever_accepts_owns_the_connection_until_somebody_uses_it() {
    let mut kernel = Fake::new();
    let sk = kernel.accepted();
    kernel.run(200, "postgres");
    on_accept(&kernel, sk);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.owner.tgid, connection.owner_from), (200, owner_from::ACCEPT));
    // The child that serves it.
    kernel.run(201, "postgres");
    on_read(&kernel, sk);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.owner.tgid, connection.owner_from), (201, owner_from::READ));
}

#[test]
fn whoever_closes_what_another_accepted_and_nobody_read_owned_it() {
    let mut kernel = Fake::new();
    let sk = kernel.accepted();
    on_accept(&kernel, sk);
    kernel.run(201, "worker");
    close(&mut kernel, sk, state::FIN_WAIT1);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.owner.tgid, connection.owner_from), (201, owner_from::CLOSE));
}

#[test]
fn accepting_a_connection_older_than_the_agent_tells_its_owner_but_no_birth() {
    let mut kernel = Fake::new();
    let sk = kernel.established();
    on_accept(&kernel, sk);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.owner.tgid, connection.owner_from, connection.birth_ns), (100, owner_from::ACCEPT, 0));
}

#[test]
fn a_failed_accept_and_one_inside_the_kernel_own_nothing() {
    let mut kernel = Fake::new();
    on_accept(&kernel, 0);
    assert_eq!((kernel.followed_count(), kernel.counted(Counter::ReadFault)), (0, 0));
    let sk = kernel.accepted();
    kernel.set_task_flags(KERNEL_THREAD);
    on_accept(&kernel, sk);
    assert_eq!(kernel.followed(sk).unwrap().owner_from, owner_from::NONE);
}

/// ssh's ProxyUseFdpass: `nc -F` connects and passes the descriptor on.
#[test]
fn a_reader_replaces_another_process_that_connected() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    on_read(&kernel, sk);
    assert_eq!(kernel.followed(sk).unwrap().owner_from, owner_from::CONNECT, "its own reads tell nothing new");
    kernel.run(200, "ssh");
    on_read(&kernel, sk);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.owner.tgid, connection.owner_from), (200, owner_from::READ));
}

#[test]
fn reading_from_a_connection_older_than_the_agent_tells_its_owner_but_no_birth() {
    let mut kernel = Fake::new();
    let sk = kernel.established();
    on_read(&kernel, sk);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.owner.tgid, connection.owner_from), (100, owner_from::READ));
    assert_eq!((connection.birth_ns, connection.role), (0, role::UNKNOWN));
}

/// kTLS and sockmap read in softirq, on top of whoever happens to run.
#[test]
fn a_reader_inside_the_kernel_does_not_become_the_owner() {
    let mut kernel = Fake::new();
    let (followed, older) = (kernel.accepted(), kernel.established());
    kernel.softirq();
    on_read(&kernel, followed);
    on_read(&kernel, older);
    kernel.process();
    kernel.set_task_flags(KERNEL_THREAD);
    on_read(&kernel, followed);
    assert_eq!(kernel.followed(followed).unwrap().owner_from, owner_from::NONE);
    assert_eq!(kernel.followed(older), None);
}

#[test]
fn whoever_closes_an_accepted_socket_that_nobody_read_owned_it() {
    let mut kernel = Fake::new();
    let sk = kernel.accepted();
    close(&mut kernel, sk, state::FIN_WAIT1);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.owner.tgid, connection.owner_from), (100, owner_from::CLOSE));
    assert_eq!(connection.closer, connection.owner);
}

#[test]
fn closing_does_not_replace_a_known_owner() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.run(200, "child");
    close(&mut kernel, sk, state::FIN_WAIT1);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.owner.tgid, connection.closer.tgid), (100, 200));
}

/// `inet_csk_listen_stop`: the child dies in the context of whoever closes the listener, and has no file.
#[test]
fn closing_a_listener_does_not_make_one_the_owner_of_what_waits_in_its_queue() {
    let mut kernel = Fake::new();
    let sk = kernel.unaccepted();
    close(&mut kernel, sk, state::CLOSE);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.owner_from, connection.owner.tgid), (owner_from::NONE, 0));
    assert_eq!(connection.closer.tgid, 100, "it did close it");
}

#[test]
fn disconnecting_is_not_closing() {
    let mut kernel = Fake::new();
    let sk = kernel.accepted();
    kernel.go(sk, state::CLOSE);
    assert_eq!(kernel.followed(sk).unwrap().owner_from, owner_from::NONE);
}

#[test]
fn a_child_that_dies_before_it_is_established_has_no_owner() {
    let mut kernel = Fake::new();
    let sk = kernel.listener();
    kernel.set(sk, Member::Socket, 0_u64);
    kernel.softirq();
    kernel.go(sk, state::SYN_RECV);
    kernel.go(sk, state::CLOSE);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.owner_from, connection.flags, connection.last_state), (0, 0, state::SYN_RECV));
    assert_eq!(kernel.take_events().len(), 0);
}

// Idle limits.

#[test]
fn a_server_that_closes_with_nothing_outstanding_shows_its_idle_limit() {
    let mut kernel = Fake::new();
    let sk = kernel.accepted();
    kernel.set(sk, Member::LastReceived, kernel.jiffies - 1502);
    kernel.set(sk, Member::LastSent, kernel.jiffies - 1500);
    close(&mut kernel, sk, state::FIN_WAIT1);
    let server = Server { address: ends().local, port: 80, netns: NETNS };
    assert_eq!(*kernel.idle_limits.borrow(), [(server, 1500)]);
}

#[test]
fn a_client_learns_the_limit_from_the_fin_that_arrives() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.set(sk, Member::LastReceived, kernel.jiffies - 1500);
    kernel.set(sk, Member::LastSent, kernel.jiffies - 1501);
    kernel.set(sk, Member::RcvNxt, 101_u32);
    kernel.set(sk, Member::CopiedSeq, 100_u32);
    kernel.softirq();
    kernel.go(sk, state::CLOSE_WAIT);
    let server = Server { address: ends().peer, port: 40000, netns: NETNS };
    assert_eq!(*kernel.idle_limits.borrow(), [(server, 1500)]);
}

#[test]
fn a_close_with_something_outstanding_or_soon_shows_no_limit() {
    let quiet = |change: fn(&mut Fake, u64)| {
        let mut kernel = Fake::new();
        let sk = kernel.accepted();
        kernel.set(sk, Member::LastReceived, kernel.jiffies - 1502);
        kernel.set(sk, Member::LastSent, kernel.jiffies - 1500);
        change(&mut kernel, sk);
        close(&mut kernel, sk, state::FIN_WAIT1);
        kernel.idle_limits.borrow().is_empty()
    };
    assert!(quiet(|kernel, sk| kernel.set(sk, Member::WriteSeq, 7_u32)), "an answer not acknowledged");
    assert!(quiet(|kernel, sk| kernel.set(sk, Member::RcvNxt, 7_u32)), "a request not read");
    assert!(quiet(|kernel, sk| kernel.set(sk, Member::LastSent, kernel.jiffies - 99)), "just answered");
    assert!(!quiet(|_, _| {}));
}

// The first FIN.

/// Ticks since data was last received and sent, at the first FIN.
fn ticks_before_the_fin(connection: &Connection) -> (u32, u32) {
    let ticks = |stamp: u32| connection.fin_jiffies.wrapping_sub(stamp);
    (ticks(connection.fin_received_stamp), ticks(connection.fin_sent_stamp))
}

#[test]
fn the_first_fin_is_ours_and_keeps_how_long_the_connection_was_idle() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.set(sk, Member::LastReceived, kernel.jiffies - 250);
    kernel.set(sk, Member::LastSent, kernel.jiffies - 500);
    let now = kernel.boot_ns;
    close(&mut kernel, sk, state::FIN_WAIT1);
    kernel.wait(1000);
    kernel.softirq();
    kernel.go(sk, state::FIN_WAIT2);
    kernel.go(sk, state::CLOSE);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.first_fin, connection.first_fin_ns), (first_fin::LOCAL, now));
    assert_eq!(ticks_before_the_fin(&connection), (250, 500));
}

#[test]
fn the_first_fin_is_the_peers_even_if_we_send_ours_later() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.set(sk, Member::LastReceived, kernel.jiffies - 7);
    kernel.set(sk, Member::LastSent, 0_u32);
    kernel.softirq();
    kernel.go(sk, state::CLOSE_WAIT);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!(connection.flags & connection_flag::CLOSER_KNOWN, 0, "the peer's FIN arrives on anybody's time");
    kernel.wait(100);
    close(&mut kernel, sk, state::LAST_ACK);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!(connection.first_fin, first_fin::PEER);
    assert_eq!((connection.fin_jiffies - connection.fin_received_stamp, connection.fin_sent_stamp), (7, 0));
    assert_eq!(connection.closer.tgid, 100);
}

/// From the backlog, in the context of whoever let go of the socket's lock.
#[test]
fn the_peers_fin_in_process_context_makes_nobody_the_closer() {
    let mut kernel = Fake::new();
    let sk = kernel.accepted();
    kernel.go(sk, state::CLOSE_WAIT);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.first_fin, connection.flags, connection.closer.tgid), (first_fin::PEER, 0, 0));
}

/// 32-bit jiffies wrap five minutes after boot.
#[test]
fn idle_time_at_the_first_fin_is_right_across_the_wrap_of_jiffies() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.jiffies = 50;
    kernel.set(sk, Member::LastReceived, u32::MAX - 49);
    kernel.set(sk, Member::LastSent, 20_u32);
    kernel.softirq();
    kernel.go(sk, state::CLOSE_WAIT);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!(ticks_before_the_fin(&connection), (100, 30));
}

/// `shutdown()`, then `close()`.
#[test]
fn fin_wait1_again_keeps_the_first_fin_and_the_first_closer() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    let first = kernel.boot_ns;
    close(&mut kernel, sk, state::FIN_WAIT1);
    kernel.wait(500);
    kernel.run(200, "child");
    close(&mut kernel, sk, state::FIN_WAIT1);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.first_fin_ns, connection.closer.tgid), (first, 100));
}

#[test]
fn the_fin_of_a_connection_older_than_the_agent_begins_its_record() {
    let mut kernel = Fake::new();
    let sk = kernel.established();
    close(&mut kernel, sk, state::FIN_WAIT1);
    let connection = kernel.followed(sk).unwrap();
    assert_eq!((connection.birth_ns, connection.first_fin), (0, first_fin::LOCAL));
    assert_eq!(connection.owner_from, owner_from::CLOSE);
}

#[test]
fn a_killed_closer_leaves_its_signal() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.set_task_flags(EXITING);
    kernel.set_exit_code(9);
    close(&mut kernel, sk, state::FIN_WAIT1);
    let connection = kernel.followed(sk).unwrap();
    assert_ne!(connection.flags & connection_flag::CLOSER_EXITING, 0);
    assert_eq!(connection.exit_code, 9);
}

#[test]
fn a_timer_in_softirq_closes_for_nobody() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.softirq();
    kernel.go(sk, state::CLOSE);
    assert_eq!(kernel.followed(sk).unwrap().flags & connection_flag::CLOSER_KNOWN, 0);
}

/// A RST or an error handled from the backlog runs in the context of whoever let go of the socket's lock.
#[test]
fn a_reset_or_an_error_in_process_context_makes_nobody_the_closer() {
    let mut kernel = Fake::new();
    let reset = kernel.connected();
    on_receive_reset(&kernel, reset, 0);
    kernel.go(reset, state::CLOSE);
    let aborted = kernel.connected();
    kernel.set(aborted, Member::Error, ABORTED);
    kernel.go(aborted, state::CLOSE);
    for sk in [reset, aborted] {
        assert_eq!(kernel.followed(sk).unwrap().flags & connection_flag::CLOSER_KNOWN, 0);
    }
}
