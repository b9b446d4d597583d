//! What people do with a command: pipe it, filter it, interrupt it, start it where it cannot work.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Case,
    agent::{Agent, at_leisure, instance, program},
    expect::is,
    netns::Netns,
    sockets::{Family, Pair, linger_zero},
};

pub const CASES: &[Case] = &[
    ("without_root_one_sentence_names_the_remedy", without_root),
    ("a_kernel_without_types_is_one_sentence", without_btf),
    ("port_and_network_filters", port_and_network_filters),
    ("doctor_says_yes_where_trace_works_and_no_where_not", doctor),
    ("a_forced_hook_flavour_is_taken_or_refused_with_the_remedy", forced_flavour),
];

/// Of the program alone, whatever the kernel.
pub const CASES_OF_THE_PROGRAM: &[Case] = &[
    ("head_1_ends_the_pipe_at_once", head),
    ("count_and_duration_end_it", count_and_duration),
    ("interrupt_prints_a_summary", interrupt),
    ("a_second_instance_is_refused_with_the_remedy", second_instance),
    ("a_full_disk_is_one_sentence_and_a_failure", full_disk),
    ("an_unreadable_proc_is_one_sentence", unreadable_proc),
    ("a_closed_standard_output_is_one_sentence", closed_stdout),
    ("bad_flags_are_refused", bad_flags),
    ("process_filter", process_filter),
    ("table_has_a_row_and_no_colour_in_a_pipe", table),
];

fn reset_once(netns: &Netns, family: Family) -> u16 {
    let pair = netns.run(move || Pair::connect(family));
    let port = pair.client_port();
    linger_zero(&pair.client);
    drop(pair);
    port
}

fn trace(flags: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(["trace", "--instance", &instance()]).args(flags);
    command
}

/// One sentence on standard error, exit code 1, nothing on standard output.
#[track_caller]
pub fn fails_with(output: &Output, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "one sentence: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is missing: {stderr}");
    }
}

fn head() {
    let mut child = trace(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("rstscope.v1"), "{first}");
    let began = Instant::now();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < at_leisure(Duration::from_secs(3)), "it waited for another event");
}

fn count_and_duration() {
    let netns = Netns::new();
    let mut child = trace(&["--count", "1"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    reset_once(&netns, Family::V4);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success());
    let lines: Vec<Value> = rest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().filter(|line| line["type"] == "reset").count(), 1, "{rest}");
    assert_eq!(lines.last().unwrap()["agent"]["action"], "stop", "{rest}");

    let began = Instant::now();
    let output = trace(&["--duration", "700ms"]).output().unwrap();
    assert!(output.status.success());
    assert!(began.elapsed() >= Duration::from_millis(700));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("rstscope: in "), "{output:?}");
}

fn interrupt() {
    let netns = Netns::new();
    let agent = Agent::start(&[]);
    let port = reset_once(&netns, Family::V6);
    // At once: what is still in the buffer must come out.
    let (lines, summary) = agent.stop();
    let own = lines.iter().filter(|line| line["local"]["netns"] == netns.inode()).count();
    assert_eq!(own, 2, "both ends of {port}: {lines:#?}");
    assert!(summary.contains("nothing lost"), "{summary}");
    assert_eq!(lines.last().unwrap()["agent"]["action"], "stop");
}

