//! Reject rules of this node's own, in force: their RSTs are made by no socket and pass none of the hooks.

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
};

use crate::{
    Case,
    agent::Agent,
    expect::{absent, cause, is},
    netns::Netns,
    sockets::{Family, Pair, connect_nonblocking},
};

pub const CASES: &[Case] = &[
    ("firewall_rejects_a_new_connection", new_connection),
    ("firewall_rejects_an_open_connection", open_connection),
    ("firewall_elsewhere_is_not_this_nodes", elsewhere),
    ("firewall_is_not_concluded_with_filters", with_filters),
];

/// What comes for this port is rejected from now on.
fn reject(netns: &Netns, port: u16) {
    netns.nft(&format!(
        "table inet rejecting {{
            chain input {{
                type filter hook input priority filter;
                tcp dport {port} reject with tcp reset
            }}
        }}"
    ));
}

fn new_connection() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let listener = netns.run(|| Family::V4.listen());
    let address = listener.local_addr().unwrap();
    reject(&netns, address.port());
    drop(netns.run(|| connect_nonblocking(address)));
    let failure = agent.connect_failure(&netns, address.port());
    is(&failure, "/facts/connect_failure", "refused");
    cause(&failure, "rejected_by_firewall", "possible");
}

/// The server knows the connection as ever.
fn open_connection() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    pair.exchange(10, 10);
    reject(&netns, pair.server_port());
    pair.client.write_all(b"question").unwrap();
    let received = agent.reset(&netns, "received", pair.client_port());
    is(&received, "/tcp/state", "ESTABLISHED");
    is(&received, "/facts/rst_had_timestamp", false);
    absent(&received, "/connection/other_end");
    cause(&received, "rejected_by_firewall", "possible");
}

/// The node's own address leads to another host, as a NodePort does. (Its end is on this machine too; the reject rule there
/// makes it one whose resets are not seen.)
fn elsewhere() {
    let (node, other) = (Netns::new(), Netns::new());
    node.join("eth0", "10.77.0.1/24", &other, "eth0", Some("10.77.0.2/24"));
    node.nft(
        "table ip services {
            chain output {
                type nat hook output priority -100;
                ip daddr 10.77.0.1 tcp dport 30080 dnat to 10.77.0.2:8080
            }
        }",
    );
    let mut agent = Agent::start(&["--conntrack-netns", &node.path()]);
    let listener = other.run(|| TcpListener::bind("10.77.0.2:8080").unwrap());
    let client = node.run(|| TcpStream::connect("10.77.0.1:30080").unwrap());
    let (server, _) = listener.accept().unwrap();
    let mut pair = Pair { client, server, listener };
    pair.exchange(10, 10);
    reject(&other, 8080);
    pair.client.write_all(b"question").unwrap();
    let received = agent.reset(&node, "received", pair.client_port());
    is(&received, "/local/ip", "10.77.0.1");
    is(&received, "/peer/ip", "10.77.0.1");
    is(&received, "/peer/backend/ip", "10.77.0.2");
    is(&received, "/cause/code", "connection_unknown_at_peer");
}

/// The sender may be one that the filter leaves out.
fn with_filters() {
    let netns = Netns::new();
    let listener = netns.run(|| Family::V4.listen());
    let address = listener.local_addr().unwrap();
    let mut agent = Agent::start(&["--port", &address.port().to_string()]);
    reject(&netns, address.port());
    drop(netns.run(|| connect_nonblocking(address)));
    let failure = agent.connect_failure(&netns, address.port());
    cause(&failure, "connect_refused", "certain");
}
