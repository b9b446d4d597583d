//! What only looks like it.

use super::*;

#[test]
fn another_process_is_no_proxy_of_this_one() {
    let other = task(9, 8);
    let mut close = closes(100_000);
    (close.actor, close.connection.owner) = (other, other);
    unlinked(&[gave_up(0), close]);
}

#[test]
fn a_moment_later_it_has_nothing_to_do_with_it() {
    assert_eq!(linked(&[gave_up(0), closes(50 * MS)], "likely"), Code::ProxyConnectTimeout);
    unlinked(&[gave_up(0), closes(50 * MS + 1)]);
    unlinked(&[refused(1), closes(0)]);
    // By the process alone, where the threads say nothing.
    let nobodys = |ns: u64| {
        let mut reset = upstream_reset(ns);
        reset.connection.owner_from = owner_from::NONE;
        reset
    };
    assert_eq!(linked(&[nobodys(0), aborts(20 * MS)], "possible"), Code::ProxiedReset);
    unlinked(&[nobodys(0), aborts(20 * MS + 1)]);
}

/// One process is the upstream and the application. It resets, loses the processor before the kernel has told of it, and
/// hears from the proxy that passed it on: its own reset was the first all the same.
#[test]
fn a_reset_that_is_told_late_came_of_nothing_that_came_of_it() {
    let records = |closed_ns: u64| {
        let mut first = by(event(kind::RESET_SENT, 8 * MS, role::SERVER, APP, [UPSTREAM, OUTGOING]), APP);
        first.flags |= flag::ENDED;
        first.facts.flags = agent_common::tcp::sock_flag::LINGER;
        first.facts.shutdown = 3;
        first.closed_ns = closed_ns;
        [upstream_reset(MS), aborts(2 * MS), application(3 * MS), first]
    };
    let causes =
        |closed_ns: u64| lines(&records(closed_ns)).into_iter().map(|line| line.cause.code).collect::<Vec<_>>();
    assert_eq!(causes(START)[3], Code::LingerZeroClose);
    assert_eq!(causes(START + 8 * MS)[3], Code::ProxiedReset, "as the event's own time has it");
}

/// Envoy's workers: each has its own connections.
#[test]
fn two_workers_of_one_process_are_two_proxies() {
    let mut other = upstream_reset(0);
    other.connection.owner.tid = 9;
    let lines = lines(&[other, aborts(300_000)]);
    assert!(lines.iter().all(|line| line.chain.is_empty()), "{lines:?}");
    assert_eq!(lines[1].cause.code, Code::LingerZeroClose);
    let mut gave_up_by_another = gave_up(0);
    (gave_up_by_another.actor.tid, gave_up_by_another.connection.owner.tid) = (9, 9);
    unlinked(&[gave_up_by_another, closes(100_000)]);
    // Where connections wander from thread to thread (Go), only the process tells.
    let mut wandering = aborts(300_000);
    wandering.actor.tid = 9;
    assert_eq!(linked(&[upstream_reset(0), wandering], "possible"), Code::ProxiedReset);
}

#[test]
fn what_the_process_opened_itself_is_no_client_of_its() {
    let mut other = closes(100_000);
    other.connection.role = role::CLIENT;
    unlinked(&[gave_up(0), other]);
    let mut accepted = upstream_reset(0);
    accepted.connection.role = role::SERVER;
    unlinked(&[accepted, aborts(100_000)]);
    // Older than rstscope, it may be.
    let mut older = closes(100_000);
    (older.connection.role, older.connection.birth_ns) = (role::UNKNOWN, 0);
    assert_eq!(linked(&[gave_up(0), older], "possible"), Code::ProxyConnectTimeout);
}

#[test]
fn a_process_that_exits_closes_everything_for_one_reason() {
    let mut exit = closes(100_000);
    exit.flags |= flag::ACTOR_EXITING;
    unlinked(&[gave_up(0), exit]);
    let mut connecting = gave_up(0);
    connecting.flags |= flag::ACTOR_EXITING;
    unlinked(&[connecting, closes(100_000)]);
}

#[test]
fn a_client_that_came_later_was_not_what_it_was_for() {
    let mut late = closes(100_000);
    late.connection.birth_ns = START + 50_000;
    unlinked(&[gave_up(0), late]);
    // It came while the proxy was connecting: that connect may have been for anybody.
    let mut while_connecting = closes(100_000);
    while_connecting.connection.birth_ns = START - SECOND / 2;
    assert_eq!(linked(&[gave_up(0), while_connecting], "possible"), Code::ProxyConnectTimeout);
}

#[test]
fn a_client_that_had_left_before_the_connect_failed_was_not_closed_for_it() {
    let left = |ns: u64| {
        let mut close = closes(3 * MS);
        close.state = state::CLOSE_WAIT;
        close.connection.first_fin = agent_common::connection::first_fin::PEER;
        close.connection.first_fin_ns = START + ns;
        close
    };
    unlinked(&[gave_up(MS), left(500_000)]);
    assert_eq!(linked(&[gave_up(MS), left(2 * MS)], "likely"), Code::ProxyConnectTimeout);
}

/// An idle keep-alive connection is closed as a connect for somebody else fails.
#[test]
fn a_client_that_waited_for_nothing_was_not_closed_for_a_connect() {
    let close = |answered_ms_ago: u32| {
        let mut close = aborts(100_000);
        close.connection.birth_ns -= 60 * SECOND;
        exchange(&mut close, 100, 200, answered_ms_ago);
        close
    };
    unlinked(&[gave_up(0), close(30_000)]);
    assert_eq!(linked(&[gave_up(0), close(1000)], "likely"), Code::ProxyConnectTimeout);
    // It has asked since.
    let mut asks = close(30_000);
    asks.facts.received_stamp = JIFFIES - 1000 / 4;
    assert_eq!(linked(&[gave_up(0), asks], "likely"), Code::ProxyConnectTimeout);
}