fn second_instance() {
    let name = instance();
    let mut first = Command::new(program())
        .args(["trace", "--instance", &name])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    BufReader::new(first.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    let second = Command::new(program()).args(["trace", "--instance", &name]).output().unwrap();
    fails_with(&second, &[&format!("pid {}", first.id()), "--instance"]);
    first.kill().unwrap();
    first.wait().unwrap();
    std::fs::remove_file(format!("/run/rstscope-{name}.lock")).unwrap();
}

fn without_root() {
    // A copy that nobody may execute from a home directory of root's cannot be started as nobody.
    let directory = tempfile::Builder::new().permissions(mode(0o755)).tempdir_in("/tmp").unwrap();
    let copy = directory.path().join("rstscope");
    std::fs::copy(program(), &copy).unwrap();
    let output = Command::new(&copy).arg("trace").uid(65534).gid(65534).current_dir("/").output().unwrap();
    fails_with(&output, &["CAP_BPF", "root"]);
    let doctor = Command::new(&copy).arg("doctor").uid(65534).gid(65534).current_dir("/").output().unwrap();
    assert_eq!(doctor.status.code(), Some(1), "{doctor:?}");
}

fn mode(mode: u32) -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

fn full_disk() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = trace(&["--duration", "5s"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    fails_with(&output, &["cannot write to standard output", "No space left", "free space"]);
}

fn unreadable_proc() {
    let empty = tempfile::tempdir().unwrap();
    let output = trace(&["--proc-root", empty.path().to_str().unwrap()]).output().unwrap();
    fails_with(&output, &["--proc-root"]);
}

fn closed_stdout() {
    let command = format!("exec {} trace --instance {} >&-", program().display(), instance());
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    fails_with(&output, &["standard output is closed"]);
}

fn without_btf() {
    fails_with(&trace(&["--btf", "/no/such/file"]).output().unwrap(), &["CONFIG_DEBUG_INFO_BTF", "/no/such/file"]);
    fails_with(&trace(&["--btf", "/proc/self/stat"]).output().unwrap(), &["not BTF", "CONFIG_DEBUG_INFO_BTF"]);
    // A header and no types: another kernel's, or none's.
    let empty = tempfile::NamedTempFile::new().unwrap();
    let mut header = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
    header.extend([0_u32, 0, 0, 1].into_iter().flat_map(u32::to_ne_bytes));
    header.push(0);
    std::fs::write(empty.path(), header).unwrap();
    let output = trace(&["--btf", empty.path().to_str().unwrap()]).output().unwrap();
    fails_with(&output, &["tcp_sock.lsndtime", "sock_common.skc_state"]);
}

fn bad_flags() {
    let many: Vec<String> = (1..=17).map(|port| format!("--port={port}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    fails_with(&trace(&many).output().unwrap(), &["--port", "at most 16"]);
    fails_with(&trace(&["--cgroup", "/no/such/cgroup"]).output().unwrap(), &["--cgroup", "no cgroup"]);
    fails_with(&trace(&["--ring-bytes", "100000"]).output().unwrap(), &["power of two"]);
    for flags in [["--port", "0"], ["--cidr", "300.0.0.0/8"], ["--duration", "soon"], ["--count", "0"]] {
        let output = trace(&flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(flags[0]), "{output:?}");
    }
}

fn port_and_network_filters() {
    let netns = Netns::new();
    let wanted = netns.run(|| Pair::connect(Family::V4));
    let port = wanted.server_port();
    let mut agent = Agent::start(&["--port", &port.to_string(), "--cidr", "127.0.0.0/8"]);
    reset_once(&netns, Family::V4);
    reset_once(&netns, Family::V6);
    let client = wanted.client_port();
    linger_zero(&wanted.client);
    drop(wanted);
    agent.reset(&netns, "sent", client);
    agent.reset(&netns, "received", port);
    agent.nothing_more(&netns);
    let (_, summary) = agent.stop();
    assert!(summary.contains("left out by filters"), "{summary}");

    let mut elsewhere = Agent::start(&["--cidr", "::1"]);
    reset_once(&netns, Family::V4);
    let six = reset_once(&netns, Family::V6);
    is(&elsewhere.reset(&netns, "sent", six), "/local/ip", "::1");
    elsewhere.rest(&netns, Duration::from_millis(300)).iter().for_each(|line| is(line, "/local/ip", "::1"));
}

fn process_filter() {
    let netns = Netns::new();
    let agent = Agent::start(&["--process", "no-such-process"]);
    reset_once(&netns, Family::V4);
    let (lines, _) = agent.stop();
    assert!(lines.iter().all(|line| line["type"] != "reset"), "{lines:#?}");

    let own = std::fs::read_to_string("/proc/self/comm").unwrap();
    let mut agent = Agent::start(&["--process", &format!("{}*", own.trim().chars().take(4).collect::<String>())]);
    let port = reset_once(&netns, Family::V4);
    agent.reset(&netns, "sent", port);
}

fn doctor() {
    let output = Command::new(program()).args(["doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report:#}");
    is(&report, "/ok", true);
    let checks = report["checks"].as_array().unwrap();
    let trial = checks.iter().find(|check| check["name"] == "trial").unwrap();
    assert!(trial["found"].as_str().unwrap().contains("HZ measured"), "{trial}");
    let empty = tempfile::tempdir().unwrap();
    let bad = Command::new(program()).args(["doctor", "--proc-root", empty.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(bad.status.code(), Some(1));
    let text = String::from_utf8_lossy(&bad.stdout);
    assert!(text.contains("FAILED") && text.contains("--proc-root"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colour in a pipe: {text}");
}

/// A kernel that refuses what was asked for must not be traced in another way without a word.
fn forced_flavour() {
    for (flavour, own) in [
        ("tracepoint", &["raw tracepoint"][..]),
        ("fentry", &["fentry", "fexit"]),
        ("kprobe", &["kprobe", "kretprobe"]),
    ] {
        let output = Command::new(program()).args(["doctor", "--json", "--hooks", flavour]).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap();
        let trial = checks.iter().find(|check| check["name"] == "trial").unwrap();
        let found = trial["found"].as_str().unwrap();
        if trial["status"] == "failed" {
            assert!(!output.status.success(), "{report:#}");
            assert_ne!(flavour, "tracepoint", "{found}");
            assert!(found.contains("--hooks auto"), "{found}");
            continue;
        }
        let hooks = report["plan"]["hooks"].as_array().unwrap();
        let of = |function: &str| hooks.iter().find(|hook| hook["hook"] == function).map(|hook| &hook["flavour"]);
        let states = of("inet_sock_set_state").or_else(|| of("tcp_set_state")).unwrap();
        assert!(own.iter().any(|name| states == name), "{flavour}: {report:#}");
        let others = hooks
            .iter()
            .filter(|hook| hook["flavour"] != "raw tracepoint" && !own.iter().any(|name| hook["flavour"] == *name));
        assert_eq!(others.count(), 0, "{flavour}: {report:#}");
    }
}

fn table() {
    let netns = Netns::new();
    // Not by its name, which the same tests of another checkout have as well.
    let own = std::env::current_exe().unwrap();
    let mut child = trace(&["--output", "table", "--count", "2", "--process", own.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut header = String::new();
    output.read_line(&mut header).unwrap();
    assert!(header.contains("LOCAL ← → PEER"), "{header}");
    // Both ends have to be used before the process of each is known on every kernel.
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    pair.exchange(1, 1);
    linger_zero(&pair.client);
    let port = pair.client_port();
    drop(pair);
    let mut rows = String::new();
    output.read_to_string(&mut rows).unwrap();
    assert!(child.wait().unwrap().success());
    // Two lines, one row: it names both ends.
    assert_eq!(rows.lines().count(), 1, "{port}: {rows}");
    let own = format!("({})", std::process::id());
    assert_eq!(rows.matches(&own).count(), 2, "{rows}");
    assert!(!rows.contains('\u{1b}'), "{rows}");
}
