use agent_common::{
    connection::{Closed, Tuple, owner_from, role},
    counter::Counter,
    event::Segment,
    tcp::{AF_INET, AF_INET6, sock_flag},
};

use super::*;
use crate::{
    fake::{Fake, NETNS, v4, v6},
    lifecycle::on_destroy,
};

const EXITING: u32 = 0x0000_0004;
const ABORTED: u32 = 103;
const RESET: u32 = 104;
/// `enum sk_rst_reason`: data came after the reader had gone.
const ABORT_ON_DATA: u32 = 8;

/// The ends of every socket the fake makes.
fn ends() -> Tuple {
    Tuple { local: v4(10, 0, 0, 2), peer: v4(10, 0, 0, 1), local_port: 80, peer_port: 40000, netns: NETNS }
}

/// A segment of 110 bytes from the peer.
fn data(kernel: &mut Fake) -> u64 {
    kernel.packet_v4([10, 0, 0, 1], 40000, [10, 0, 0, 2], 80, tcp_flag::PSH | tcp_flag::ACK, 110)
}

const SEGMENT: Segment = Segment {
    sequence: 1000,
    acknowledgement: 2000,
    payload: 110,
    flags: tcp_flag::PSH | tcp_flag::ACK,
    padding: [0; 3],
};

/// `close()` by the current process with something unread or linger 0: CLOSE first, then the RST.
fn close_with_reset(kernel: &mut Fake, sk: u64, reason: u32) {
    kernel.set(sk, Member::Shutdown, shutdown::BOTH);
    kernel.go(sk, state::CLOSE);
    on_send_reset(kernel, sk, 0, Some(reason));
}

/// A connection that went the way of every orphan: FIN_WAIT2, then a mini-socket. What is left is the closed table.
fn gone(kernel: &mut Fake) -> u64 {
    let sk = kernel.connected();
    kernel.set(sk, Member::Shutdown, shutdown::BOTH);
    kernel.go(sk, state::FIN_WAIT1);
    kernel.softirq();
    kernel.go(sk, state::FIN_WAIT2);
    kernel.go(sk, state::CLOSE);
    on_destroy(kernel, sk);
    kernel.wait(250);
    sk
}

// Received.

#[test]
fn a_received_reset_tells_the_connection_as_it_was() {
    let mut kernel = Fake::new();
    let born = kernel.boot_ns;
    let sk = kernel.connected();
    kernel.set(sk, Member::LastReceived, 5_u32);
    kernel.wait(250);
    kernel.softirq();
    on_receive_reset(&kernel, sk, 0);
    let event = kernel.take_event();
    assert_eq!((event.kind, event.state, event.socket), (kind::RESET_RECEIVED, state::ESTABLISHED, socket_kind::FULL));
    assert_eq!((event.tuple, event.sk, event.family), (ends(), sk, AF_INET));
    assert_eq!(event.flags, flag::CONNECTION | flag::FACTS);
    assert_eq!((event.connection.birth_ns, event.connection.owner.tgid), (born, 100));
    assert_eq!((event.facts.received_stamp, event.jiffies), (5, kernel.jiffies));
}

/// Whoever runs when a RST arrives is nobody; on loopback it is the peer.
#[test]
fn a_received_reset_has_no_actor_even_in_process_context() {
    let mut kernel = Fake::new();
    let sk = kernel.accepted();
    kernel.run(300, "tool");
    on_receive_reset(&kernel, sk, 0);
    let event = kernel.take_event();
    assert_eq!((event.flags & flag::ACTOR, event.actor.tgid, event.connection.owner.tgid), (0, 0, 0));
}

#[test]
fn a_reset_of_a_connection_older_than_the_agent_is_told_without_a_birth() {
    let mut kernel = Fake::new();
    let sk = kernel.established();
    kernel.softirq();
    on_receive_reset(&kernel, sk, 0);
    assert_eq!(kernel.take_event().connection.birth_ns, 0);
}

/// `tcp_reset()` also runs for data after the reader has gone; that takes our side shut, and one of these states.
#[test]
fn only_states_in_which_data_may_reset_are_ambiguous() {
    let ambiguous = [state::FIN_WAIT1, state::FIN_WAIT2, state::CLOSE_WAIT, state::CLOSING, state::LAST_ACK];
    for old in [state::ESTABLISHED, state::SYN_RECV, state::CLOSE].into_iter().chain(ambiguous) {
        for how in [0, shutdown::SEND, shutdown::RECEIVE, shutdown::BOTH] {
            let mut kernel = Fake::new();
            let sk = kernel.established();
            kernel.set(sk, Member::State, old);
            kernel.set(sk, Member::Shutdown, how);
            on_receive_reset(&kernel, sk, 0);
            let told = kernel.take_event().flags & flag::AMBIGUOUS != 0;
            assert_eq!(told, ambiguous.contains(&old) && how & shutdown::RECEIVE != 0, "state {old}, shutdown {how}");
        }
    }
}

