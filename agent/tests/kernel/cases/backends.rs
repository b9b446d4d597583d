//! The endpoint behind a Service's address, where the kernel translates it as kube-proxy has it do.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::Instant,
};

use crate::{
    Case,
    agent::{Agent, patience},
    api_server::{self, ApiServer},
    expect::{absent, is},
    netns::Netns,
    sockets::{connect_nonblocking, linger_zero},
};

pub const CASES: &[Case] = &[
    ("backend_of_a_service_is_named", named),
    ("backend_of_a_service_is_named_for_ipv6", named_for_ipv6),
    ("backend_that_never_answered_is_named", unanswered),
    ("backend_is_not_made_up_without_translation", untranslated),
    ("backend_of_a_service_is_a_pod_of_the_cluster", pod_of_the_cluster),
];

/// A node's rules for two Services; what the second one's endpoint answers is lost.
const RULES: &str = "
    table ip services {
        chain prerouting {
            type nat hook prerouting priority dstnat;
            ip daddr 10.96.0.10 tcp dport 80 dnat to 10.79.0.9:8080
            ip daddr 10.96.0.11 tcp dport 80 dnat to 10.79.0.9:8081
        }
        chain output {
            type filter hook output priority filter;
            ip saddr 10.79.0.9 tcp sport 8081 drop
        }
    }
    table ip6 services {
        chain prerouting {
            type nat hook prerouting priority dstnat;
            ip6 daddr fd00:96::10 tcp dport 80 dnat to [fd00:79::9]:8080
        }
    }";

/// A pod's namespace, behind that of its node, which has the endpoints' addresses too.
fn network() -> (Netns, Netns) {
    let (pod, node) = (Netns::new(), Netns::new());
    pod.join("eth0", "10.77.0.1/24", &node, "pod0", Some("10.77.0.254/24"));
    pod.ip("route add default via 10.77.0.254");
    node.ip("addr add 10.79.0.9/32 dev lo");
    pod.ip("addr add fd00:77::1/64 dev eth0 nodad");
    node.ip("addr add fd00:77::fe/64 dev pod0 nodad");
    pod.ip("route add default via fd00:77::fe");
    node.ip("addr add fd00:79::9/128 dev lo");
    node.nft(RULES);
    (pod, node)
}

/// The same with an agent that asks the node.
fn cluster() -> (Netns, Netns, Agent) {
    let (pod, node) = network();
    let agent = asking(&node, &[]);
    (pod, node, agent)
}

/// An agent that asks in the node's namespace.
fn asking(node: &Netns, flags: &[&str]) -> Agent {
    Agent::start(&[&["--conntrack-netns", &node.path()][..], flags].concat())
}

/// The pod connects to one address, another accepts and resets; returns the port of the client's end.
fn reset(pod: &Netns, node: &Netns, asked: &str, endpoint: &str) -> u16 {
    let (asked, endpoint): (SocketAddr, SocketAddr) = (asked.parse().unwrap(), endpoint.parse().unwrap());
    let listener = node.run(move || TcpListener::bind(endpoint).expect("a listener"));
    let client = pod.run(move || TcpStream::connect(asked).expect("a connection"));
    let (server, _) = listener.accept().expect("accepted");
    linger_zero(&server);
    drop(server);
    client.local_addr().expect("bound").port()
}

fn named() {
    let (pod, node, mut agent) = cluster();
    let port = reset(&pod, &node, "10.96.0.10:80", "10.79.0.9:8080");
    let line = agent.reset(&pod, "received", port);
    is(&line, "/role", "client");
    is(&line, "/peer/ip", "10.96.0.10");
    is(&line, "/peer/port", 80);
    is(&line, "/peer/backend/ip", "10.79.0.9");
    is(&line, "/peer/backend/port", 8080);
    // What the kernel said is what the other end's own socket says.
    is(&line, "/connection/other_end/ip", "10.79.0.9");
    is(&line, "/connection/other_end/port", 8080);
    let sent = agent.reset(&node, "sent", 8080);
    is(&sent, "/peer/ip", "10.77.0.1");
    absent(&sent, "/peer/backend");
}

fn named_for_ipv6() {
    let (pod, node, mut agent) = cluster();
    let port = reset(&pod, &node, "[fd00:96::10]:80", "[fd00:79::9]:8080");
    let line = agent.reset(&pod, "received", port);
    is(&line, "/peer/ip", "fd00:96::10");
    is(&line, "/peer/backend/ip", "fd00:79::9");
    is(&line, "/peer/backend/port", 8080);
}

fn unanswered() {
    let (pod, node, mut agent) = cluster();
    let _listener = node.run(|| TcpListener::bind("10.79.0.9:8081").expect("a listener"));
    drop(pod.run(|| connect_nonblocking("10.96.0.11:80".parse().unwrap())));
    let line = agent.connect_failure(&pod, 80);
    is(&line, "/facts/connect_failure", "abandoned");
    is(&line, "/peer/ip", "10.96.0.11");
    is(&line, "/peer/backend/ip", "10.79.0.9");
    is(&line, "/peer/backend/port", 8081);
}

/// Who has the address after the translation, as the (home-made) API server tells it.
fn pod_of_the_cluster() {
    let server = ApiServer::start();
    let mut backend = api_server::pod("shop", "cart-0", "uid-of-cart-0", "node-8", "0");
    backend["status"]["podIP"] = serde_json::json!("10.79.0.9");
    backend["status"]["podIPs"] = serde_json::json!([{"ip": "10.79.0.9"}]);
    backend["status"]["startTime"] = serde_json::json!("2020-01-01T00:00:00Z");
    server.put_pod(backend);
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = server.kubeconfig(folder.path());
    let (pod, node) = network();
    let flags = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--node", "node-7", "--cluster-watch"];
    let mut agent = asking(&node, &flags);
    let _listener = node.run(|| TcpListener::bind("10.79.0.9:8081").expect("a listener"));
    // The list of the cluster's pods may come after the agent's first lines.
    let deadline = Instant::now() + patience();
    let line = loop {
        drop(pod.run(|| connect_nonblocking("10.96.0.11:80".parse().unwrap())));
        let line = agent.connect_failure(&pod, 80);
        if line["peer"]["backend"]["pod"].is_object() || Instant::now() > deadline {
            break line;
        }
    };
    is(&line, "/peer/ip", "10.96.0.11");
    absent(&line, "/peer/pod");
    is(&line, "/peer/backend/ip", "10.79.0.9");
    is(&line, "/peer/backend/pod/namespace", "shop");
    is(&line, "/peer/backend/pod/name", "cart-0");
    is(&line, "/peer/backend/pod/node", "node-8");
}

/// Neither for a connection to the endpoint itself, nor where another namespace is asked, nor where none is.
fn untranslated() {
    let (pod, node, mut agent) = cluster();
    let port = reset(&pod, &node, "10.79.0.9:8080", "10.79.0.9:8080");
    absent(&agent.reset(&pod, "received", port), "/peer/backend");
    for flags in [&["--conntrack-netns", "/proc/self/ns/net"][..], &["--no-conntrack"]] {
        let mut agent = Agent::start(flags);
        let port = reset(&pod, &node, "10.96.0.10:80", "10.79.0.9:8080");
        absent(&agent.reset(&pod, "received", port), "/peer/backend");
    }
}
