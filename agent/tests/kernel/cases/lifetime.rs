//! Connections older than the agent, and an agent that dies.

use std::{thread::sleep, time::Duration};

use crate::{
    Case,
    agent::Agent,
    expect::{Step, absent, is, near, number},
    netns::Netns,
    sockets::{Family, Pair, linger_zero},
};

pub const CASES: &[Case] = &[("an_agent_killed_and_restarted_goes_on", killed_and_restarted)];

/// What the socket itself tells of its age, whichever hook found it.
pub const CASES_OF_AGES: &[Case] = &[
    ("a_connection_older_than_the_agent_has_a_minimum_age", older_than_the_agent),
    ("a_busy_connection_older_than_the_agent_claims_no_more_than_it_knows", busy_and_older),
];

/// Idle or sending only, `rcvq_space.time` still is the moment it was established.
fn older_than_the_agent() {
    let netns = Netns::new();
    let (born, pair) = Step::of(|| netns.run(|| Pair::connect(Family::V4)));
    sleep(Duration::from_millis(700));
    let mut agent = Agent::start(&[]);
    sleep(Duration::from_millis(200));
    let (client, server) = (pair.client_port(), pair.server_port());
    linger_zero(&pair.client);
    let Pair { client: closing, server: _open, listener: _listener } = pair;
    let (closed, ()) = Step::of(|| drop(closing));
    for (direction, port) in [("sent", client), ("received", server)] {
        let line = agent.reset(&netns, direction, port);
        is(&line, "/age_is_minimum", true);
        is(&line, "/role", "unknown");
        is(&line, "/tcp/state", "ESTABLISHED");
        near(&line, "/age_ms", &born.until(&closed));
        near(&line, "/idle_ms", &born.until(&closed));
        // Whether its SYN is in the count is not known.
        absent(&line, "/tcp/bytes_acked");
        absent(&line, "/tcp/syn_retransmits");
    }
    agent.nothing_more(&netns);
}

fn busy_and_older() {
    let netns = Netns::new();
    let (born, mut pair) = Step::of(|| netns.run(|| Pair::connect(Family::V4)));
    for _ in 0..20 {
        pair.exchange(1000, 1000);
        sleep(Duration::from_millis(20));
    }
    let mut agent = Agent::start(&[]);
    let (used, ()) = Step::of(|| pair.exchange(10, 10));
    sleep(Duration::from_millis(300));
    let server = pair.server_port();
    linger_zero(&pair.client);
    let (closed, ()) = Step::of(|| drop(pair));
    let line = agent.reset(&netns, "received", server);
    is(&line, "/age_is_minimum", true);
    let age = number(&line, "/age_ms");
    assert!(age <= born.until(&closed).end() + 8.0, "older than it is: {line:#}");
    assert!(age >= used.until(&closed).start() - 8.0, "younger than its last data: {line:#}");
    // Its process is known all the same: it read while the agent watched.
    is(&line, "/local/process/pid", std::process::id());
}

fn killed_and_restarted() {
    let netns = Netns::new();
    let mut first = Agent::start(&[]);
    let (born, pair) = Step::of(|| netns.run(|| Pair::connect(Family::V4)));
    let doomed = netns.run(|| Pair::connect(Family::V4));
    let seen = doomed.client_port();
    linger_zero(&doomed.client);
    drop(doomed);
    first.reset(&netns, "sent", seen);
    first.kill();

    // With no agent, nothing of ours is left that could hurt: connections come and go.
    let unseen = netns.run(|| Pair::connect(Family::V4));
    linger_zero(&unseen.client);
    let unseen_port = unseen.client_port();
    drop(unseen);

    let mut second = Agent::start(&[]);
    let (client, server) = (pair.client_port(), pair.server_port());
    linger_zero(&pair.client);
    let (closed, ()) = Step::of(|| drop(pair));
    let sent = second.reset(&netns, "sent", client);
    is(&sent, "/age_is_minimum", true);
    near(&sent, "/age_ms", &born.until(&closed));
    second.reset(&netns, "received", server);
    let rest = second.rest(&netns, Duration::from_millis(400));
    assert!(rest.is_empty(), "nothing of what happened without an agent ({unseen_port}) is made up: {rest:#?}");
}