/// Where the hook is given the segment there is nothing to wait for.
#[test]
fn the_segment_says_whether_a_rst_arrived() {
    for (flags, told) in [
        (tcp_flag::RST | tcp_flag::ACK, 0),
        (tcp_flag::RST, 0),
        (tcp_flag::PSH | tcp_flag::ACK, flag::AMBIGUOUS | flag::NO_RST_ARRIVED),
    ] {
        let mut kernel = Fake::new();
        let sk = kernel.established();
        kernel.set(sk, Member::State, state::FIN_WAIT2);
        kernel.set(sk, Member::Shutdown, shutdown::BOTH);
        let skb = kernel.packet_v4([10, 0, 0, 1], 40000, [10, 0, 0, 2], 80, flags, 0);
        on_receive_reset(&kernel, sk, skb);
        assert_eq!(kernel.take_event().flags & (flag::AMBIGUOUS | flag::NO_RST_ARRIVED), told, "flags {flags:#x}");
    }
}

#[test]
fn a_reset_in_syn_sent_is_left_to_the_failed_connect() {
    let mut kernel = Fake::new();
    let sk = kernel.connecting();
    on_receive_reset(&kernel, sk, 0);
    assert_eq!(kernel.take_events().len(), 0);
    assert_ne!(kernel.followed(sk).unwrap().flags & connection_flag::RESET_RECEIVED, 0);
}

// Sent by the socket's owner.

/// `close()` sets CLOSE before the RST leaves: the state that matters is the one before.
#[test]
fn a_close_that_resets_tells_the_state_before_close() {
    for before in [state::ESTABLISHED, state::CLOSE_WAIT] {
        let mut kernel = Fake::new();
        let sk = kernel.connected();
        if before == state::CLOSE_WAIT {
            kernel.go(sk, state::CLOSE_WAIT);
        }
        kernel.set(sk, Member::RcvNxt, 105_u32);
        kernel.set(sk, Member::CopiedSeq, 100_u32);
        let closed_ns = kernel.boot_ns;
        close_with_reset(&mut kernel, sk, 11);
        let event = kernel.take_event();
        assert_eq!((event.kind, event.state, event.reason), (kind::RESET_SENT, before, 11));
        assert_eq!(event.closed_ns, closed_ns);
        assert_eq!(event.flags, flag::CONNECTION | flag::FACTS | flag::REASON | flag::ACTOR | flag::ENDED);
        assert_eq!((event.actor.tgid, event.connection.closer.tgid), (100, 100));
        assert_eq!(event.facts.receive_next - event.facts.copied, 5);
    }
}

#[test]
fn linger_zero_on_a_connection_older_than_the_agent_tells_the_state_before_close_too() {
    let mut kernel = Fake::new();
    let sk = kernel.established();
    kernel.set(sk, Member::SkFlags, sock_flag::LINGER);
    close_with_reset(&mut kernel, sk, 14);
    let event = kernel.take_event();
    assert_eq!((event.state, event.facts.linger), (state::ESTABLISHED, 0));
    assert_ne!(event.facts.flags & sock_flag::LINGER, 0);
    assert_eq!(event.connection.owner_from, owner_from::CLOSE);
}

#[test]
fn where_the_hook_gives_no_reason_none_is_told() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    on_send_reset(&kernel, sk, 0, None);
    let event = kernel.take_event();
    assert_eq!((event.flags & flag::REASON, event.reason), (0, 0));
}

#[test]
fn a_killed_process_is_an_exiting_actor_with_its_signal() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.set_task_flags(EXITING);
    kernel.set_exit_code(9);
    close_with_reset(&mut kernel, sk, 11);
    let event = kernel.take_event();
    assert_ne!(event.flags & flag::ACTOR_EXITING, 0);
    assert_eq!((event.exit_code, event.connection.exit_code), (9, 9));
}

