//! What belongs together.

use agent_common::{
    event::Segment,
    tcp::{flag as tcp_flag, shutdown},
};

use super::*;

/// Application ← proxy → black hole, whichever record comes first: the application's own line has it all.
#[test]
fn a_connect_given_up_and_both_ends_of_the_reset_are_one_story_in_any_order() {
    for order in orders([gave_up(0), application(100_000), closes(120_000)]) {
        let lines = lines(&order);
        let [connect, received, sent] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(connect.chain.iter().map(shown).collect::<Vec<_>>(), ["before reset 10.0.0.2:50000 likely"]);
        for line in [received, sent] {
            assert_eq!(
                line.chain.iter().map(shown).collect::<Vec<_>>(),
                ["after connect_failure 10.0.0.9:8443 likely"]
            );
            assert_eq!(line.cause.code, Code::ProxyConnectTimeout);
            let link = &line.chain[0];
            assert_eq!((link.cause, link.after.0), (Some("connect_timeout_application"), 0.12));
            assert_eq!(link.local.owner, owner(&gave_up(0)));
            assert_eq!(link.connection, connect.connection);
            assert_eq!((link.age, link.time), (connect.event.age, connect.event.time));
            assert!(link.connection.is_some() && link.connection != line.connection);
        }
        let link = &connect.chain[0];
        assert_eq!(link.connection, sent.connection);
        // Where it is told after its consequence it leaves before that is judged again: nothing is said then, nothing wrong.
        let told_late = link.cause.is_none() && order[0].kind != kind::CONNECT_FAILED;
        assert!(told_late || link.cause == Some("proxy_connect_timeout"), "{link:?}");
        assert_eq!(link.local.endpoint, sent.event.local);
        assert_eq!(link.peer.owner, received.owner, "the far end has a name: it is on this node");
    }
}

/// What a refused connect leads to is the same, and its process is known from who opened it.
#[test]
fn a_refused_connect_and_the_close_are_one_story() {
    for order in orders([refused(0), closes(2 * MS)]) {
        assert_eq!(
            chains(&order),
            [["before reset 10.0.0.2:50000 likely"], ["after connect_failure 10.0.0.9:8443 likely"]]
        );
    }
}

#[test]
fn a_reset_is_passed_on_in_either_direction() {
    assert_eq!(linked(&[upstream_reset(0), aborts(300_000)], "likely"), Code::ProxiedReset);
    // The application resets, and the proxy tells the upstream.
    let mut left = event(kind::RESET_RECEIVED, 0, role::SERVER, PROXY, [LISTENER, APPLICATION]);
    exchange(&mut left, 100, 200, 1000);
    let mut told = by(event(kind::RESET_SENT, 300_000, role::CLIENT, PROXY, [OUTGOING, UPSTREAM]), PROXY);
    told.flags |= flag::ENDED;
    told.facts.flags = agent_common::tcp::sock_flag::LINGER;
    told.facts.shutdown = 3;
    exchange(&mut told, 200, 100, 1000);
    assert_eq!(linked(&[left, told], "likely"), Code::ProxiedReset);
    // Or it has not got that far yet.
    assert_eq!(linked(&[left, gave_up(300_000)], "likely"), Code::ClientGone);
}

/// A timer ends the connection to the upstream, or keepalive does: the proxy passes that on as well.
#[test]
fn a_connection_that_died_without_a_reset_leads_on_as_well() {
    let mut timed_out = upstream_reset(0);
    timed_out.kind = kind::TIMED_OUT;
    assert_eq!(linked(&[timed_out, aborts(300_000)], "likely"), Code::LingerZeroClose);
    let mut keepalive = upstream_reset(0);
    keepalive.kind = kind::RESET_SENT;
    keepalive.facts.probes = 3;
    assert_eq!(linked(&[keepalive, aborts(300_000)], "likely"), Code::LingerZeroClose);
}

