//! A node full of connections that are older than the agent: how long it takes to find out whose they are, and what it
//! costs. Prints what it measures; docs/attribution.md has a table of it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    Case,
    actor::Actor,
    agent::{Agent, is_slow, patience},
    netns::Netns,
};

pub const CASES: &[Case] = &[("a_hundred_thousand_older_connections_are_named_in_seconds", a_hundred_thousand)];

/// How many servers and as many clients: a process may not have as many descriptors as there are connections.
const SERVERS: usize = 10;
/// So many connections of each wait to be accepted, five times.
const AT_ONCE: usize = 2000;
const ROUNDS: usize = 5;
/// How many of them are reset.
const RESETS: usize = 100;

/// An emulated machine makes do with four thousand: its memory is small.
fn a_hundred_thousand() {
    let at_once = if is_slow() { AT_ONCE / 25 } else { AT_ONCE };
    let connections = SERVERS * at_once * ROUNDS;
    let netns = Netns::new();
    let idle = rss_kib(&start("auto").0);
    let begin = Instant::now();
    let mut crowd = netns.run(move || (0..SERVERS).map(|index| serve(index, at_once)).collect::<Vec<_>>());
    println!("\n{connections} connections made in {} ms", begin.elapsed().as_millis());
    for way in ["iterator", "proc"] {
        let (mut agent, took) = start(way);
        let older = agent.start_line()["agent"]["older_connections"].clone();
        let rss = rss_kib(&agent);
        assert!(older["named"].as_u64() >= Some(2 * (connections - SERVERS * RESETS) as u64), "{older}");
        assert!(older["ms"].as_f64() < Some(10_000.0), "{older}");

        for (_, client, _) in &mut crowd {
            assert_eq!(client.tell(&format!("reset-many {RESETS}")), "reset");
        }
        let lines = received(&mut agent, &netns);
        assert_eq!(lines.len(), SERVERS * RESETS, "{way}");
        for line in &lines {
            let (server, ..) = crowd.iter().find(|(_, _, port)| line["local"]["port"] == *port).unwrap();
            assert_eq!(line["local"]["process"]["pid"], server.pid(), "{line}");
            assert_eq!(line["facts"]["owner_from"], "open", "{line}");
        }
        println!(
            "{way}: {} ends named in {} ms, the first line after {} ms; RSS {rss} KiB, without connections {idle} KiB",
            older["named"],
            older["ms"],
            took.as_millis()
        );
        let (rest, summary) = agent.stop();
        assert!(!rest.iter().any(|line| line["type"] == "lost"), "{summary}");
    }
}

/// A server, its client and its port.
fn serve(index: usize, at_once: usize) -> (Actor, Actor, u16) {
    let mut server = Actor::start("crowd-server", "server", &[]);
    let mut client = Actor::start("crowd-client", "client", &[]);
    let port: u16 = server.tell("port").parse().unwrap();
    assert_eq!(server.tell("queue-up"), "listening");
    for _ in 0..ROUNDS {
        assert_eq!(client.tell(&format!("connect-many {at_once} {port} 127.0.1.{}", index + 1)), "connected");
        assert_eq!(server.tell(&format!("accept-many {at_once}")), "accepted");
    }
    (server, client, port)
}

/// An agent with room for all of them, and how long it took to start.
fn start(way: &str) -> (Agent, Duration) {
    let start = Instant::now();
    let agent = Agent::start(&["--connections", "262144", "--older-connections", way]);
    (agent, start.elapsed())
}

fn received(agent: &mut Agent, netns: &Netns) -> Vec<Value> {
    let mut lines = Vec::new();
    let deadline = Instant::now() + patience();
    while lines.len() < SERVERS * RESETS && Instant::now() < deadline {
        let more = agent.rest(netns, Duration::from_millis(300));
        lines.extend(more.into_iter().filter(|line| line["reset"]["direction"] == "received"));
    }
    lines
}

/// The agent's resident memory.
fn rss_kib(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("the agent runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
