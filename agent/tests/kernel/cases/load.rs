//! Many resets: none lost in silence, none twice.

use std::{
    collections::{HashMap, HashSet},
    io::{ErrorKind, Read},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Case,
    agent::{Agent, at_leisure, is_slow, patience, scaled},
    netns::Netns,
    sockets::{Family, linger_zero},
};

pub const CASES: &[Case] = &[
    ("ten_thousand_resets_none_lost_none_twice", ten_thousand),
    ("the_connection_table_does_not_leak", the_connection_table_does_not_leak),
];

/// The way from the kernel to the agent, which no hook is part of.
pub const CASES_OF_THE_RING: &[Case] = &[("what_does_not_fit_is_counted", what_does_not_fit_is_counted)];

/// Connects and resets `count` times, and returns the clients' ports in order.
fn reset_many(netns: &Netns, count: usize) -> Vec<u16> {
    netns.run(move || {
        let listener = Family::V4.listen();
        let address = listener.local_addr().unwrap();
        let mut ports = Vec::with_capacity(count);
        for _ in 0..count {
            let client = std::net::TcpStream::connect(address).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            ports.push(client.local_addr().unwrap().port());
            linger_zero(&client);
            drop(client);
            // A server that closes before the RST has come, as on a busy machine it can, sends a FIN that is answered by
            // a second RST.
            assert_eq!(server.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        ports
    })
}

fn ten_thousand() {
    let count = scaled(10_000);
    let netns = Netns::new();
    let mut agent = Agent::start(&[]);
    let mut wanted: HashMap<(&str, u16), usize> = HashMap::new();
    for port in reset_many(&netns, count) {
        *wanted.entry(("sent", port)).or_default() += 1;
        *wanted.entry(("received", port)).or_default() += 1;
    }
    let lines = gather(&mut agent, &netns, 2 * count);

    let mut found: HashMap<(&str, u16), usize> = HashMap::new();
    let mut sequences = HashSet::new();
    let mut connections: HashMap<&str, usize> = HashMap::new();
    for line in &lines {
        *connections.entry(line["connection"]["id"].as_str().unwrap()).or_default() += 1;
        assert_eq!(line["age_is_minimum"], false, "{line}");
        let direction = line["reset"]["direction"].as_str().unwrap();
        let end = if direction == "sent" { "local" } else { "peer" };
        let port = u16::try_from(line[end]["port"].as_u64().unwrap()).unwrap();
        *found.entry((if direction == "sent" { "sent" } else { "received" }, port)).or_default() += 1;
        // Ports come round again, sequence numbers do not: the same event twice would have the same.
        let own = (direction.to_owned(), port, line["facts"]["sequence"].to_string());
        assert!(sequences.insert(own), "twice: {line}");
    }
    // A sender waits 100 ms for its receiver and a receiver a second for its sender, by the clock of the records: an emulated
    // machine that stands still for longer in between is now and then not waited for.
    let not_joined: Vec<_> = lines.iter().filter(|line| !line["connection"]["other_end"].is_object()).collect();
    let most = if is_slow() { lines.len() / 50 } else { 0 };
    assert!(not_joined.len() <= most, "{} of {} not joined: {not_joined:#?}", not_joined.len(), lines.len());
    let missing: Vec<_> = wanted.iter().filter(|(key, count)| found.get(*key) != Some(*count)).take(5).collect();
    assert!(missing.is_empty(), "{} of {} lines; e.g. {missing:?}", lines.len(), 2 * count);
    assert_eq!(lines.len(), 2 * count);
    let alone = connections.iter().find(|(_, lines)| **lines != 2);
    assert_eq!((connections.len(), alone), (count, None));
    let (rest, summary) = agent.stop();
    let lost: Vec<&Value> = rest.iter().filter(|line| line["type"] == "lost").collect();
    assert!(lost.is_empty(), "{lost:#?}");
    assert!(summary.contains("nothing lost"), "{summary}");
}

/// The agent stands still while more arrives than its smallest buffer holds. What is missing afterwards is what it says.
fn what_does_not_fit_is_counted() {
    let count = scaled(2000);
    let netns = Netns::new();
    let mut agent = Agent::start(&["--ring-bytes", "65536"]);
    agent.stopped(|| reset_many(&netns, count));

    // Other tests of this run share the machine: their events may be among the lost, so at least this many.
    let deadline = Instant::now() + patience();
    let (mut resets, mut lost, mut by_cpu) = (0, 0, 0);
    while resets + lost < 2 * count && Instant::now() < deadline {
        for line in agent.everything(Duration::from_millis(300)) {
            if line["type"] == "lost" && line["lost"]["cause"] == "ring_buffer_full" {
                lost += line["lost"]["count"].as_u64().unwrap() as usize;
                by_cpu += line["lost"]["by_cpu"]
                    .as_object()
                    .unwrap()
                    .values()
                    .map(|count| count.as_u64().unwrap() as usize)
                    .sum::<usize>();
            } else if line["type"] == "reset" && line["local"]["netns"] == netns.inode() {
                resets += 1;
            }
        }
    }
    assert!(lost > 0, "a buffer of 64 KiB cannot hold {} events", 2 * count);
    assert_eq!(lost, by_cpu, "every loss has its CPU");
    assert!(resets + lost >= 2 * count, "{resets} lines and {lost} lost of {}", 2 * count);
    let (_, summary) = agent.stop();
    assert!(summary.contains("ring_buffer_full"), "{summary}");
}

/// Every way in which a connection can end gives its place back. Room for the few connections of tests beside this one.
fn the_connection_table_does_not_leak() {
    let netns = Netns::new();
    let agent = Agent::start(&["--connections", &scaled(1024).to_string()]);
    reset_many(&netns, scaled(2000));
    netns.run(|| {
        let listener = Family::V4.listen();
        let address = listener.local_addr().unwrap();
        for round in 0..scaled(2000) {
            let client = std::net::TcpStream::connect(address).unwrap();
            let (server, _) = listener.accept().unwrap();
            // Either end closes first, so either end is the one in TIME_WAIT.
            if round % 2 == 0 {
                drop(client);
                drop(server);
            } else {
                drop(server);
                drop(client);
            }
        }
        let refused = Family::V4.listen().local_addr().unwrap();
        for _ in 0..scaled(1000) {
            std::net::TcpStream::connect(refused).unwrap_err();
        }
    });
    let (rest, _) = agent.stop();
    let full: Vec<&Value> = rest.iter().filter(|line| line["lost"]["cause"] == "connection_table_full").collect();
    assert!(full.is_empty(), "{full:#?}");
}

/// Resets of this namespace until there are `count`, or nothing has come for a while.
fn gather(agent: &mut Agent, netns: &Netns, count: usize) -> Vec<Value> {
    let mut lines = Vec::new();
    let mut quiet_since = Instant::now();
    while lines.len() < count && quiet_since.elapsed() < at_leisure(Duration::from_secs(5)) {
        let more = agent.rest(netns, Duration::from_millis(200));
        if !more.is_empty() {
            quiet_since = Instant::now();
        }
        lines.extend(more);
    }
    lines.extend(agent.rest(netns, Duration::from_millis(400)));
    lines
}
