//! The process of one case, in namespaces of its own: starts agent and container, provokes the reset, and holds the line
//! about it against what it did itself.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process, thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    agents::Place,
    cases::{self, Case},
    engines::{Container, Pod, Task},
    image,
    layout::{self, Layout},
    names::Names,
};
use crate::{
    cli::CasePart,
    incidents::{
        agent::Agent,
        network,
        verdict::{Layer, Verdict},
    },
};

/// What the client says.
pub const REQUEST: &[u8; 6] = b"hello\n";
/// What it says to a server that is to close and end.
const QUIT: &[u8; 6] = b"quit!\n";
/// So long a container lives at least that is to be met by a walk: they are half a second apart, on a small machine.
const SHORT_LIFE: Duration = Duration::from_secs(2);
/// After this time the agent has looked through the cgroups again, on any machine.
const LATE: Duration = Duration::from_secs(6);

const PORT: u16 = 8080;

/// The pod, but for its uid, which is the case's own.
const POD: Pod<'static> = Pod {
    namespace: "shop",
    name: "cart-0",
    uid: "",
    container: "server",
    image: "registry.example/shop/cart:1.2",
    label: ("app.kubernetes.io/name", "cart"),
    annotation: ("example.org/team", "green"),
};

/// Plays a case and prints the verdict.
pub fn play(options: &CasePart) -> Result<()> {
    let case = cases::named(&options.play.name)?;
    let namespace = network::own_namespace()?;
    if namespace == options.play.outside {
        bail!("a case changes the network it runs in: `cargo xtask containers` gives it one of its own");
    }
    let top =
        options.top.as_deref().context("a case runs in a cgroup of its own: `cargo xtask containers` makes it")?;
    let folder = options.folder.as_deref().context("a case has a folder: `cargo xtask containers` makes it")?;
    network::raise_loopback()?;
    layout::enter(top)?;
    case.layout.mount()?;
    layout::hide_state()?;
    let mut verdict = Verdict::default();
    if let Err(error) = name(case, options, top, namespace, folder, &mut verdict) {
        verdict.problem(Layer::Facts, &format!("{error:#}"), None);
    }
    println!("{}", verdict.to_json());
    Ok(())
}

fn name(
    case: &Case,
    options: &CasePart,
    top: &str,
    namespace: u64,
    folder: &Path,
    verdict: &mut Verdict,
) -> Result<()> {
    let uid = format!("{:08x}-93b7-4a58-8e21-7c6d4b3a2f10", process::id());
    let id = format!("{:08x}{}", process::id(), "5ea1".repeat(14));
    let pod = Pod { uid: &uid, ..POD };
    let names = case.names.tell(&pod, folder)?;
    let cgroup = case.cgroup.replace("{uid_}", &uid.replace('-', "_")).replace("{uid}", &uid).replace("{id}", &id);

    let rstscope = case.agent.program(&options.play.rstscope, folder)?;
    let flags: Vec<&str> = names.iter().map(String::as_str).chain(["--node", "node-7"]).collect();
    let mut agent = Agent::start(&rstscope, namespace, &flags)?;
    // After the agent: it has to notice the container.
    let root = image::make(folder)?;
    let task = Task {
        programs: &options.play.programs,
        kubelet: &options.kubelet,
        folder,
        root: &root,
        top,
        cgroup: &cgroup,
        id: &id,
        pod: &pod,
        port: PORT,
    };
    let container = case.engine.start(&task)?;
    case.names.examine(&rstscope, &flags, verdict)?;

    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).context("cannot connect into the container")?;
    let port = client.local_addr().context("a connection has an address")?.port();
    let line = if case.is_late {
        outlive(&mut client, &container.path)?;
        agent.reset("sent", PORT, port)?
    } else {
        client.write_all(REQUEST).context("cannot send")?;
        let answer = client.read(&mut [0]);
        if answer.is_ok() {
            verdict.problem(Layer::Facts, &format!("the server was to reset the connection, not {answer:?}"), None);
        }
        let line = agent.reset("sent", PORT, port)?;
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).context("cannot end the server")?);
        if case.agent.reads_executables() {
            verdict.is(&line, "/local/process/exe", image::PROGRAM);
        } else {
            verdict.absent(&line, "/local/process/exe");
        }
        verdict.is(&line, "/tcp/unread_bytes", REQUEST.len() - 1);
        line
    };

    check(case, &line, &container, &pod, verdict);
    Ok(())
}

/// Holds the line against what was started.
fn check(case: &Case, line: &Value, container: &Container, pod: &Pod<'_>, verdict: &mut Verdict) {
    verdict.is(line, "/local/process/comm", image::PROGRAM.trim_start_matches('/'));
    verdict.is(line, "/local/container/id", container.id.as_str());
    match case.runtime {
        Some(runtime) => verdict.is(line, "/local/container/runtime", runtime),
        None => verdict.absent(line, "/local/container/runtime"),
    }
    if case.cgroup.is_empty() {
        verdict.absent(line, "/local/pod");
    } else {
        verdict.is(line, "/local/container/name", pod.container);
        for (key, value) in [("namespace", pod.namespace), ("name", pod.name), ("uid", pod.uid), ("node", "node-7")] {
            verdict.is(line, &format!("/local/pod/{key}"), value);
        }
        let source = case.names.source();
        verdict.is(line, "/local/attribution/pod", source);
        verdict.is(line, "/local/attribution/container_name", source);
    }
    match case.names {
        Names::LogFolders | Names::LogFoldersOnly => verdict.absent(line, "/local/container/image"),
        Names::RuntimeSocket => {
            verdict.is(line, "/local/container/image", pod.image);
            verdict.is(line, "/local/pod/labels", json!({ pod.label.0: pod.label.1 }));
            verdict.is(line, "/local/pod/annotations", json!({ pod.annotation.0: pod.annotation.1 }));
        }
    }
    match (case.layout, case.agent) {
        (_, Place::Blind) => verdict.absent(line, "/local/cgroup/path"),
        // The agent has no cgroup v2 either, and reads the path only where PID 1 shows its root.
        (Layout::V1, _) => {}
        _ => verdict.is(line, "/local/cgroup/path", container.path.as_str()),
    }
    let word = |pointer: &str| line.pointer(pointer).and_then(|value| value.as_str()).unwrap_or("-").to_owned();
    let id: String = word("/local/container/id").chars().take(12).collect();
    verdict.measured(format!("{id} {} {}", word("/local/container/runtime"), word("/local/pod/name")));
}

/// Uses the connection again some time after the server has closed it and the container's cgroup was removed.
fn outlive(client: &mut TcpStream, cgroup: &str) -> Result<()> {
    let group = layout::cgroup2()?.context("cgroup v2 is not mounted")?.join(cgroup.trim_start_matches('/'));
    ensure!(group.is_dir(), "the container is not in {}", group.display());
    thread::sleep(SHORT_LIFE);
    client.write_all(QUIT).context("cannot send")?;
    ensure!(client.read(&mut [0]).context("the server did not close")? == 0, "the server was to close");
    network::wait_until("the container's cgroup to go", || Ok(!group.exists()))?;
    thread::sleep(LATE);
    client.write_all(REQUEST).context("cannot send")
}
