//! Whose connection: processes, threads, cgroups, containers, pods.

use std::{
    ffi::OsStr,
    io::Write,
    net::TcpStream,
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Case,
    actor::Actor,
    agent::Agent,
    cgroups::{Cgroup, container_id},
    expect::{absent, is},
    netns::Netns,
};

pub const CASES: &[Case] = &[
    ("the_process_is_named_and_not_the_thread_that_read", process_and_not_thread),
    ("a_killed_process_names_its_signal", killed),
    ("an_exiting_process_names_its_status", exited),
    ("the_reader_of_an_accepted_connection_is_known_when_the_peer_resets_it", reader),
    ("the_acceptor_is_known_before_it_reads_where_the_kernel_shows_it", acceptor),
    ("both_ends_of_a_connection_name_each_other", both_ends),
    ("a_process_that_moved_is_found_where_it_is", moved),
];

/// What the agent makes of what it was told, whichever hook told it.
pub const CASES_OF_NAMES: &[Case] = &[
    ("a_pod_is_named_by_its_cgroup_and_its_log_folder", pod),
    ("a_container_of_docker_is_named_without_a_pod", docker),
    ("names_of_any_bytes_stay_within_their_strings", hostile),
    ("cgroup_filter_takes_in_the_subtree_only", cgroup_filter),
];

const UID: &str = "5f0c2d1e-93b7-4a58-8e21-7c6d4b3a2f10";

/// Starts a server in `netns`, in `cgroup` if one is given, and connects to it.
pub fn served(netns: &Netns, name: &'static str, cgroup: Option<&Cgroup>) -> (Actor, TcpStream, u16) {
    let cgroup = cgroup.map(|cgroup| cgroup.path().to_owned());
    netns.run(move || {
        let arguments: Vec<&str> = cgroup.iter().map(String::as_str).collect();
        let mut actor = Actor::start(name, "server", &arguments);
        let port: u16 = actor.tell("port").parse().unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(actor.tell("accept"), "accepted");
        client.write_all(b"hello").unwrap();
        (actor, client, port)
    })
}

