//! Whose connection, where it is not the process that made the socket: each case names the answer that would be wrong.

use std::{io::Write, net::TcpStream, thread::sleep, time::Duration};

use serde_json::Value;

use crate::{
    Case,
    actor::{Actor, hand_over},
    agent::{Agent, at_leisure},
    cgroups::{Cgroup, container_id},
    expect::{absent, is},
    netns::Netns,
    sockets::linger_zero,
};

pub const CASES: &[Case] = &[
    ("a_preforked_worker_is_named_and_not_the_master_that_listens", preforked),
    ("a_socket_activated_service_is_named_and_not_the_activator", activated),
    ("whoever_got_a_descriptor_and_reads_is_named_and_not_whoever_read_before", passed_by_a_server),
    ("whoever_got_a_descriptor_and_reads_is_named_and_not_whoever_connected", passed_by_a_client),
    ("a_process_that_has_ended_is_not_named_for_a_socket_that_another_one_has", left_behind),
    ("a_process_that_moves_with_its_connection_is_found_where_it_is", moved),
    ("a_process_goes_by_what_it_executes_at_the_reset", executed),
];

/// What the agent remembers, whichever hook told it.
pub const CASES_OF_MEMORY: &[Case] = &[
    ("a_process_that_is_gone_before_the_line_is_named", gone),
    ("a_removed_cgroup_is_still_named_by_a_late_reset", removed),
];

/// Two cgroups for a test, named after what they are for.
fn cgroups(test: &str, names: [&str; 2]) -> [Cgroup; 2] {
    let top = format!("rstscope-test-{test}-{}", std::process::id());
    names.map(|name| Cgroup::make(&format!("{top}/{name}")))
}

/// Has the client's end reset, and gives the line about the other end.
fn reset_by_client(agent: &mut Agent, netns: &Netns, client: TcpStream, port: u16) -> Value {
    linger_zero(&client);
    drop(client);
    agent.reset(netns, "received", port)
}

/// Connects to a worker of `master`'s, which accepts and, if it is to be seen to use the connection, reads.
fn served_by(netns: &Netns, mut master: Actor, worker: usize, reads: bool) -> (Actor, TcpStream) {
    netns.run(move || {
        let port: u16 = master.tell("port").parse().unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(master.tell(&format!("worker {worker} accept")), "accepted");
        client.write_all(b"hello").unwrap();
        if reads {
            assert_eq!(master.tell(&format!("worker {worker} read 5")), "read");
        } else {
            assert_eq!(master.tell(&format!("worker {worker} write 5")), "written");
        }
        (master, client)
    })
}

/// A listener made by one process in one cgroup, used by another one in another.
fn listens_for_others(test: &str, master_name: &'static str, worker_name: &'static str, workers: usize) {
    let [its, theirs] = cgroups(test, ["master", "workers"]);
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (its_path, their_path) = (its.path().to_owned(), theirs.path().to_owned());
    let (mut master, pids, port) = netns.run(move || {
        let mut master = Actor::start(master_name, "server", &[&its_path]);
        let start = format!("start {worker_name} {their_path}");
        let pids: Vec<u32> = (0..workers).map(|_| master.tell(&start).parse().unwrap()).collect();
        let port: u16 = master.tell("port").parse().unwrap();
        (master, pids, port)
    });
    let last = workers - 1;
    for reads in [true, false] {
        let client;
        (master, client) = served_by(&netns, master, last, reads);
        let received = reset_by_client(&mut agent, &netns, client, port);
        let path = received["local"]["cgroup"]["path"].as_str().unwrap_or_default();
        if reads || agent.sees_acceptors() {
            is(&received, "/local/process/pid", pids[last]);
            is(&received, "/local/process/comm", worker_name);
            is(&received, "/facts/owner_from", if reads { "read" } else { "accept" });
            assert!(path.ends_with("/workers"), "{received:#}");
            absent(&received, "/local/cgroup/creator");
        } else {
            // Only its socket tells of it, and the kernel keeps there who listened, or with the memory controller who
            // accepted. The line must say which.
            absent(&received, "/local/process");
            absent(&received, "/facts/owner_from");
            let is_creator = received["local"]["cgroup"]["creator"] == true;
            assert!(path.ends_with(if is_creator { "/master" } else { "/workers" }), "{received:#}");
        }
    }
    drop(master);
}

/// Naive: the listener's maker, whose cgroup the socket has (`sk_cgrp_data` is copied from the listener), or the first
/// process that has the listener open.
fn preforked() {
    listens_for_others("prefork", "master", "prefork-worker", 2);
}

/// Naive: the same, which here would be systemd for every service of the node.
fn activated() {
    listens_for_others("activated", "activator", "service", 1);
}