/// Sidecar and gateway on one node: three connections, five lines, and each tells all of it.
#[test]
fn a_chain_goes_on_over_several_proxies() {
    const GATEWAY: Task = task(30, 31);
    let between: [Address; 2] = [(3, 15_002), OUTGOING];
    let connect =
        connect_failed(by(event(kind::CONNECT_FAILED, 0, role::CLIENT, GATEWAY, [(3, 40_001), UPSTREAM]), GATEWAY));
    let mut gateway = by(event(kind::RESET_SENT, MS, role::SERVER, GATEWAY, between), GATEWAY);
    gateway.flags |= flag::ENDED;
    gateway.facts.shutdown = 3;
    gateway.facts.copied -= 517;
    let mut sidecar = event(kind::RESET_RECEIVED, MS - 20_000, role::CLIENT, PROXY, [between[1], between[0]]);
    exchange(&mut sidecar, 0, 517, 1000);
    let mut all = [connect, gateway, sidecar, aborts(2 * MS), application(2 * MS - 20_000)];
    exchange(&mut all[3], 517, 0, 1000);
    let near = ["after reset 10.0.0.3:15002 likely", "after connect_failure 10.0.0.9:8443 likely"];
    let middle = ["after connect_failure 10.0.0.9:8443 likely", "before reset 10.0.0.2:50000 likely"];
    let far = ["before reset 10.0.0.1:40000 likely", "before reset 10.0.0.2:50000 likely"];
    for order in orders(all) {
        assert_eq!(chains(&order), [far, middle, middle, near, near]);
    }
}

#[test]
fn a_chain_is_no_longer_than_a_reader_wants() {
    let mut records = Vec::new();
    for hop in 0..9_u8 {
        let (task, ms) = (task(100 + u32::from(hop), 100 + u32::from(hop)), u64::from(hop) * MS);
        let port = |hop: u8| 20_000 + u16::from(hop);
        let mut received =
            event(kind::RESET_RECEIVED, ms, role::CLIENT, task, [(100 + hop, port(hop)), (99 + hop, 80)]);
        exchange(&mut received, 200, 100, 1000);
        let ends = [(100 + hop, 80), (101 + hop, port(hop + 1))];
        let mut sent = by(event(kind::RESET_SENT, ms + 500_000, role::SERVER, task, ends), task);
        sent.flags |= flag::ENDED;
        sent.facts.flags = agent_common::tcp::sock_flag::LINGER;
        sent.facts.shutdown = 3;
        records.extend([received, sent]);
    }
    let chains = chains(&records);
    let count = |chain: &[String], relation: &str| chain.iter().filter(|link| link.starts_with(relation)).count();
    assert_eq!(chains[0].len(), 4, "{chains:?}");
    assert_eq!((count(&chains[9], "after"), count(&chains[9], "before")), (4, 4));
    assert!(chains[9][0].contains("10.0.0.103:80"), "the nearest first: {:?}", chains[9]);
}

/// The proxy closed before the application had said anything: with a FIN, and what came then was answered by a reset. Its
/// own line still knows why.
#[test]
fn an_answer_after_the_close_follows_from_what_the_connection_was_closed_for() {
    assert_eq!(linked(&[refused(0), late_answer(4)], "likely"), Code::ProxyConnectTimeout);
    // The connect's line does not wait for ever; the one about the late answer knows.
    let late = chains(&[refused(0), late_answer(5000)]);
    assert_eq!(late, [vec![], vec!["after connect_failure 10.0.0.9:8443 likely".to_owned()]]);
}

/// What the application sent so late is answered: the proxy had closed 2 ms after the start.
fn late_answer(ms: u64) -> Record {
    let mut answered = event(kind::RESET_ANSWERED, ms * MS, role::SERVER, PROXY, [LISTENER, APPLICATION]);
    answered.socket = socket::TIME_WAIT;
    answered.state = state::TIME_WAIT;
    answered.flags |= flag::CLOSED | flag::SEGMENT;
    answered.segment = Segment { flags: tcp_flag::PSH | tcp_flag::ACK, payload: 517, ..Segment::default() };
    answered.closed_ns = START + 2 * MS;
    answered.connection.last_state = state::FIN_WAIT2;
    answered.connection.first_fin = agent_common::connection::first_fin::LOCAL;
    answered.connection.first_fin_ns = START + 2 * MS;
    answered.connection.closer = PROXY;
    answered.connection.flags |= agent_common::connection::connection_flag::CLOSER_KNOWN;
    answered.facts.shutdown = shutdown::BOTH;
    exchange(&mut answered, 0, 0, 1000);
    answered
}