fn pod() {
    let id = container_id(1);
    let uid = format!("{:08x}{}", std::process::id(), &UID[8..]);
    let cgroup = Cgroup::make(&format!(
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{id}.scope",
        uid.replace('-', "_")
    ));
    let logs = tempfile::tempdir().unwrap();
    let folder = logs.path().join(format!("shop_checkout-7d9f6b5c4-x2x8z_{uid}/server"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("0.log"), "").unwrap();

    let netns = Netns::new();
    let mut agent = Agent::start(&["--pod-logs", logs.path().to_str().unwrap(), "--node", "node-7"]);
    let (mut actor, client, port) = served(&netns, "checkout", Some(&cgroup));
    actor.tell("read 3");
    actor.tell("close");

    let sent = agent.reset(&netns, "sent", port);
    is(&sent, "/node", "node-7");
    is(&sent, "/tcp/unread_bytes", 2);
    is(&sent, "/local/process/pid", actor.pid());
    is(&sent, "/local/process/comm", "checkout");
    is(&sent, "/local/container/id", id.as_str());
    is(&sent, "/local/container/runtime", "containerd");
    is(&sent, "/local/container/name", "server");
    is(&sent, "/local/pod/namespace", "shop");
    is(&sent, "/local/pod/name", "checkout-7d9f6b5c4-x2x8z");
    is(&sent, "/local/pod/uid", uid.as_str());
    let path = sent["local"]["cgroup"]["path"].as_str().unwrap_or_default();
    assert!(path.starts_with("/kubepods.slice/") && path.ends_with(".scope"), "{sent:#}");
    drop(client);

    // The pod's name is also what a filter asks for; the cgroup is found although it was made after the agent started.
    let mut narrow = Agent::start(&["--pod-logs", logs.path().to_str().unwrap(), "--pod", "checkout-*"]);
    let (mut inside, _client, inside_port) = served(&netns, "checkout", Some(&cgroup));
    let (mut outside, _other, _) = served(&netns, "stranger", None);
    outside.tell("close");
    inside.tell("close");
    let first = narrow.wait("any reset", |line| line["type"] == "reset");
    is(&first, "/local/port", inside_port);
    is(&first, "/local/pod/name", "checkout-7d9f6b5c4-x2x8z");
}

fn docker() {
    let id = container_id(2);
    let cgroup = Cgroup::make(&format!("system.slice/docker-{id}.scope"));
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (mut actor, _client, port) = served(&netns, "webserver", Some(&cgroup));
    actor.tell("close");
    let sent = agent.reset(&netns, "sent", port);
    is(&sent, "/local/container/id", id.as_str());
    is(&sent, "/local/container/runtime", "docker");
    absent(&sent, "/local/pod");
}

/// A process names itself, and in its own container it may name cgroups as it likes, except for a newline
/// (`cgroup_mkdir`). Every line read from the agent is JSON and matches the schema, or the test fails.
fn hostile() {
    const COMM: &[u8] = b"\xff\x1b[2J\n\"},{\x9b";
    const INNER: &[u8] = b"\xfe\x1b]0;x\x07\"\r\xe2\x80\xae";
    let id = container_id(4);
    let cgroup = Cgroup::make(&format!("system.slice/docker-{id}.scope"));
    let inner = Path::new(cgroup.path()).join(OsStr::from_bytes(INNER));
    std::fs::create_dir(&inner).unwrap();
    let netns = Netns::new();
    let mut agent = Agent::start(&[]);
    let (procs, name) = (inner.join("cgroup.procs"), OsStr::from_bytes(COMM));
    let (mut actor, _client, port) = netns.run(move || {
        let mut actor = Actor::start(name, "server", &[]);
        std::fs::write(procs, actor.pid().to_string()).unwrap();
        let port: u16 = actor.tell("port").parse().unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(actor.tell("accept"), "accepted");
        client.write_all(b"hello").unwrap();
        (actor, client, port)
    });
    actor.tell("read 3");
    actor.tell("close");
    let sent = agent.reset(&netns, "sent", port);
    is(&sent, "/local/process/comm", String::from_utf8_lossy(COMM));
    is(&sent, "/local/container/id", id.as_str());
    let path = sent["local"]["cgroup"]["path"].as_str().unwrap_or_default();
    assert!(path.ends_with(&*String::from_utf8_lossy(INNER)), "{sent:#}");
    drop(actor);
    let deadline = Instant::now() + Duration::from_secs(2);
    while std::fs::remove_dir(&inner).is_err() && Instant::now() < deadline {
        sleep(Duration::from_millis(10));
    }
}

/// `wrk:worker_0` is nobody; `envoy` is somebody.
fn process_and_not_thread() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (mut actor, client, port) = served(&netns, "envoy", None);
    assert_eq!(actor.tell("read-in-thread 5"), "read");
    crate::sockets::linger_zero(&client);
    let peer = client.local_addr().unwrap().port();
    drop(client);
    let received = agent.reset(&netns, "received", port);
    is(&received, "/local/process/comm", "envoy");
    is(&received, "/local/process/pid", actor.pid());
    is(&received, "/facts/owner_from", "read");
    let exe = received["local"]["process"]["exe"].as_str().unwrap_or_default();
    assert!(exe.ends_with("/envoy"), "{received:#}");
    // Loopback: the receiving hook runs on the sender's back. `current` would have been this process.
    let sent = agent.reset(&netns, "sent", peer);
    is(&sent, "/local/process/pid", std::process::id());
}

fn killed() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (mut actor, _client, port) = served(&netns, "victim", None);
    let pid = actor.pid();
    sleep(Duration::from_millis(50));
    actor.kill();
    let sent = agent.reset(&netns, "sent", port);
    is(&sent, "/cause/code", "process_exit");
    is(&sent, "/cause/confidence", "certain");
    is(&sent, "/facts/actor/exiting", true);
    is(&sent, "/facts/actor/signal", 9);
    is(&sent, "/facts/actor/comm", "victim");
    is(&sent, "/local/process/pid", pid);
    is(&sent, "/tcp/unread_bytes", 5);
}

fn exited() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (mut actor, _client, port) = served(&netns, "quitter", None);
    sleep(Duration::from_millis(50));
    actor.say("exit 3");
    let sent = agent.reset(&netns, "sent", port);
    is(&sent, "/cause/code", "process_exit");
    is(&sent, "/cause/confidence", "certain");
    is(&sent, "/facts/actor/exiting", true);
    is(&sent, "/facts/actor/exit_status", 3);
    absent(&sent, "/facts/actor/signal");
}

/// Nothing in the socket of an accepted connection names who uses it; a reset that arrives comes in softirq.
fn reader() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (mut actor, client, port) = served(&netns, "listener", None);
    actor.tell("read 5");
    // A process of its own resets the connection: were `current` taken, it would be named.
    crate::sockets::linger_zero(&client);
    let status = netns.run(move || {
        let mut holder = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(client)))
            .spawn()
            .expect("sleep (coreutils) runs");
        holder.kill().unwrap();
        holder.wait().unwrap()
    });
    assert_eq!(status.signal(), Some(9));
    let received = agent.reset(&netns, "received", port);
    is(&received, "/local/process/pid", actor.pid());
    is(&received, "/local/process/comm", "listener");
}

