//! Names that others know: an API server, here a home-made one, in the agent's own network namespace.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Case,
    actor::Actor,
    agent::{Agent, at_leisure, patience},
    api_server::{ApiServer, Mood, pod},
    cgroups::Cgroup,
    expect::{absent, is, until_hit},
    netns::Netns,
    sockets::connect_nonblocking,
};

pub const CASES: &[Case] = &[
    ("a_pod_that_has_just_started_is_named_as_soon_as_the_api_server_knows_it", just_started),
    ("a_peer_on_another_node_is_named_by_its_address_unless_it_came_later", elsewhere),
    ("an_api_server_that_says_nothing_delays_a_line_no_longer_than_allowed", silent),
];

const NODE: &str = "node-7";

/// A process in the cgroup of a pod's container.
struct Container {
    uid: String,
    id: String,
    cgroup: Cgroup,
}

impl Container {
    fn make(salt: u32) -> Self {
        let own = format!("{:08x}", std::process::id());
        let uid = format!("{own}-93b7-4a58-8e21-7c6d4b3a2f{salt:02x}");
        let id = format!("{own}{salt:02x}{}", "0123456789abcdef".repeat(4).split_at(10).1);
        let cgroup = Cgroup::make(&format!("kubepods/burstable/pod{uid}/{id}"));
        Self { uid, id, cgroup }
    }

    /// Starts a server in the container, and has it reset a connection.
    fn reset(&self, netns: &Netns) -> (Actor, u16) {
        let cgroup = self.cgroup.path().to_owned();
        netns.run(move || {
            let mut actor = Actor::start("checkout", "server", &[&cgroup]);
            let port: u16 = actor.tell("port").parse().unwrap();
            let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            assert_eq!(actor.tell("accept"), "accepted");
            std::io::Write::write_all(&mut client, b"hello").unwrap();
            actor.tell("read 3");
            actor.tell("close");
            (actor, port)
        })
    }
}

fn watching(server: &ApiServer, wait: &str) -> (Agent, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = server.kubeconfig(folder.path());
    let kubeconfig = kubeconfig.to_str().unwrap();
    let logs = folder.path().to_str().unwrap();
    let flags = ["--kubeconfig", kubeconfig, "--node", NODE, "--name-wait", wait, "--pod-labels", "app"];
    (Agent::start(&[&flags[..], &["--pod-logs", logs, "--pod-sources", "api-server,pod-logs"]].concat()), folder)
}

fn source_state(line: &Value, source: &str) -> Value {
    let sources = line["agent"]["pod_sources"].as_array().into_iter().flatten();
    sources.into_iter().find(|found| found["source"] == source).map_or(Value::Null, |found| found["state"].clone())
}

fn just_started() {
    let server = ApiServer::start();
    let netns = Netns::new();
    let (mut agent, _folder) = watching(&server, "10s");
    let container = Container::make(1);
    let (_actor, port) = container.reset(&netns);
    thread::sleep(Duration::from_millis(300));
    let mut known = pod("shop", "checkout-7d9f6b5c4-x2x8z", &container.uid, NODE, &container.id);
    known["metadata"]["labels"] = serde_json::json!({"app": "checkout", "pod-template-hash": "7d9f6b5c4"});
    known["metadata"]["ownerReferences"] = serde_json::json!([
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "checkout-7d9f6b5c4", "uid": "r", "controller": true}
    ]);
    server.put_pod(known);

    let sent = agent.reset(&netns, "sent", port);
    is(&sent, "/local/pod/namespace", "shop");
    is(&sent, "/local/pod/name", "checkout-7d9f6b5c4-x2x8z");
    is(&sent, "/local/pod/labels/app", "checkout");
    absent(&sent, "/local/pod/labels/pod-template-hash");
    is(&sent, "/local/workload/kind", "Deployment");
    is(&sent, "/local/workload/name", "checkout");
    is(&sent, "/local/container/name", "app");
    is(&sent, "/local/container/image", "registry.test/app:1.2");
    is(&sent, "/local/attribution/pod", "api_server");
    is(&sent, "/local/attribution/container_name", "api_server");

    // The server has nothing more to say, and what it has said stays known.
    server.set_mood(Mood::Status(403));
    agent.wait("that it fails", |line| source_state(line, "api_server") == "fails");
    let (_actor, port) = container.reset(&netns);
    let sent = agent.reset(&netns, "sent", port);
    is(&sent, "/local/pod/name", "checkout-7d9f6b5c4-x2x8z");
}

