//! Connections older than the agent: every pooled connection of a node is, when the agent is installed. Both ways to their
//! processes have to say the same.

use std::{io::Write, net::TcpStream};

use serde_json::Value;

use super::owner::served;
use crate::{
    Case,
    actor::{Actor, hand_over},
    agent::Agent,
    cgroups::{Cgroup, container_id},
    expect::{absent, is},
    netns::Netns,
    sockets::{Family, Pair, linger_zero},
};

/// No hook is part of it: the agent asks the kernel once, at its start.
pub const CASES: &[Case] = &[
    ("older_connections_get_their_processes_by_the_kernels_iterator", || both_ends("iterator")),
    ("older_connections_get_their_processes_by_proc_and_sock_diag", || both_ends("proc")),
    ("an_older_connection_that_several_processes_have_open_is_nobodys", several_holders),
    ("a_process_that_ends_with_its_older_connection_is_named", ends_with_it),
    ("an_agent_in_a_pid_namespace_of_its_own_names_the_hosts_processes", own_pid_namespace),
    ("without_rights_older_connections_have_no_process_and_the_agent_says_why", without_rights),
];

const WAYS: [&str; 2] = ["iterator", "proc"];

/// An agent that takes this way and no other.
fn agent_by(way: &str) -> Agent {
    let agent = Agent::start(&["--older-connections", way]);
    let older = &agent.start_line()["agent"]["older_connections"];
    assert_eq!(older["way"], way, "{older}");
    agent
}

fn reset_by(stream: TcpStream) {
    linger_zero(&stream);
    drop(stream);
}

/// What every line about an older connection says.
#[track_caller]
fn is_older(line: &Value) {
    is(line, "/facts/owner_from", "open");
    is(line, "/role", "unknown");
    is(line, "/age_is_minimum", true);
}

/// A server, a worker of a pre-forked one, and clients of both families, in two network namespaces that are not the
/// agent's. Naive: sock_diag in the agent's own namespace only; the listener's holders instead of the connection's.
fn both_ends(way: &str) {
    let id = container_id(7);
    let cgroup = Cgroup::make(&format!("system.slice/docker-{id}.scope"));
    let (netns, other) = (Netns::new(), Netns::new());
    let (holder, client, port) = served(&netns, "holder", Some(&cgroup));
    let (_master, worker_pid, worker_client, worker_port) = prefork(&other);
    // Some process has to be in a namespace for it to be found; this one never is for longer than a moment.
    let pairs = [Family::V4, Family::V6, Family::Mapped].map(|family| other.run(move || Pair::connect(family)));

    let mut agent = agent_by(way);
    reset_by(client);
    let received = agent.reset(&netns, "received", port);
    is_older(&received);
    is(&received, "/local/process/pid", holder.pid());
    is(&received, "/local/process/comm", "holder");
    is(&received, "/local/container/id", id.as_str());
    let path = received["local"]["cgroup"]["path"].as_str().unwrap_or_default();
    assert!(path.ends_with(&format!("docker-{id}.scope")), "{received:#}");
    absent(&received, "/local/cgroup/creator");
    let exe = received["local"]["process"]["exe"].as_str().unwrap_or_default();
    assert!(exe.ends_with("/holder"), "{received:#}");

    reset_by(worker_client);
    let received = agent.reset(&other, "received", worker_port);
    is_older(&received);
    is(&received, "/local/process/pid", worker_pid);
    is(&received, "/local/process/comm", "older-worker");

    for pair in pairs {
        let client_port = pair.client_port();
        let Pair { client, server, listener } = pair;
        reset_by(server);
        let received = agent.reset(&other, "received", client_port);
        is_older(&received);
        is(&received, "/local/process/pid", std::process::id());
        drop((client, listener));
    }

    // Younger than the agent, and with no process until somebody reads: nothing of an older one may stick to it.
    let (_young, client, port) = served(&netns, "young", None);
    reset_by(client);
    let received = agent.reset(&netns, "received", port);
    is(&received, "/age_is_minimum", false);
    assert_ne!(received["facts"]["owner_from"], "open", "{received:#}");
}

/// A master, two workers that share its listener, and a connection that the second of them has accepted and read from.
fn prefork(netns: &Netns) -> (Actor, u32, TcpStream, u16) {
    netns.run(|| {
        let mut master = Actor::start("older-master", "server", &[]);
        master.tell("start idle-worker");
        let pid: u32 = master.tell("start older-worker").parse().unwrap();
        let port: u16 = master.tell("port").parse().unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.write_all(b"hello").unwrap();
        assert_eq!(master.tell("worker 1 accept"), "accepted");
        assert_eq!(master.tell("worker 1 read 5"), "read");
        (master, pid, client, port)
    })
}