/// Naive: the first process that read from the socket; or whoever accepted it.
fn passed_by_a_server() {
    let place = tempfile::tempdir().unwrap();
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let folder = place.path().to_owned();
    let (dispatcher, server, client, port) = netns.run(move || {
        let mut dispatcher = Actor::start("dispatcher", "server", &[]);
        let mut server = Actor::start("app-server", "client", &[]);
        let port: u16 = dispatcher.tell("port").parse().unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(dispatcher.tell("accept"), "accepted");
        client.write_all(b"hello, world").unwrap();
        // It looks where the request is to go, and keeps its own descriptor open.
        assert_eq!(dispatcher.tell("read 5"), "read");
        hand_over(&mut dispatcher, &mut server, &folder);
        assert_eq!(server.tell("read 7"), "read");
        (dispatcher, server, client, port)
    });
    let received = reset_by_client(&mut agent, &netns, client, port);
    is(&received, "/local/process/pid", server.pid());
    is(&received, "/local/process/comm", "app-server");
    is(&received, "/facts/owner_from", "read");
    drop(dispatcher);
}

/// ssh's ProxyUseFdpass, PgBouncer's takeover. Naive: whoever called connect().
fn passed_by_a_client() {
    let place = tempfile::tempdir().unwrap();
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let folder = place.path().to_owned();
    let (connector, user, server, port) = netns.run(move || {
        let listener = crate::sockets::Family::V4.listen();
        let mut connector = Actor::start("connector", "client", &[]);
        let mut user = Actor::start("user", "client", &[]);
        assert_eq!(connector.tell(&format!("connect {}", listener.local_addr().unwrap())), "connected");
        let (mut server, peer) = listener.accept().unwrap();
        hand_over(&mut connector, &mut user, &folder);
        server.write_all(b"hello").unwrap();
        assert_eq!(user.tell("read 5"), "read");
        (connector, user, server, peer.port())
    });
    linger_zero(&server);
    drop(server);
    let received = agent.reset(&netns, "received", port);
    is(&received, "/local/process/pid", user.pid());
    is(&received, "/local/process/comm", "user");
    is(&received, "/role", "client");
    drop(connector);
}

/// Whoever has it now only writes, which no hook sees. Naive: the process on record, which is gone; its pid may be
/// anybody's by now.
fn left_behind() {
    let place = tempfile::tempdir().unwrap();
    let [its, heirs] = cgroups("left", ["connector", "heir"]);
    let netns = Netns::new();
    let mut agent = Agent::shared();
    for closes in [false, true] {
        let folder = place.path().to_owned();
        let (its_path, heirs_path) = (its.path().to_owned(), heirs.path().to_owned());
        let (mut connector, mut heir, server, port) = netns.run(move || {
            let listener = crate::sockets::Family::V4.listen();
            let mut connector = Actor::start("connector", "client", &[&its_path]);
            let mut heir = Actor::start("heir", "client", &[&heirs_path]);
            assert_eq!(connector.tell(&format!("connect {}", listener.local_addr().unwrap())), "connected");
            let (server, peer) = listener.accept().unwrap();
            hand_over(&mut connector, &mut heir, &folder);
            (connector, heir, server, peer.port())
        });
        connector.kill();
        assert_eq!(heir.tell("write 5"), "written");
        if closes {
            assert_eq!((heir.tell("linger0").as_str(), heir.tell("close").as_str()), ("set", "closed"));
            let sent = agent.reset(&netns, "sent", port);
            is(&sent, "/local/process/pid", heir.pid());
            is(&sent, "/local/process/comm", "heir");
            is(&sent, "/facts/owner_from", "close");
            assert!(sent["local"]["cgroup"]["path"].as_str().unwrap_or_default().ends_with("/heir"), "{sent:#}");
        } else {
            linger_zero(&server);
            drop(server);
            let received = agent.reset(&netns, "received", port);
            absent(&received, "/local/process");
            absent(&received, "/facts/owner_from");
            is(&received, "/local/cgroup/creator", true);
        }
    }
}

/// Naive: the cgroup at the connect or the read.
fn moved() {
    let [old, new] = cgroups("moves", ["old", "new"]);
    let netns = Netns::new();
    let mut agent = Agent::shared();
    for reads in [true, false] {
        let (old, new) = (old.path().to_owned(), new.path().to_owned());
        let (_server, client, port) = netns.run(move || {
            let listener = crate::sockets::Family::V4.listen();
            let mut client = Actor::start("mover", "client", &[&old]);
            assert_eq!(client.tell(&format!("connect {}", listener.local_addr().unwrap())), "connected");
            let (mut server, peer) = listener.accept().unwrap();
            if reads {
                server.write_all(b"hello").unwrap();
                assert_eq!(client.tell("read 5"), "read");
            }
            assert_eq!(client.tell(&format!("enter {new}")), "entered");
            linger_zero(&server);
            drop(server);
            (listener, client, peer.port())
        });
        let received = agent.reset(&netns, "received", port);
        is(&received, "/local/process/pid", client.pid());
        let path = received["local"]["cgroup"]["path"].as_str().unwrap_or_default();
        assert!(path.ends_with("/new"), "{received:#}");
        absent(&received, "/local/cgroup/creator");
    }
}