/// Connects to 10.77.0.9, where nobody answers, are given up.
fn elsewhere() {
    let server = ApiServer::start();
    let remote = |name: &str, start: &str| {
        let mut pod = pod("shop", name, &format!("uid-of-{name}"), "node-8", "0");
        pod["status"]["podIP"] = serde_json::json!("10.77.0.9");
        pod["status"]["podIPs"] = serde_json::json!([{"ip": "10.77.0.9"}]);
        pod["status"]["startTime"] = serde_json::json!(start);
        pod
    };
    server.put_pod(remote("cart-0", "2020-01-01T00:00:00Z"));
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = server.kubeconfig(folder.path());
    let flags = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--node", NODE, "--cluster-watch"];
    let (netns, _far) = Netns::with_black_hole();
    let mut agent = Agent::start(&flags);
    // The list may be late by as much as a slow machine takes; a connect that is given up does not wait for it.
    let give_up = |agent: &mut Agent, port: u16| {
        let socket = netns.run(move || connect_nonblocking(SocketAddr::from(([10, 77, 0, 9], port))));
        thread::sleep(Duration::from_millis(100));
        drop(socket);
        agent.connect_failure(&netns, port)
    };
    let deadline = Instant::now() + patience();
    let mut ports = 5001..;
    let named = loop {
        let failure = give_up(&mut agent, ports.next().unwrap());
        if failure["peer"]["pod"].is_object() || Instant::now() > deadline {
            break failure;
        }
    };
    is(&named, "/peer/pod/namespace", "shop");
    is(&named, "/peer/pod/name", "cart-0");
    is(&named, "/peer/pod/node", "node-8");
    is(&named, "/peer/attribution/container", "address");
    is(&named, "/peer/ip", "10.77.0.9");
    is(&behind_a_proxy(&netns, &mut agent), "/connection/chain/0/peer/pod/name", "cart-0");

    // The address is another's now, but was not when this connect began.
    server.remove_pod("uid-of-cart-0");
    server.put_pod(remote("cart-1", "2999-01-01T00:00:00Z"));
    while give_up(&mut agent, ports.next().unwrap())["peer"]["pod"].is_object() {
        assert!(Instant::now() < deadline, "a pod that came later is named");
    }
}

/// The line of an application whose proxy gives up the same connect.
fn behind_a_proxy(netns: &Netns, agent: &mut Agent) -> Value {
    let mut proxy = netns.run(|| Actor::start("envoy", "relay", &[]));
    let port: u16 = proxy.tell("port").parse().unwrap();
    let mut linked = None;
    until_hit(|| {
        let mut application = netns.run(move || std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
        std::io::Write::write_all(&mut application, b"hello").unwrap();
        proxy.tell("accept down; begin up 10.77.0.9:5000; sleep 100; close up; close down");
        let line = agent.reset(netns, "received", application.local_addr().unwrap().port());
        linked = line.pointer("/connection/chain/0").is_some().then_some(line);
        linked.is_some()
    });
    linked.unwrap()
}

fn silent() {
    let server = ApiServer::start();
    server.set_mood(Mood::Silent);
    let netns = Netns::new();
    let (mut agent, _folder) = watching(&server, "1s");
    let container = Container::make(2);
    let mut waited = Vec::new();
    for _ in 0..2 {
        let (_actor, port) = container.reset(&netns);
        let done = Instant::now();
        let sent = agent.reset(&netns, "sent", port);
        waited.push(done.elapsed());
        is(&sent, "/local/pod/uid", container.uid.as_str());
        absent(&sent, "/local/pod/name");
        absent(&sent, "/local/attribution/pod");
    }
    let [first, second] = waited[..] else { unreachable!("two lines were awaited") };
    assert!(first < at_leisure(Duration::from_secs(2)), "it waited for {first:?}");
    // Whoever did not say it once is not waited for again: the line waits for its other end only.
    assert!(second < at_leisure(Duration::from_millis(700)), "it waited again, for {second:?}");
}