/// Any of them may be the one that uses it. Naive: the first one found, here whoever only passed it on.
fn several_holders() {
    for way in WAYS {
        let place = tempfile::tempdir().unwrap();
        let netns = Netns::new();
        let (mut acceptor, client, port) = served(&netns, "acceptor", None);
        let mut user = netns.run(|| Actor::start("user", "client", &[]));
        hand_over(&mut acceptor, &mut user, place.path());
        let mut agent = agent_by(way);
        assert!(agent.start_line()["agent"]["older_connections"]["shared"].as_u64() >= Some(1));
        reset_by(client);
        let received = agent.reset(&netns, "received", port);
        absent(&received, "/local/process");
        absent(&received, "/facts/owner_from");
        is(&received, "/age_is_minimum", true);
    }
}

/// The agent stands still meanwhile. Naive: what `/proc` says when the line is made.
fn ends_with_it() {
    for way in WAYS {
        let netns = Netns::new();
        let (mut holder, client, port) = served(&netns, "holder", None);
        let mut agent = agent_by(way);
        agent.stopped(|| {
            reset_by(client);
            holder.kill();
        });
        let received = agent.reset(&netns, "received", port);
        is_older(&received);
        is(&received, "/local/process/pid", holder.pid());
        is(&received, "/local/process/comm", "holder");
    }
}

/// As in a container without the host's pids that has the host's `/proc` mounted. Naive: the iterator, which the kernel
/// lets in and which then walks over the processes of that pid namespace only.
fn own_pid_namespace() {
    let netns = Netns::new();
    let (holder, client, port) = served(&netns, "holder", None);
    let mut agent = Agent::start_in(&[], || {
        // SAFETY: unshare has no memory arguments; it concerns the children of this thread only.
        let result = unsafe { libc::unshare(libc::CLONE_NEWPID) };
        assert_eq!(result, 0, "a pid namespace: {}", std::io::Error::last_os_error());
    });
    let older = &agent.start_line()["agent"]["older_connections"];
    assert_eq!(older["way"], "proc", "{older}");
    assert!(older["refused"].as_str().is_some_and(|refused| refused.contains("pid namespace")), "{older}");
    reset_by(client);
    let received = agent.reset(&netns, "received", port);
    is_older(&received);
    is(&received, "/local/process/pid", holder.pid());
    is(&received, "/local/process/comm", "holder");
}

/// CAP_BPF, CAP_PERFMON and what else root has, but not the rights to look into processes and into namespaces. What can be
/// seen without is seen: a connection of the agent's own namespace, if it is the network that is closed.
fn without_rights() {
    /// `include/uapi/linux/capability.h`.
    const CAP_SYS_PTRACE: libc::c_ulong = 19;
    const CAP_SYS_ADMIN: libc::c_ulong = 21;
    for (dropped, said, sees_own) in [
        (CAP_SYS_PTRACE, "processes do not show their open files (that takes CAP_SYS_PTRACE)", false),
        (CAP_SYS_ADMIN, "cannot be entered (that takes CAP_SYS_ADMIN)", true),
    ] {
        let netns = Netns::new();
        let (_holder, client, port) = served(&netns, "holder", None);
        let own = Pair::connect(Family::V4);
        let mut agent = Agent::start_in(&["--older-connections", "proc"], move || {
            // SAFETY: PR_CAPBSET_DROP takes a number; it concerns this thread and what it starts.
            let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, dropped, 0, 0, 0) };
            assert_eq!(result, 0, "less rights: {}", std::io::Error::last_os_error());
        });
        let unseen = agent.start_line()["agent"]["unseen"].to_string();
        assert!(unseen.contains(said), "{unseen}");
        reset_by(client);
        let received = agent.reset(&netns, "received", port);
        absent(&received, "/local/process");
        is(&received, "/age_is_minimum", true);

        let own_port = own.client_port();
        linger_zero(&own.server);
        let (client, _listener) = own.close_server();
        let received = agent.wait("the reset of the agent's own namespace", |line| {
            line["reset"]["direction"] == "received" && line["local"]["port"] == own_port
        });
        if sees_own {
            is(&received, "/local/process/pid", std::process::id());
        } else {
            absent(&received, "/local/process");
        }
        drop(client);
    }
}