/// `ss -K`: the RST leaves first, in the context of whoever asked for it.
#[test]
fn a_destroyed_socket_keeps_its_state_and_names_its_destroyer() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.run(500, "ss");
    on_send_reset(&kernel, sk, 0, Some(14));
    kernel.set(sk, Member::Error, ABORTED);
    kernel.go(sk, state::CLOSE);
    let event = kernel.take_event();
    assert_eq!((event.kind, event.state), (kind::RESET_SENT, state::ESTABLISHED));
    assert_eq!((event.actor.tgid, event.connection.owner.tgid), (500, 100));
    assert_eq!(kernel.followed(sk).unwrap().flags & connection_flag::CLOSER_KNOWN, 0, "ss closed no file of its own");
}

#[test]
fn a_reset_sent_by_a_timer_has_no_actor() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.softirq();
    on_send_reset(&kernel, sk, 0, Some(15));
    assert_eq!(kernel.take_event().flags & flag::ACTOR, 0);
}

/// The listener's closer sends it, and is no owner of a connection nobody had accepted.
#[test]
fn an_unaccepted_child_reset_with_its_listener_has_an_actor_and_no_owner() {
    let mut kernel = Fake::new();
    let sk = kernel.unaccepted();
    kernel.go(sk, state::CLOSE);
    on_send_reset(&kernel, sk, 0, Some(14));
    let event = kernel.take_event();
    assert_eq!((event.actor.tgid, event.connection.owner.tgid, event.state), (100, 0, state::ESTABLISHED));
    assert_eq!(event.facts.bits & agent_common::connection::facts_flag::HAS_FILE, 0);
}

// Answered by the connection's own socket.

/// Data for an orphan: received, CLOSE, destroyed, and only then answered.
#[test]
fn destruction_before_the_answer_keeps_the_birth() {
    let mut kernel = Fake::new();
    let born = kernel.boot_ns;
    let sk = kernel.connected();
    kernel.set(sk, Member::Shutdown, shutdown::BOTH);
    kernel.go(sk, state::FIN_WAIT1);
    let skb = data(&mut kernel);
    kernel.receive_rst(sk, RESET);
    assert_ne!(kernel.take_event().flags & flag::AMBIGUOUS, 0);
    on_destroy(&kernel, sk);
    kernel.softirq();
    on_send_reset(&kernel, sk, skb, Some(ABORT_ON_DATA));
    let event = kernel.take_event();
    assert_eq!((event.kind, event.state, event.sk), (kind::RESET_ANSWERED, state::FIN_WAIT1, sk));
    assert_eq!((event.connection.birth_ns, event.connection.closer.tgid), (born, 100));
    assert_eq!(event.segment, SEGMENT);
    assert_eq!(event.flags, flag::CONNECTION | flag::FACTS | flag::REASON | flag::SEGMENT | flag::ENDED);
    assert_eq!(kernel.followed_count(), 0, "nothing would ever remove its record");
}

/// A descriptor after `shutdown(SHUT_RDWR)`: not destroyed in between.
#[test]
fn data_after_shutdown_is_answered_by_the_same_socket() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.set(sk, Member::Shutdown, shutdown::BOTH);
    kernel.go(sk, state::FIN_WAIT1);
    kernel.go(sk, state::FIN_WAIT2);
    let skb = data(&mut kernel);
    kernel.receive_rst(sk, RESET);
    on_send_reset(&kernel, sk, skb, Some(ABORT_ON_DATA));
    let events = kernel.take_events();
    assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), [kind::RESET_RECEIVED, kind::RESET_ANSWERED]);
    assert!(events.iter().all(|event| event.sk == sk && event.state == state::FIN_WAIT2));
}

#[test]
fn a_closed_connection_is_taken_only_for_the_same_socket() {
    let mut kernel = Fake::new();
    let old = gone(&mut kernel);
    let other = kernel.established();
    assert_ne!(old, other);
    kernel.set(other, Member::State, state::CLOSE);
    let skb = data(&mut kernel);
    on_send_reset(&kernel, other, skb, None);
    let event = kernel.take_event();
    assert_eq!((event.flags & flag::CONNECTION, event.connection.birth_ns, event.state), (0, 0, state::CLOSE));
}

/// SYN_SENT answers a segment of an older connection and lives on.
#[test]
fn an_answer_during_connect_is_told_and_ends_nothing() {
    let mut kernel = Fake::new();
    let sk = kernel.connecting();
    let skb = data(&mut kernel);
    kernel.softirq();
    on_send_reset(&kernel, sk, skb, Some(2));
    let event = kernel.take_event();
    assert_eq!((event.kind, event.state), (kind::RESET_ANSWERED, state::SYN_SENT));
    assert_eq!(kernel.followed(sk).unwrap().flags & connection_flag::RESET_SENT, 0);
}

