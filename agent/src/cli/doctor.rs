//! `rstscope doctor`: can this node be traced, what will be seen, and what to do about the rest.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use agent_common::settings::Settings;
use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    flags::{DoctorFlags, Tuning},
    pods::NotAsked,
    stages::{attribution, privileges::Privileges},
};
use crate::{
    attribution::{
        Attributor,
        conntrack::{Place, State, Unable},
        pods::{health::Health, store::SOURCES},
    },
    event::party::Source,
    kernel::{
        attach::Attached,
        older::{Report as Older, Way},
        plan::Flavour,
        preflight::{self, Check, Found, Status},
        privileges,
        tracer::{self, Options, Tracer},
    },
};

#[derive(Serialize)]
struct Report {
    /// Whether `trace` would work.
    ok: bool,
    version: &'static str,
    checks: Vec<Check>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Attached>,
}

/// Runs `doctor`: exit code 0 only if `trace` would work.
///
/// # Errors
///
/// If the report cannot be written.
pub fn run(flags: &DoctorFlags) -> Result<ExitCode> {
    let report = examine(&flags.tuning)?;
    let mut text = Vec::new();
    if flags.json {
        serde_json::to_writer_pretty(&mut text, &report)?;
        text.push(b'\n');
    } else {
        describe(&report, io::stdout().is_terminal(), &mut text)?;
    }
    match io::stdout().write_all(&text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(error).context("cannot write the report to standard output");
        }
        _ => {}
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(tuning: &Tuning) -> Result<Report> {
    let (mut checks, found) = preflight::run(&tuning.btf, tuning.hooks, !tuning.no_reader_probe);
    let mut plan = None;
    if let Some(found) = found {
        let (found, attached) = trial(found, tuning)?;
        checks.extend(found);
        plan = attached;
    }
    checks.push(proc(tuning));
    checks.extend(places(tuning)?);
    let ok = checks.iter().all(|check| check.status != Status::Failed);
    Ok(Report { ok, version: env!("CARGO_PKG_VERSION"), checks, plan })
}

/// Loads and attaches everything for a moment: nothing else proves that the kernel allows it.
fn trial(found: Found, tuning: &Tuning) -> Result<(Vec<Check>, Option<Attached>)> {
    const NAME: &str = "trial";
    let ring_bytes = match tracer::check_ring_bytes(tuning.ring_bytes) {
        Ok(bytes) => bytes,
        Err(error) => {
            return Ok((vec![Check::failed(NAME, error.to_string(), "leave --ring-bytes at its default")], None));
        }
    };
    let options = Options {
        connections: tuning.connections,
        closed: tuning.closed_connections,
        ring_bytes,
        settings: Settings::EMPTY,
        program_stats: false,
        older: tuning.older_connections,
        proc_root: tuning.proc_root.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let _entered = runtime.enter();
    Ok(match Tracer::start(found, &options) {
        Ok(tracer) => {
            let attached = tracer.attached.clone();
            let found = format!("{} programs loaded and attached, HZ measured as {}", attached.hooks.len(), tracer.hz);
            let mut checks = vec![Check::ok(NAME, found), older(&tracer.older)];
            checks.extend(rights(tuning, &tracer)?);
            (checks, Some(attached))
        }
        Err(error) => (vec![Check::failed(NAME, format!("{error:#}"), "see the message")], None),
    })
}

/// What the agent keeps of its rights once it has attached, and what it would be able to do with those it lacks.
fn rights(tuning: &Tuning, tracer: &Tracer) -> Result<Vec<Check>> {
    let kept = Privileges::needed(&attribution(tuning)?, false).kept(tracer)?;
    let reasons: Vec<String> =
        kept.iter().map(|kept| format!("{} ({})", privileges::names(kept.capability).join(" "), kept.why)).collect();
    let found = if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") };
    let held = privileges::held()?;
    let missing = privileges::USES.iter().filter(|(capability, _)| !held.contains(*capability));
    let costs = missing.map(|(capability, without)| {
        let found = format!("{} is not held", privileges::names(*capability).join(" "));
        Check::warning("rights", found, format!("add it; else {without}"))
    });
    Ok([Check::ok("kept when attached", found)].into_iter().chain(costs).collect())
}

/// By which way the processes of connections that are there already are found.
fn older(report: &Older) -> Check {
    const NAME: &str = "older connections";
    let mut found = match report.way {
        Some(way) => format!("by {}: {} named in {} ms", way.name(), report.named, report.took.as_millis()),
        None => "no process is named".to_owned(),
    };
    if report.shared != 0 {
        found.push_str(&format!(", {} that several processes have open", report.shared));
    }
    if let Some(refused) = &report.refused {
        found.push_str(&format!(" (not by {}: {refused})", Way::Iterator.name()));
    }
    match report.missing.first() {
        None => Check::ok(NAME, found),
        Some(missing) => Check::warning(NAME, found, format!("not seen: {missing}")),
    }
}

fn proc(tuning: &Tuning) -> Check {
    const NAME: &str = "/proc";
    let stat = tuning.proc_root.join("1/stat");
    match std::fs::read(&stat) {
        Ok(_) => Check::ok(NAME, tuning.proc_root.display().to_string()),
        Err(error) => Check::failed(
            NAME,
            format!("{} cannot be read: {error}", stat.display()),
            "mount the host's /proc and name it with --proc-root",
        ),
    }
}

/// Places that only names come from.
fn places(tuning: &Tuning) -> Result<Vec<Check>> {
    let (_, not_asked) = tuning.pods.sources(tuning.node.as_deref())?;
    let attributor = Attributor::new(attribution(tuning)?)?;
    let cgroup = match attributor.cgroup_root() {
        // Only a descriptor of ours is named so.
        Some(root) if root.starts_with("/proc/self/fd") => {
            Check::ok("cgroup v2", "the host's tree, by a file handle to its root")
        }
        Some(root) => Check::ok("cgroup v2", root.display().to_string()),
        None if attributor.sees_part_of_cgroups() => Check::warning(
            "cgroup v2",
            "only a part of the host's tree can be seen",
            "mount the host's /sys/fs/cgroup read-only and name it with --cgroup-root, or add CAP_DAC_READ_SEARCH",
        ),
        None => Check::warning(
            "cgroup v2",
            "not mounted",
            "containers are then named only while their process lives (by /proc/PID/cgroup)",
        ),
    };
    let mut checks = vec![cgroup];
    checks.extend(pod_sources(&attributor).into_iter().filter_map(|(source, health)| {
        let name = source.name();
        Some(match health {
            // Which of them is missing, and why, is said below.
            Health::Off => {
                let why = not_asked.iter().find(|NotAsked(left_out, _)| *left_out == source);
                Check::ok(name, format!("not asked: {}", why?.1))
            }
            Health::Answers { pods, left_out, lacks } => answers(name, pods, left_out, lacks),
            Health::Waiting => Check::warning(
                name,
                format!("has not answered in {} s", SOURCES_LIMIT.as_secs()),
                "lines leave without waiting for it; check its address and the network",
            ),
            Health::Fails { what, remedy } => {
                Check { remedy: (!remedy.is_empty()).then_some(remedy), ..Check::warning(name, what, "") }
            }
        })
    }));
    if tuning.pods.cluster_watch {
        checks.push(cluster(&attributor));
    }
    checks.push(conntrack(&attributor));
    Ok(checks)
}

/// Who knows which endpoint stands behind a Service's address.
fn conntrack(attributor: &Attributor) -> Check {
    const NAME: &str = "connection tracking";
    const NO_ENTRY: &str = "if the agent's own is not the host's, run it with hostNetwork: true, or add CAP_SYS_ADMIN and \
                            CAP_SYS_PTRACE; else the endpoint behind a Service's address is not named";
    let Some(state) = conntrack_state(attributor) else { return Check::ok(NAME, "not asked: --no-conntrack") };
    match state {
        State::Asked(Place::Wanted(namespace)) => Check::ok(NAME, format!("asked in {}", namespace.display())),
        State::Asked(Place::Own(why)) => {
            Check::warning(NAME, format!("asked in the agent's own network namespace: {why}"), NO_ENTRY)
        }
        State::Unable(Unable::NoTracking, _) => {
            Check::ok(NAME, "not asked: nf_conntrack is not in use, so nothing is translated by it")
        }
        State::Unable(Unable::NoInterface, _) => Check::warning(
            NAME,
            "cannot be asked: the kernel has nf_conntrack without nf_conntrack_netlink",
            "modprobe nf_conntrack_netlink; else the endpoint behind a Service's address is not named",
        ),
        State::Unable(Unable::NoRight, _) => Check::warning(
            NAME,
            "must not be asked: CAP_NET_ADMIN is missing",
            "add CAP_NET_ADMIN; else the endpoint behind a Service's address is not named",
        ),
        State::Unable(Unable::Other(why), _) => Check::warning(
            NAME,
            format!("cannot be asked: {why}"),
            "the endpoint behind a Service's address is not named",
        ),
        State::Opening => Check::warning(
            NAME,
            format!("has not answered in {} s", SOURCES_LIMIT.as_secs()),
            "the endpoint behind a Service's address is not named until it does",
        ),
    }
}

fn conntrack_state(attributor: &Attributor) -> Option<State> {
    let deadline = Instant::now() + SOURCES_LIMIT;
    while attributor.conntrack() == Some(State::Opening) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    attributor.conntrack()
}

fn cluster(attributor: &Attributor) -> Check {
    const NAME: &str = "cluster watch";
    let (pods, failures) = attributor.cluster();
    let found = format!("knows {pods} pods of the cluster");
    if failures.is_empty() {
        return Check::ok(NAME, found);
    }
    let failures: Vec<String> = failures.iter().map(|(what, failure)| format!("{what}: {failure}")).collect();
    Check::warning(NAME, format!("{found}, but not everything"), failures.join("; "))
}

fn answers(name: &'static str, pods: usize, left_out: usize, lacks: Option<String>) -> Check {
    let found = match left_out {
        0 => format!("knows {pods} pods of this node"),
        _ => format!("knows {pods} pods of this node; {left_out} entries of its answer make no sense and are left out"),
    };
    match lacks {
        Some(lacks) => Check::warning(name, format!("{found}, but without some names"), lacks),
        None => Check::ok(name, found),
    }
}

/// Whoever has not answered by then is slow.
const SOURCES_LIMIT: Duration = Duration::from_secs(5);

/// What they say once each has answered.
fn pod_sources(attributor: &Attributor) -> [(Source, Health); SOURCES.len()] {
    let deadline = Instant::now() + SOURCES_LIMIT;
    loop {
        let sources = attributor.sources();
        if Instant::now() >= deadline || sources.iter().all(|(_, health)| *health != Health::Waiting) {
            return sources;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn describe(report: &Report, colour: bool, out: &mut impl Write) -> io::Result<()> {
    let paint = |code: &str, text: &str| {
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    for check in &report.checks {
        let mark = match check.status {
            Status::Ok => paint("32", "ok     "),
            Status::Warning => paint("33", "warning"),
            Status::Failed => paint("31", "FAILED "),
        };
        writeln!(out, "{mark}  {:<20} {}", check.name, check.found)?;
        if let Some(remedy) = &check.remedy {
            writeln!(out, "{:31}→ {remedy}", "")?;
        }
    }
    if let Some(plan) = &report.plan {
        writeln!(out, "\nAttach plan")?;
        for hook in &plan.hooks {
            writeln!(out, "  {:<22} {:<15} {}", hook.hook, hook.flavour.name(), hook.purpose)?;
        }
        writeln!(out, "Not seen on this kernel")?;
        for unseen in &plan.unseen {
            writeln!(out, "  {unseen}")?;
        }
        if !plan.refused.is_empty() {
            writeln!(out, "Would do as well or better, but cannot be used here")?;
        }
        for refusal in &plan.refused {
            let flavour = refusal.flavour.map_or("function probe", Flavour::name);
            writeln!(out, "  {:<22} {flavour:<15} {}", refusal.hook, refusal.reason)?;
        }
    }
    writeln!(
        out,
        "\n{}",
        if report.ok { "`rstscope trace` works here." } else { "`rstscope trace` does not work here." }
    )
}
