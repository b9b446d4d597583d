//! The agent's own log. That it is JSON lines on a daemon's standard error is held by every case that [ends](Daemon::end)
//! one.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Case,
    agent::patience,
    daemon::{Daemon, Home},
    netns::Netns,
};

pub const CASES: &[Case] = &[
    ("log_lines_name_the_sink_and_the_error", fields),
    ("log_is_for_people_where_that_is_asked_for", human),
    ("log_says_as_much_as_is_asked_for", levels),
    ("log_that_nobody_reads_ends_nothing", unread),
    #[cfg(feature = "ebpf-log")]
    ("log_of_the_kernel_side_is_part_of_it", kernel_side),
];

const STDOUT: &str = "[sinks.console]\ntype = \"stdout\"\n";
const WRONG: &str = "[sinks.console]\ntype = \"stdot\"\n";

/// Gives a running daemon a configuration that it does not take, and waits for what it says of that.
fn say_something(home: &Home, daemon: &Daemon) {
    home.configure(WRONG);
    daemon.signal(libc::SIGHUP);
    daemon.until("a word about it", |_| daemon.errors().contains("the old one stays in use"));
}

fn fields() {
    let (home, netns) = (Home::new(), Netns::new());
    let unusable = "[sinks.broken]\ntype = \"file\"\npath = \"/proc/no/such.jsonl\"\n";
    home.configure(&[STDOUT, unusable].concat());
    let daemon = Daemon::start(&home, &netns);
    daemon.until("a word about the sink", |_| daemon.errors().contains("such.jsonl"));
    say_something(&home, &daemon);
    let (_, errors) = daemon.end();
    let lines: Vec<Value> = errors.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of_sink = lines.iter().find(|line| line["sink"] == "broken").unwrap_or_else(|| panic!("{errors}"));
    assert_eq!(of_sink["level"], "WARN", "{of_sink}");
    assert!(of_sink["message"].as_str().unwrap().starts_with("cannot open /proc/no/such.jsonl"), "{of_sink}");
    let of_reload = lines.iter().find(|line| line["error"].is_string()).unwrap_or_else(|| panic!("{errors}"));
    assert!(of_reload["error"].as_str().unwrap().contains("stdot"), "{of_reload}");
}

fn human() {
    let (home, netns) = (Home::new(), Netns::new());
    home.configure(&[STDOUT, "[agent]\nlog_format = \"human\"\n"].concat());
    let daemon = Daemon::start(&home, &netns);
    say_something(&home, &daemon);
    let said = daemon.errors();
    assert!(said.contains(" WARN the configuration is not taken"), "{said}");
    assert!(!said.contains(['{', '\u{1b}']), "neither JSON nor colour: {said}");
}

fn levels() {
    for (level, reloaded, attached) in [("error", false, false), ("info", true, false), ("debug", true, true)] {
        let (home, netns) = (Home::new(), Netns::new());
        let agent = format!("[agent]\nlog_level = \"{level}\"\n");
        home.configure(&[STDOUT, &agent].concat());
        let mut daemon = Daemon::start(&home, &netns);
        // A reload is over when the new sink's thread runs.
        home.configure(&[STDOUT, &agent, "[sinks.other]\ntype = \"file\"\npath = \"/dev/null\"\n"].concat());
        daemon.signal(libc::SIGHUP);
        let names = || procfs::process::Process::new(daemon.pid()).and_then(|process| process.tasks());
        let runs = || names().unwrap().flatten().flat_map(|task| task.status()).any(|task| task.name == "sink other");
        daemon.until("the reload", |_| runs());
        daemon.signal(libc::SIGTERM);
        let said = daemon.wait();
        assert_eq!(said.contains("configuration read again"), reloaded, "{level}: {said}");
        assert_eq!(said.contains("\"attached\""), attached, "{level}: {said}");
        assert!(said.contains("nothing lost"), "the summary is no part of it: {said}");
    }
}

/// Closed, and a pipe whose reader has gone: it has something to say in both cases, and goes on.
fn unread() {
    for closed in [true, false] {
        let home = Home::new();
        home.configure(STDOUT);
        let mut command = home.command();
        if closed {
            let mut shell = Command::new("sh");
            shell.args(["-c", "exec \"$@\" 2>&-", "sh"]).arg(command.get_program()).args(command.get_args());
            command = shell;
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().contains("\"start\""));
        // What it says of a reload goes nowhere.
        let file = home.path("resets.jsonl");
        home.configure(&format!("{STDOUT}[sinks.file]\ntype = \"file\"\npath = \"{}\"\n", file.display()));
        send(&child, libc::SIGHUP);
        let began = Instant::now();
        while !file.exists() {
            assert!(began.elapsed() < patience(), "it does not go on");
            std::thread::sleep(Duration::from_millis(20));
        }
        send(&child, libc::SIGTERM);
        assert!(child.wait().unwrap().success());
        assert!(lines.last().unwrap().unwrap().contains("\"stop\""));
    }
}

/// Whatever kernel this is has to take the programs as they are in this build.
#[cfg(feature = "ebpf-log")]
fn kernel_side() {
    use crate::{
        agent::Agent,
        sockets::{Family, Pair},
    };

    let told = "no room in the table for the connection of the socket ";
    for (level, is_told) in [("debug", true), ("info", false)] {
        let netns = Netns::new();
        let agent = Agent::start(&["--connections", "1", "--log-level", level, "--log-format", "json"]);
        let pairs: Vec<Pair> = netns.run(|| (0..200).map(|_| Pair::connect(Family::V4)).collect());
        drop(pairs);
        // What programs say is read at leisure.
        std::thread::sleep(Duration::from_millis(500));
        let (lines, errors) = agent.stop();
        assert!(lines.iter().any(|line| line["lost"]["cause"] == "connection_table_full"), "{lines:#?}");
        let said = errors.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_it = |line: &Value| line["message"].as_str().is_some_and(|message| message.starts_with(told));
        let said: Vec<Value> = said.filter(is_it).collect();
        assert_eq!(!said.is_empty(), is_told, "{level}: {errors}");
        assert!(said.iter().all(|line| line["target"] == "rstscope::ebpf" && line["level"] == "DEBUG"), "{errors}");
    }
}

fn send(child: &Child, signal: i32) {
    // SAFETY: the child has not been waited for, so its pid is its own.
    unsafe { libc::kill(child.id().cast_signed(), signal) };
}