/// A pooled connection is reset that has carried nothing of what this client said and got.
#[test]
fn a_reset_of_a_connection_that_carried_nothing_of_it_is_another_story() {
    let pooled = |received: u64, sent: u64, ms_ago: u32| {
        let mut reset = upstream_reset(0);
        exchange(&mut reset, received, sent, ms_ago);
        reset
    };
    unlinked(&[pooled(0, 0, 1000), aborts(300_000)]);
    unlinked(&[pooled(200, 100, 60_000), aborts(300_000)]);
    assert_eq!(linked(&[pooled(3000, 500, 1000), aborts(300_000)], "likely"), Code::ProxiedReset);
    // What the client said just now may not have been passed on yet.
    let mut just_now = aborts(300_000);
    exchange(&mut just_now, 100, 0, 40);
    assert_eq!(linked(&[pooled(200, 100, 60_000), just_now], "likely"), Code::ProxiedReset);
    // Nor does a stamp tell anything of what waits in a full buffer.
    let mut upload = aborts(300_000);
    upload.facts.copied -= 50;
    assert_eq!(linked(&[pooled(200, 100, 60_000), upload], "likely"), Code::ProxiedReset);
}

#[test]
fn a_failure_has_one_consequence() {
    let mut second = closes(200_000);
    second.tuple.peer_port += 1;
    let chains = chains(&[gave_up(0), closes(100_000), second]);
    assert_eq!(chains[0], ["before reset 10.0.0.2:50000 likely"]);
    assert_eq!(chains[1], ["after connect_failure 10.0.0.9:8443 likely"]);
    assert!(chains[2].is_empty(), "{chains:?}");
}

/// One event loop, one connect after another: each is followed by its own client's close.
#[test]
fn each_failure_has_its_own_consequence() {
    let numbered = |number: u16| {
        let ns = u64::from(number) * 100_000;
        let (mut connect, mut close) = (gave_up(ns), closes(ns + 50_000));
        connect.tuple.local_port += number;
        close.tuple.peer_port += number;
        [connect, close]
    };
    let records: Vec<Record> = (0..20).flat_map(numbered).collect();
    for (number, pair) in chains(&records).chunks(2).enumerate() {
        assert_eq!(pair[0], [format!("before reset 10.0.0.2:{} likely", 50_000 + number)]);
        assert_eq!(pair[1], ["after connect_failure 10.0.0.9:8443 likely"]);
    }
}

/// An upstream dies with several connections of the proxy: which was whose?
#[test]
fn of_several_that_are_alike_each_is_only_possible() {
    let numbered = |number: u16| {
        let (mut reset, mut abort) = (upstream_reset(u64::from(number)), aborts(300_000 + u64::from(number)));
        reset.tuple.local_port += number;
        abort.tuple.peer_port += number;
        (reset, abort)
    };
    let (resets, aborted): (Vec<_>, Vec<_>) = (0..3).map(numbered).unzip();
    let records = [resets, aborted].concat();
    for (number, line) in lines(&records).iter().enumerate() {
        assert_eq!(line.chain.len(), 1);
        assert_eq!(line.chain[0].confidence, "possible", "{line:?}");
        if number >= 3 {
            assert_eq!(line.cause.code, Code::ProxiedReset);
            assert_eq!(line.chain[0].local.endpoint.port, Some(40_000 + number as u16 - 3), "in the order of time");
        }
    }
}

#[test]
fn bytes_tell_which_of_several_it_was() {
    let (mut other, mut own) = (upstream_reset(0), upstream_reset(1000));
    other.tuple.peer_port = 9999;
    exchange(&mut other, 70_000, 300, 1000);
    own.tuple.local_port += 1;
    for order in orders([other, own, aborts(300_000)]) {
        let chains = chains(&order);
        assert!(chains[0].is_empty(), "{chains:?}");
        assert_eq!(chains[2], ["after reset 10.0.0.9:8443 likely"]);
    }
    // Without that, two different stories are none.
    exchange(&mut own, 80_000, 300, 1000);
    let lines = lines(&[other, own, aborts(300_000)]);
    assert!(lines.iter().all(|line| line.chain.is_empty()), "{lines:?}");
    assert_eq!(lines[2].cause.code, Code::LingerZeroClose);
}

#[test]
fn where_too_much_fails_at_once_nothing_is_linked() {
    let failures = |count: u16| {
        let mut records: Vec<Record> = (0..count)
            .map(|number| {
                let mut failure = refused(u64::from(number));
                failure.tuple.local_port = 1000 + number;
                failure
            })
            .collect();
        records.push(closes(MS));
        chains(&records).pop().unwrap().len()
    };
    assert_eq!((failures(256), failures(257)), (1, 0));
}

/// A listener that closes resets those that waited in its queue: nobody had accepted them.
#[test]
fn what_nobody_had_accepted_belongs_to_nobody() {
    let mut queued = closes(100_000);
    queued.facts.bits = 0;
    queued.facts.shutdown = 0;
    unlinked(&[gave_up(0), queued]);
    let mut unaccepted = event(kind::RESET_RECEIVED, 0, role::SERVER, PROXY, [LISTENER, APPLICATION]);
    unaccepted.facts.bits = 0;
    unlinked(&[unaccepted, gave_up(100_000)]);
}
