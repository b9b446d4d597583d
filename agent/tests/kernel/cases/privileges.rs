//! What the agent needs to begin, what it keeps, and that everything else is gone from every thread. That what is kept is
//! enough all other cases show: their agents have given up the rest as well.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    process::Command,
};

use procfs::process::{Process, Status};
use rustix::thread::{CapabilitySet, capabilities, remove_capability_from_bounding_set};
use serde_json::Value;

use super::{command_line::fails_with, owner::served};
use crate::{
    Case,
    agent::{Agent, instance, program},
    daemon::{Daemon, Home, lines_of},
    expect::is,
    netns::Netns,
    servers::{http::Server, loki::Loki},
    sockets::{Family, Pair, linger_zero},
};

/// What a kernel asks of whoever uses bpf(2) is part of these.
pub const CASES: &[Case] = &[
    ("privileges_that_are_not_needed_are_gone_from_every_thread", given_up),
    ("privileges_are_kept_if_asked_to", all_kept),
    ("privileges_the_least_there_can_be_are_enough", least),
    ("privileges_that_lack_bpf_are_one_sentence", without_bpf),
    ("privileges_that_are_missing_cost_what_doctor_says", doctor),
];

/// About sinks, whose threads run before the agent has attached.
pub const CASES_OF_SINKS: &[Case] = &[
    ("privileges_are_gone_from_the_threads_of_sinks", given_up_by_sinks),
    ("privileges_to_write_where_another_user_is_at_home_are_kept", another_users_folder),
];

/// What the agent says it has kept.
fn said(start: &Value) -> CapabilitySet {
    let names = start["agent"]["capabilities"].as_array().expect("the start line names them");
    let one = |name: &Value| {
        let name = name.as_str().and_then(|name| name.strip_prefix("CAP_")).expect("a name");
        CapabilitySet::from_name(name).unwrap_or_else(|| panic!("no capability: {name}"))
    };
    names.iter().map(one).collect()
}

fn threads(pid: i32) -> Vec<Status> {
    let tasks = Process::new(pid).unwrap().tasks().unwrap();
    // One that ends meanwhile has nothing left.
    tasks.flatten().filter_map(|task| task.status().ok()).collect()
}

/// Every thread has `kept` and nothing else, and no way to more.
#[track_caller]
fn have_only(kept: CapabilitySet, threads: &[Status]) {
    for thread in threads {
        let name = &thread.name;
        let of = CapabilitySet::from_bits_retain;
        assert_eq!((of(thread.capprm), of(thread.capeff)), (kept, kept), "{name}");
        assert_eq!((thread.capinh, thread.capamb), (0, Some(0)), "{name}");
        assert_eq!(of(thread.capbnd.unwrap()) - kept, CapabilitySet::empty(), "{name}");
        assert_eq!(thread.nonewprivs, Some(1), "{name}");
    }
}

/// What an agent that asks the connection tracking may keep; the last one where bpf(2) asks for it.
fn expected() -> CapabilitySet {
    CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::NET_ADMIN | CapabilitySet::BPF
}

fn given_up() {
    let agent = Agent::start(&[]);
    let kept = said(agent.start_line());
    assert_eq!((kept | CapabilitySet::BPF), expected(), "{}", agent.start_line());
    let threads = threads(agent.pid());
    let names: Vec<&str> = threads.iter().map(|thread| thread.name.as_str()).collect();
    // Two from before it has attached, and one from after that.
    for name in ["pod-names", "conntrack", "pipeline"] {
        assert!(names.contains(&name), "{names:?}");
    }
    have_only(kept, &threads);
    let (_, summary) = agent.stop();
    assert!(summary.contains("nothing lost"), "{summary}");

    let agent = Agent::start(&["--no-conntrack"]);
    let kept = said(agent.start_line());
    assert!(!kept.contains(CapabilitySet::NET_ADMIN), "{kept:?}");
    have_only(kept, &self::threads(agent.pid()));
}

fn all_kept() {
    let own = capabilities(None).unwrap().permitted;
    let agent = Agent::start(&["--keep-capabilities"]);
    assert_eq!(said(agent.start_line()), own);
    for thread in threads(agent.pid()) {
        assert_eq!(CapabilitySet::from_bits_retain(thread.capeff), own, "{}", thread.name);
        assert_eq!(thread.nonewprivs, Some(0), "{}", thread.name);
    }
}