/// A shell that connects and then executes what is to use the connection. Naive: the name at the connect, which belongs
/// to another program; and with it the executable of the present one.
fn executed() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (client, server, port) = netns.run(|| {
        let listener = crate::sockets::Family::V4.listen();
        let mut client = Actor::start("launcher", "client", &[]);
        assert_eq!(client.tell(&format!("connect {}", listener.local_addr().unwrap())), "connected");
        let (server, peer) = listener.accept().unwrap();
        assert_eq!(client.tell("become program"), "ready");
        (client, server, peer.port())
    });
    linger_zero(&server);
    drop(server);
    let received = agent.reset(&netns, "received", port);
    is(&received, "/local/process/pid", client.pid());
    is(&received, "/local/process/comm", "program");
    is(&received, "/facts/owner_from", "connect");
    let exe = received["local"]["process"]["exe"].as_str().unwrap_or_default();
    assert!(exe.ends_with("/program"), "{received:#}");
}

/// The agent stands still until the processes are dead and their cgroup is removed. Naive: what `/proc` and the cgroup tree
/// say when the line is made, which is nothing.
fn gone() {
    let id = container_id(5);
    let cgroup = Cgroup::make(&format!("system.slice/docker-{id}.scope"));
    let netns = Netns::new();
    // It walks the tree when it starts, and finds this cgroup.
    let mut agent = Agent::start(&[]);
    let path = cgroup.path().to_owned();
    let actors = netns.run(move || {
        ["victim", "suicide"].map(|name| {
            let mut actor = Actor::start(name, "server", &[&path]);
            let port: u16 = actor.tell("port").parse().unwrap();
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            assert_eq!(actor.tell("accept"), "accepted");
            client.write_all(b"hello, world").unwrap();
            assert_eq!(actor.tell("read 5"), "read");
            (actor, client, port)
        })
    });
    let [(mut victim, client, port), (mut suicide, kept, other_port)] = actors;
    agent.stopped(|| {
        // Right after a reset, and as it sends one: there are bytes that it has not read.
        linger_zero(&client);
        drop(client);
        victim.kill();
        suicide.kill();
        drop(cgroup);
    });
    for (direction, port, actor, name) in
        [("received", port, &victim, "victim"), ("sent", other_port, &suicide, "suicide")]
    {
        let line = agent.reset(&netns, direction, port);
        is(&line, "/local/process/pid", actor.pid());
        is(&line, "/local/process/comm", name);
        absent(&line, "/local/process/exe");
        is(&line, "/local/container/id", id.as_str());
    }
    drop(kept);
}

/// Made, used, process dead, removed; and only then the client sends something. Naive: the tree as it is.
fn removed() {
    // Longer than the agent's longest pause between two walks of a small tree.
    let walks = at_leisure(Duration::from_millis(1500));
    let id = container_id(6);
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let cgroup = Cgroup::make(&format!("system.slice/docker-{id}.scope"));
    let path = cgroup.path().to_owned();
    let (mut actor, mut client, port) = netns.run(move || {
        let mut actor = Actor::start("short-lived", "server", &[&path]);
        let port: u16 = actor.tell("port").parse().unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(actor.tell("accept"), "accepted");
        client.write_all(b"hello").unwrap();
        assert_eq!(actor.tell("read 5"), "read");
        (actor, client, port)
    });
    sleep(walks);
    let pid = actor.pid();
    assert_eq!(actor.tell("close"), "closed");
    actor.kill();
    drop(cgroup);
    // Walks that do not find it any more.
    sleep(walks);
    client.write_all(b"late").unwrap();
    if let Some(sent) = agent.reset_without_socket(&netns, port) {
        is(&sent, "/local/process/pid", pid);
        is(&sent, "/local/process/comm", "short-lived");
        is(&sent, "/local/container/id", id.as_str());
        is(&sent, "/local/container/runtime", "docker");
        let path = sent["local"]["cgroup"]["path"].as_str().unwrap_or_default();
        assert!(path.ends_with(&format!("docker-{id}.scope")), "{sent:#}");
    }
    let received = agent.reset(&netns, "received", client.local_addr().unwrap().port());
    is(&received, "/cause/code", "stale_connection_reuse");
}