// Answered by nobody.

/// Makes the socket that the hook gives, or none.
type Make = fn(&mut Fake) -> u64;

/// The closed connection whose ends the packet has, the other way round; whichever kind of socket the hook gives.
#[test]
fn a_late_segment_finds_the_closed_connection() {
    let kinds: [(Make, u8, u8); 3] = [
        (|_| 0, socket_kind::NONE, 0),
        (|kernel| kernel.time_wait(5), socket_kind::TIME_WAIT, state::TIME_WAIT),
        (Fake::listener, socket_kind::LISTENER, state::LISTEN),
    ];
    for (make, socket, state) in kinds {
        let mut kernel = Fake::new();
        let born = kernel.boot_ns;
        gone(&mut kernel);
        let closed: Closed = *kernel.closed(&ends()).unwrap();
        let (sk, skb) = (make(&mut kernel), data(&mut kernel));
        if sk != 0 {
            // With a socket at hand the packet's device is cleared already.
            kernel.set(skb, Member::SkbDev, 0_u64);
        }
        on_send_reset(&kernel, sk, skb, Some(9));
        let event = kernel.take_event();
        assert_eq!((event.kind, event.socket, event.state, event.sk), (kind::RESET_ANSWERED, socket, state, sk));
        assert_eq!((event.tuple, event.segment, event.family), (ends(), SEGMENT, AF_INET));
        assert_eq!(event.flags, flag::CONNECTION | flag::FACTS | flag::CLOSED | flag::REASON | flag::SEGMENT);
        assert_eq!((event.connection.birth_ns, event.connection.last_state), (born, state::FIN_WAIT2));
        assert_eq!((event.closed_ns, event.closed_monotonic_ns), (closed.closed_ns, closed.closed_monotonic_ns));
        assert_eq!(event.boot_ns - event.closed_ns, 1_000_000_000);
        assert_eq!(event.substate, if socket == socket_kind::TIME_WAIT { 5 } else { 0 });
        assert_eq!(kernel.counted(Counter::ReadFault), 0, "a mini-socket was read beyond its end");
    }
}

#[test]
fn a_closed_connection_of_another_namespace_is_another_connection() {
    let mut kernel = Fake::new();
    gone(&mut kernel);
    let elsewhere = kernel.namespace(NETNS + 1);
    let (mini, skb) = (kernel.time_wait(5), data(&mut kernel));
    kernel.set(mini, Member::Net, elsewhere);
    on_send_reset(&kernel, mini, skb, None);
    let device: u64 = field(&kernel, skb, Member::SkbDev);
    kernel.set(device, Member::DevNet, elsewhere);
    on_send_reset(&kernel, 0, skb, None);
    for event in kernel.take_events() {
        assert_eq!((event.tuple.netns, event.flags & (flag::CLOSED | flag::CONNECTION)), (NETNS + 1, 0));
    }
}

#[test]
fn a_closed_mapped_socket_is_found_by_the_ipv4_packet() {
    let mut kernel = Fake::new();
    let sk = kernel.connected();
    kernel.make_mapped(sk);
    kernel.go(sk, state::CLOSE);
    let skb = data(&mut kernel);
    on_send_reset(&kernel, 0, skb, None);
    let event = kernel.take_event();
    assert_ne!(event.flags & flag::CLOSED, 0);
    assert_eq!((event.connection.role, event.family), (role::CLIENT, AF_INET));
}

/// A SYN to a closed port is somebody new, even from a port used before.
#[test]
fn an_answered_syn_never_picks_up_an_older_connection() {
    let mut kernel = Fake::new();
    gone(&mut kernel);
    let syn = kernel.packet_v4([10, 0, 0, 1], 40000, [10, 0, 0, 2], 80, tcp_flag::SYN, 0);
    on_send_reset(&kernel, 0, syn, Some(1));
    let event = kernel.take_event();
    assert_eq!((event.segment.flags, event.flags), (tcp_flag::SYN, flag::SEGMENT | flag::REASON));
    assert_eq!((event.closed_ns, event.connection), (0, Connection::NONE));

    let syn_ack = kernel.packet_v4([10, 0, 0, 1], 40000, [10, 0, 0, 2], 80, tcp_flag::SYN | tcp_flag::ACK, 0);
    on_send_reset(&kernel, 0, syn_ack, Some(1));
    assert_ne!(kernel.take_event().flags & flag::CLOSED, 0, "the answer to our SYN begins nothing");
}