/// A connection that is reset before anybody read from it: only a probe on the accept tells whose it was.
fn acceptor() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (actor, client, port) = served(&netns, "acceptor", None);
    crate::sockets::linger_zero(&client);
    drop(client);
    let received = agent.reset(&netns, "received", port);
    if agent.sees_acceptors() {
        is(&received, "/local/process/pid", actor.pid());
        is(&received, "/local/process/comm", "acceptor");
        is(&received, "/facts/owner_from", "accept");
    } else {
        absent(&received, "/local/process");
        absent(&received, "/facts/owner_from");
    }
}

/// Two processes, two containers, one connection: each line has the whole story, whichever end was seen first.
fn both_ends() {
    let id = container_id(4);
    let cgroup = Cgroup::make(&format!("system.slice/docker-{id}.scope"));
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (mut actor, client, port) = served(&netns, "webserver", Some(&cgroup));
    let peer = client.local_addr().unwrap().port();
    actor.tell("close");
    let sent = agent.reset(&netns, "sent", port);
    let received = agent.reset(&netns, "received", peer);
    assert_eq!(sent["connection"]["id"], received["connection"]["id"], "{sent:#}");
    for (line, other, own) in [(&sent, &received, "sent"), (&received, &sent, "received")] {
        let twin = &line["connection"]["other_end"];
        assert_ne!(twin["direction"], own, "{line:#}");
        assert_eq!(twin["cause"], other["cause"]["code"], "{line:#}");
        assert_eq!((&twin["role"], &twin["state"]), (&other["role"], &other["tcp"]["state"]), "{line:#}");
        assert_eq!((&twin["ip"], &twin["port"]), (&line["peer"]["ip"], &line["peer"]["port"]), "{line:#}");
        for key in ["process", "container", "cgroup", "netns"] {
            assert_eq!(line["peer"][key], other["local"][key], "{key}: {line:#}");
        }
        is(line, "/peer/scope", "loopback");
    }
    is(&received, "/peer/process/pid", actor.pid());
    is(&received, "/peer/container/id", id.as_str());
    is(&sent, "/peer/process/pid", std::process::id());
}

/// Its sockets stay where they were made. Of one that nobody has read from only that is known, and the line says so.
fn moved() {
    let top = format!("rstscope-test-moved-{}", std::process::id());
    let (old, new) = (Cgroup::make(&format!("{top}/old")), Cgroup::make(&format!("{top}/new")));
    let netns = Netns::new();
    let mut agent = Agent::shared();
    for read in [true, false] {
        let (old, new) = (old.path().to_owned(), new.path().to_owned());
        let (_actor, client, port) = netns.run(move || {
            let mut actor = Actor::start("mover", "server", &[&old]);
            let port: u16 = actor.tell("port").parse().unwrap();
            assert_eq!(actor.tell(&format!("enter {new}")), "entered");
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            assert_eq!(actor.tell("accept"), "accepted");
            client.write_all(b"hello").unwrap();
            if read {
                assert_eq!(actor.tell("read 5"), "read");
            }
            (actor, client, port)
        });
        crate::sockets::linger_zero(&client);
        drop(client);
        let received = agent.reset(&netns, "received", port);
        let path = received["local"]["cgroup"]["path"].as_str().unwrap_or_default();
        if read {
            assert!(path.ends_with("/new"), "{received:#}");
            absent(&received, "/local/cgroup/creator");
        } else if path.ends_with("/old") {
            is(&received, "/local/cgroup/creator", true);
        } else {
            // Where the memory controller is on, the kernel itself keeps who accepted it.
            assert!(path.ends_with("/new"), "{received:#}");
        }
    }
}

fn cgroup_filter() {
    let id = container_id(3);
    let top = format!("rstscope-test-{}", std::process::id());
    let deep = Cgroup::make(&format!("{top}/deeper/docker-{id}.scope"));
    let beside = Cgroup::make(&format!("{top}-beside"));
    let netns = Netns::new();
    let mut agent = Agent::start(&["--cgroup", &format!("/{top}")]);
    let (mut outside, _first, _) = served(&netns, "outside", Some(&beside));
    outside.tell("close");
    let (mut inside, _second, port) = served(&netns, "inside", Some(&deep));
    inside.tell("close");
    agent.reset(&netns, "sent", port);
    let (rest, summary) = agent.stop();
    let others: Vec<&Value> = rest.iter().filter(|line| line["type"] == "reset").collect();
    assert!(others.is_empty(), "{others:#?}");
    assert!(summary.contains("left out by filters"), "{summary}");
}