/// What this thread executes as root gets no more than these.
fn bound_to(rights: CapabilitySet) {
    let own = capabilities(None).unwrap().permitted;
    for (name, right) in (own - rights).iter_names() {
        remove_capability_from_bounding_set(right).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// What it takes to load and to attach. Before 5.11 maps count as locked memory, of which only this right gives enough.
fn loading() -> CapabilitySet {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let memory = if release.starts_with("5.10.") { CapabilitySet::SYS_RESOURCE } else { CapabilitySet::empty() };
    CapabilitySet::BPF | CapabilitySet::PERFMON | memory
}

/// As a container that drops all capabilities and adds these. Every fact of a line that names a process is there.
fn least() {
    let rights = loading() | CapabilitySet::SYS_PTRACE;
    let mut agent = Agent::start_in(&[], move || bound_to(rights));
    let kept = said(agent.start_line());
    assert_eq!(kept | CapabilitySet::BPF, CapabilitySet::SYS_PTRACE | CapabilitySet::BPF);
    for thread in threads(agent.pid()) {
        assert_eq!(CapabilitySet::from_bits_retain(thread.capprm), kept, "{}", thread.name);
    }
    let netns = Netns::new();
    let (mut holder, client, port) = served(&netns, "holder", None);
    assert_eq!(holder.tell("read 5"), "read");
    linger_zero(&client);
    drop(client);
    let line = agent.reset(&netns, "received", port);
    is(&line, "/local/process/pid", holder.pid());
    is(&line, "/local/process/comm", "holder");
    let exe = line["local"]["process"]["exe"].as_str().unwrap_or_default();
    assert!(exe.ends_with("/holder"), "{line:#}");
    assert!(line["cause"]["code"].is_string() && line["idle_ms"].is_number() && line["age_ms"].is_number(), "{line:#}");
    let (_, summary) = agent.stop();
    assert!(summary.contains("nothing lost"), "{summary}");
}

/// An `rstscope` that gets no more than these rights, run to its end.
fn output(rights: CapabilitySet, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(program());
    command.args(arguments).args(["--instance", &instance()]);
    let run = move || {
        bound_to(rights);
        command.output().unwrap()
    };
    std::thread::spawn(run).join().unwrap()
}

fn without_bpf() {
    let rights = CapabilitySet::PERFMON | CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
    fails_with(&output(rights, &["trace"]), &["CAP_BPF not held", "run as root"]);
}

fn doctor() {
    let rights = loading() | CapabilitySet::DAC_READ_SEARCH;
    let output = output(rights, &["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    is(&report, "/ok", true);
    let checks = report["checks"].as_array().unwrap();
    let kept = checks.iter().find(|check| check["name"] == "kept when attached").unwrap();
    assert!(kept["found"].as_str().unwrap().contains("CAP_DAC_READ_SEARCH ("), "{kept}");
    assert!(!kept["found"].as_str().unwrap().contains("CAP_PERFMON"), "{kept}");
    let missing: Vec<&Value> = checks.iter().filter(|check| check["name"] == "rights").collect();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(missing[0]["found"], "CAP_SYS_PTRACE is not held");
    assert!(missing[0]["remedy"].as_str().unwrap().contains("executables"), "{missing:?}");
}

fn given_up_by_sinks() {
    let (home, netns) = (Home::new(), Netns::new());
    let server = netns.run(|| Server::start(Loki::default()));
    let file = home.path("resets.jsonl");
    home.configure(&format!(
        "[sinks.console]\ntype = \"stdout\"\n[sinks.file]\ntype = \"file\"\npath = \"{}\"\n\
         [sinks.remote]\ntype = \"loki\"\nurl = \"{}\"\nbatch = {{ wait = \"50ms\" }}\n",
        file.display(),
        server.url()
    ));
    let daemon = Daemon::start(&home, &netns);
    let kept = said(&daemon.lines()[0]);
    assert!(!kept.contains(CapabilitySet::DAC_OVERRIDE), "{kept:?}");
    let threads = threads(daemon.pid());
    let names: Vec<&str> = threads.iter().map(|thread| thread.name.as_str()).collect();
    for name in ["sink console", "sink file", "sink remote", "send remote"] {
        assert!(names.contains(&name), "{names:?}");
    }
    have_only(kept, &threads);
    reset_in(&netns);
    daemon.until("both ends", |lines| lines.iter().filter(|line| line["type"] == "reset").count() >= 2);
    let delivered = || server.with(|loki| loki.lines.iter().filter(|line| line["type"] == "reset").count());
    daemon.until("delivery", |_| delivered() >= 2);
    // A new sink's threads have what the one has that starts them.
    home.configure("[sinks.console]\ntype = \"stdout\"\n[sinks.other]\ntype = \"file\"\npath = \"/dev/null\"\n");
    daemon.signal(libc::SIGHUP);
    let is_other = |thread: &Status| thread.name == "sink other";
    daemon.until("the new sink", |_| self::threads(daemon.pid()).iter().any(is_other));
    have_only(kept, &self::threads(daemon.pid()));
    daemon.end();
    assert!(lines_of(&file).len() >= 2);
}

fn reset_in(netns: &Netns) {
    let pair = netns.run(|| Pair::connect(Family::V4));
    linger_zero(&pair.client);
    drop(pair);
}

/// Root writes there only because nothing is denied to it. Naive: the first file is opened before that is given up, and the
/// next one, at midnight, is not.
fn another_users_folder() {
    let (home, netns) = (Home::new(), Netns::new());
    let folder = home.path("alice");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&folder, Some(65534), Some(65534)).unwrap();
    let file = folder.join("resets.jsonl");
    home.configure(&format!(
        "[sinks.console]\ntype = \"stdout\"\n[sinks.file]\ntype = \"file\"\npath = \"{}\"\n",
        file.display()
    ));
    let daemon = Daemon::start(&home, &netns);
    let kept = said(&daemon.lines()[0]);
    assert!(kept.contains(CapabilitySet::DAC_OVERRIDE), "{kept:?}");
    have_only(kept, &threads(daemon.pid()));
    fs::rename(&file, folder.join("resets.jsonl.1")).unwrap();
    daemon.signal(libc::SIGHUP);
    daemon.until("the file again", |_| file.exists());
    reset_in(&netns);
    daemon.until("lines in it", |_| lines_of(&file).iter().any(|line| line["type"] == "reset"));
    daemon.end();
}