/// The application had said nothing that could be unread: it sees a clean end and has no line, but the connect's line names it.
#[test]
fn a_quiet_close_is_named_by_what_led_to_it() {
    for order in orders([gave_up(0), closes_quietly(100_000)]) {
        let lines = lines(&order);
        let [connect] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(connect.chain.iter().map(shown).collect::<Vec<_>>(), ["before close 10.0.0.2:50000 likely"]);
        assert_eq!((connect.chain[0].connection.clone(), connect.chain[0].cause), (None, None));
    }
    assert_eq!(chains(&[upstream_reset(0), closes_quietly(100_000)]), [["before close 10.0.0.2:50000 likely"]]);
    // What comes on it then is answered by a reset, which has a line.
    let mut answered = late_answer(50);
    answered.connection.first_fin_ns = START + 100_000;
    let chains = chains(&[refused(0), closes_quietly(100_000), answered]);
    assert_eq!(chains, [["before reset 10.0.0.2:50000 likely"], ["after connect_failure 10.0.0.9:8443 likely"]]);
}

/// A quiet close is a consequence as well: the next failure has the next one.
#[test]
fn a_quiet_close_is_the_one_consequence_of_its_failure() {
    let (mut connect, mut close) = (gave_up(200_000), closes(300_000));
    connect.tuple.local_port += 1;
    connect.tuple.peer_port += 1;
    close.tuple.peer_port += 1;
    let chains = chains(&[gave_up(0), closes_quietly(100_000), connect, close]);
    assert_eq!(chains[0], ["before close 10.0.0.2:50000 likely"]);
    assert_eq!(chains[1], ["before reset 10.0.0.2:50001 likely"]);
    assert_eq!(chains[2], ["after connect_failure 10.0.0.9:8444 likely"]);
}

/// HAProxy, when its connect timeout has run out: the client first.
#[test]
fn a_client_that_is_closed_just_beforehand_may_belong_to_the_connect() {
    for order in orders([closes(0), gave_up(MS)]) {
        let lines = lines(&order);
        let chains: Vec<Vec<String>> = lines.iter().map(|line| line.chain.iter().map(shown).collect()).collect();
        assert_eq!(
            chains,
            [["after connect_failure 10.0.0.9:8443 possible"], ["before reset 10.0.0.2:50000 possible"]]
        );
        assert_eq!(lines[0].cause.code, Code::ProxyConnectTimeout);
        assert_eq!(lines[0].chain[0].after.0, 0.0);
    }
    unlinked(&[closes(0), gave_up(5 * MS + 1)]);
    // The client's leaving is what the connect was given up for.
    let mut left = closes(0);
    left.connection.first_fin = agent_common::connection::first_fin::PEER;
    left.connection.first_fin_ns = START - MS;
    unlinked(&[left, gave_up(MS)]);
}

/// What comes in the usual order goes before that.
#[test]
fn a_close_after_the_connect_goes_before_one_just_beforehand() {
    let mut other = closes(0);
    other.tuple.peer_port += 1;
    for order in orders([other, gave_up(MS), closes(2 * MS)]) {
        let chains = chains(&order);
        assert!(chains[0].is_empty(), "{chains:?}");
        assert_eq!(
            chains[1..],
            [["before reset 10.0.0.2:50000 likely"], ["after connect_failure 10.0.0.9:8443 likely"]]
        );
    }
}

/// Three times refused, and then the proxy gives up.
#[test]
fn of_several_attempts_the_last_one_counts() {
    let attempt = |number: u16| {
        let ns = u64::from(number) * MS;
        let mut attempt = refused(ns);
        attempt.tuple.local_port += number;
        attempt.connection.birth_ns = attempt.boot_ns - 500_000;
        attempt
    };
    let chains = chains(&[attempt(0), attempt(1), attempt(2), closes(3 * MS)]);
    let none: [&str; 0] = [];
    assert_eq!(chains[..2], [none, none]);
    assert_eq!(chains[2..], [["before reset 10.0.0.2:50000 likely"], ["after connect_failure 10.0.0.9:8443 likely"]]);
}