#[test]
fn an_ipv6_packet_for_nobody_is_told_from_our_side() {
    let mut kernel = Fake::new();
    let skb = kernel.packet_v6(1, 40000, 2, 80, tcp_flag::SYN, 0);
    on_send_reset(&kernel, 0, skb, Some(1));
    let event = kernel.take_event();
    assert_eq!((event.family, event.tuple.local, event.tuple.peer), (AF_INET6, v6(2), v6(1)));
    assert_eq!((event.tuple.local_port, event.tuple.peer_port, event.tuple.netns), (80, 40000, NETNS));
}

/// Nobody sends it for a process: whoever runs only handled the packet.
#[test]
fn an_answer_has_no_actor_even_in_process_context() {
    let mut kernel = Fake::new();
    let (sk, skb) = (kernel.connected(), data(&mut kernel));
    on_send_reset(&kernel, sk, skb, None);
    on_send_reset(&kernel, 0, skb, None);
    assert!(kernel.take_events().iter().all(|event| event.flags & flag::ACTOR == 0));
}

#[test]
fn a_listeners_answer_names_the_listeners_cgroup() {
    let mut kernel = Fake::new();
    let (sk, skb) = (kernel.listener(), data(&mut kernel));
    let cgroup = kernel.cgroup(4711, &[1, 4711]);
    kernel.set(sk, Member::SkCgroup, cgroup);
    on_send_reset(&kernel, sk, skb, Some(6));
    let event = kernel.take_event();
    assert_eq!((event.cgroups.creator, event.flags & (flag::CLOSED | flag::FACTS)), (4711, 0));
}

// Failures.

#[test]
fn a_full_table_is_counted_and_both_resets_still_come() {
    let mut kernel = Fake::new();
    kernel.capacity = 0;
    let sk = kernel.established();
    on_receive_reset(&kernel, sk, 0);
    on_send_reset(&kernel, sk, 0, None);
    for event in kernel.take_events() {
        assert_eq!((event.flags & (flag::CONNECTION | flag::FACTS), event.tuple), (flag::FACTS, ends()));
    }
    assert_eq!(kernel.counted(Counter::ConnectionTableFull), 2);
    assert_eq!(kernel.counted(Counter::Emitted), 2);
}

/// The packet is read before it is known that there will be an event.
#[test]
fn an_unreadable_packet_marks_the_event() {
    let mut kernel = Fake::new();
    let skb = data(&mut kernel);
    kernel.unmap(skb, Member::SkbTransportHeader);
    on_send_reset(&kernel, 0, skb, None);
    assert_ne!(kernel.take_event().flags & flag::READ_FAULT, 0);
    let whole = data(&mut kernel);
    on_send_reset(&kernel, 0, whole, None);
    assert_eq!(kernel.take_event().flags & flag::READ_FAULT, 0, "an earlier event's fault");
}

// The function probe.

#[test]
fn the_function_tells_what_the_tracepoint_misses_and_nothing_twice() {
    let mut kernel = Fake::new();
    let skb = data(&mut kernel);
    let mini = kernel.time_wait(state::FIN_WAIT2);
    on_send_reset_function(&kernel, 0, skb);
    on_send_reset_function(&kernel, mini, skb);
    let sockets: Vec<u8> = kernel.take_events().iter().map(|event| event.socket).collect();
    assert_eq!(sockets, [socket_kind::NONE, socket_kind::TIME_WAIT]);
    for sk in [kernel.established(), kernel.listener()] {
        on_send_reset_function(&kernel, sk, skb);
    }
    assert!(kernel.take_events().is_empty(), "the tracepoint inside tells these");
}

#[test]
fn the_function_is_entered_for_a_rst_too_and_answers_none() {
    let mut kernel = Fake::new();
    let skb = kernel.packet_v4([10, 0, 0, 1], 40000, [10, 0, 0, 2], 80, tcp_flag::RST, 0);
    on_send_reset_function(&kernel, 0, skb);
    assert!(kernel.take_events().is_empty());
}

#[test]
fn the_function_does_not_answer_what_was_routed_elsewhere() {
    let mut kernel = Fake::new();
    let skb = data(&mut kernel);
    let (broadcast, local) = (kernel.route(3), kernel.route(2));
    kernel.set(skb, Member::SkbRefdst, broadcast | 1);
    on_send_reset_function(&kernel, 0, skb);
    assert!(kernel.take_events().is_empty(), "a broadcast");
    kernel.set(skb, Member::SkbRefdst, local | 1);
    on_send_reset_function(&kernel, 0, skb);
    assert_eq!(kernel.take_events().len(), 1);
}
