//! `rstscope run`: the same lines in every sink, reload, kills, disks that are full.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Case,
    agent::patience,
    daemon::{Daemon, Home, lines_of},
    disk::Disk,
    netns::Netns,
    servers::{
        http::{Rules, Server, Trouble},
        loki::Loki,
        otlp::Otlp,
        splunk::Splunk,
    },
    sockets::{Family, Pair, linger_zero},
    spooled::spooled,
};

pub const CASES: &[Case] = &[
    ("run_gives_every_sink_the_same_lines", same_lines),
    ("run_loses_nothing_on_the_way_to_loki_whenever_it_is_killed", chaos_with_loki),
    ("run_loses_nothing_on_the_way_to_splunk_whenever_it_is_killed", chaos_with_splunk),
    ("run_loses_nothing_on_the_way_to_a_collector_whenever_it_is_killed", chaos_with_otlp),
    ("run_takes_up_a_changed_configuration_without_losing_an_event", reload),
    ("run_keeps_its_configuration_if_the_new_one_is_wrong", wrong_reload),
    ("run_refuses_a_wrong_configuration_in_one_sentence", wrong_configuration),
    ("run_delivers_with_a_full_disk_under_its_spool", full_disk),
    ("run_says_why_a_sink_stopped_and_asks_again_with_a_new_configuration", refused),
];

/// So many resets of a connection in `netns`; the ports of their clients.
pub fn resets(netns: &Netns, count: usize) -> Vec<u16> {
    let reset = |_| {
        let pair = netns.run(|| Pair::connect(Family::V4));
        let port = pair.client_port();
        linger_zero(&pair.client);
        drop(pair);
        port
    };
    (0..count).map(reset).collect()
}

/// How many lines there are of resets sent from these ports.
fn sent_from(lines: &[Value], ports: &[u16]) -> usize {
    let sent =
        |line: &&Value| line["reset"]["direction"] == "sent" && ports.iter().any(|port| line["local"]["port"] == *port);
    lines.iter().filter(sent).count()
}

fn ids(lines: &[Value]) -> Vec<String> {
    lines.iter().map(|line| line["id"].as_str().expect("each line has an id").to_owned()).collect()
}

fn loki_in(netns: &Netns) -> Server<Loki> {
    netns.run(|| Server::start(Loki::default()))
}

const STDOUT: &str = "[sinks.console]\ntype = \"stdout\"\n";

const QUICK: &str = "retry = { first = \"50ms\", most = \"200ms\" }\nhttp = { timeout = \"500ms\" }\n\
                     batch = { lines = 20, wait = \"50ms\" }\n";

fn loki(url: &str) -> String {
    format!("[sinks.remote]\ntype = \"loki\"\nurl = \"{url}\"\n{QUICK}")
}

fn file(name: &str, path: &Path) -> String {
    format!("[sinks.{name}]\ntype = \"file\"\npath = \"{}\"\n", path.display())
}

fn same_lines() {
    let (home, netns) = (Home::new(), Netns::new());
    let server = loki_in(&netns);
    home.configure(&[STDOUT, &loki(&server.url()), &file("file", &home.path("resets.jsonl"))].concat());
    let daemon = Daemon::start(&home, &netns);
    let ports = resets(&netns, 10);
    daemon.until("all resets", |lines| sent_from(lines, &ports) == 10);
    let (lines, errors) = daemon.end();
    assert!(errors.contains("nothing lost"), "{errors}");
    assert_eq!(lines.last().unwrap()["agent"]["action"], "stop");
    let ids = ids(&lines);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "no id twice");
    assert_eq!(ids, self::ids(&lines_of(&home.path("resets.jsonl"))));
    // Lines of one request are sorted by time, so the order may be another.
    assert_eq!(server.ids(), ids.into_iter().collect());
    server.with(|loki| assert_eq!(loki.broken, Vec::<String>::new()));
}

fn chaos_with_loki() {
    chaos(Loki::default(), loki);
}

fn chaos_with_splunk() {
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(token.path(), "secret").unwrap();
    let splunk = Splunk { token: "secret".to_owned(), acknowledges: true, asked_before_true: 2, ..Splunk::default() };
    let configuration = |url: &str| {
        format!(
            "[sinks.remote]\ntype = \"splunk\"\nurl = \"{url}\"\ntoken = {{ file = \"{}\" }}\nacknowledge = true\n\
             acknowledge_within = \"2s\"\n{QUICK}",
            token.path().display()
        )
    };
    chaos(splunk, configuration);
}

fn chaos_with_otlp() {
    let configuration = |url: &str| format!("[sinks.remote]\ntype = \"otlp\"\nurl = \"{url}\"\n{QUICK}");
    chaos(Otlp::default(), configuration);
}

/// The agent is killed in each trouble that a server can have. What it had taken arrives in the end, some of it twice.
fn chaos<R: Rules>(rules: R, sink: impl Fn(&str) -> String) {
    let (home, netns) = (Home::new(), Netns::new());
    let server = netns.run(|| Server::start(rules));
    home.configure(&[STDOUT, &sink(&server.url())].concat());
    let mut taken = BTreeSet::new();
    let troubles = [
        Trouble::None,
        Trouble::Silence,
        Trouble::Status(429, Some("1".to_owned())),
        Trouble::HalfAnswer,
        Trouble::status(503),
        Trouble::Close,
    ];
    for (round, trouble) in troubles.into_iter().enumerate() {
        server.set_trouble(trouble.clone());
        let daemon = Daemon::start(&home, &netns);
        let ports = resets(&netns, 30);
        // Another moment in each round: not yet everything written, everything written, some of it sent.
        daemon.until("some resets", |lines| sent_from(lines, &ports) >= 5 + 5 * round);
        std::thread::sleep(Duration::from_millis(37 * round as u64));
        daemon.kill();
        let before = taken.len();
        taken.extend(ids(&spooled(&home.path("spool").join("remote"))));
        taken.extend(server.ids());
        assert!(taken.len() > before, "{trouble:?}: nothing was taken");
    }
    // The server is restarted as well, while an agent sends.
    server.set_trouble(Trouble::None);
    let daemon = Daemon::start(&home, &netns);
    let server = netns.run(move || {
        let mut server = server;
        server.restart(Duration::from_millis(200));
        server
    });
    let began = Instant::now();
    while !taken.is_subset(&server.ids()) {
        let missing = taken.difference(&server.ids()).count();
        assert!(began.elapsed() < patience(), "{missing} of {} are missing: {}", taken.len(), daemon.errors());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (lines, _) = daemon.end();
    assert!(lines.iter().all(|line| line["type"] != "lost"), "{lines:#?}");
    let (all, unique) = (server.with(|rules| rules.ids().len()), server.ids().len());
    println!("{} lines taken, {unique} delivered, {} of them again", taken.len(), all - unique);
    server.with(|rules| assert_eq!(rules.broken(), Vec::<String>::new()));
}

fn reload() {
    let (home, netns) = (Home::new(), Netns::new());
    let (one, other) = (home.path("one.jsonl"), home.path("other.jsonl"));
    home.configure(&[STDOUT, &file("file", &one)].concat());
    let daemon = Daemon::start(&home, &netns);
    let mut ports = resets(&netns, 20);
    home.configure(&[STDOUT, &file("file", &other)].concat());
    daemon.signal(libc::SIGHUP);
    // Some come before it is done, some while, some after.
    ports.extend(resets(&netns, 40));
    daemon.until("all resets", |lines| sent_from(lines, &ports) == 60);
    assert!(daemon.errors().contains("file changed"), "{}", daemon.errors());
    // Now without a signal.
    home.configure(STDOUT);
    let began = Instant::now();
    while !daemon.errors().contains("file removed") {
        assert!(began.elapsed() < patience(), "the change was not noticed: {}", daemon.errors());
        std::thread::sleep(Duration::from_millis(50));
    }
    let (lines, errors) = daemon.end();
    assert!(errors.contains("nothing lost"), "{errors}");
    let (one, other) = (lines_of(&one), lines_of(&other));
    assert!(!one.is_empty() && !other.is_empty(), "{} {}", one.len(), other.len());
    let both = [one, other].concat();
    assert_eq!(sent_from(&both, &ports), 60);
    assert_eq!(ids(&both), ids(&lines)[..both.len()], "each line once, in order");
}

fn wrong_reload() {
    let (home, netns) = (Home::new(), Netns::new());
    home.configure(STDOUT);
    let daemon = Daemon::start(&home, &netns);
    home.configure("[sinks.console]\ntype = \"stdout\"\nfliter = {}\n");
    daemon.signal(libc::SIGHUP);
    let began = Instant::now();
    while !daemon.errors().contains("the old one stays in use") {
        assert!(began.elapsed() < patience(), "{}", daemon.errors());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(daemon.errors().contains("did you mean `filter`"), "{}", daemon.errors());
    let ports = resets(&netns, 3);
    daemon.until("all resets", |lines| sent_from(lines, &ports) == 3);
    daemon.end();
}

fn wrong_configuration() {
    let home = Home::new();
    let missing = home.output();
    home.configure("[agent]\nconection = 1\n[sinks.a]\ntype = \"stdout\"\n");
    let misspelt = home.output();
    home.configure("");
    let empty = home.output();
    for (output, words) in [
        (missing, ["cannot read", "--config"]),
        (misspelt, ["conection", "connections"]),
        (empty, ["no sink", "[sinks."]),
    ] {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{stderr}");
        assert!(output.stdout.is_empty());
    }
}

fn full_disk() {
    let (home, netns) = (Home::new(), Netns::new());
    let spools = home.path("spool");
    let disk = Disk::mount(&spools, 256);
    let server = loki_in(&netns);
    server.set_trouble(Trouble::status(503));
    home.configure(&[STDOUT, &loki(&server.url())].concat());
    let daemon = Daemon::start(&home, &netns);
    disk.fill();
    let mut ports = resets(&netns, 30);
    let began = Instant::now();
    while !daemon.errors().contains("cannot write its spool: No space left") {
        assert!(began.elapsed() < patience(), "{}", daemon.errors());
        ports.extend(resets(&netns, 1));
    }
    daemon.until("all resets", |lines| sent_from(lines, &ports) == ports.len());
    // From memory, with the disk still full.
    server.set_trouble(Trouble::None);
    let delivered = |ports: &[u16]| server.with(|loki| sent_from(&loki.lines, ports)) >= ports.len();
    daemon.until("delivery with a full disk", |_| delivered(&ports));
    disk.free();
    ports.extend(resets(&netns, 5));
    daemon.until("delivery with room again", |_| delivered(&ports));
    let (lines, errors) = daemon.end();
    assert!(errors.contains("works again"), "{errors}");
    assert!(lines.iter().all(|line| line["type"] != "lost"), "{lines:#?}");
}

fn refused() {
    let (home, netns) = (Home::new(), Netns::new());
    let server = loki_in(&netns);
    server.set_trouble(Trouble::status(401));
    home.configure(&[STDOUT, &loki(&server.url())].concat());
    let daemon = Daemon::start(&home, &netns);
    let ports = resets(&netns, 3);
    daemon.until("the reason", |_| {
        let errors = daemon.errors();
        errors.contains("the server answers 401") && errors.contains("stopped until the configuration changes")
    });
    server.set_trouble(Trouble::None);
    home.configure(&[STDOUT, &loki(&server.url()), "tenant = \"shop\"\n"].concat());
    daemon.signal(libc::SIGHUP);
    daemon.until("delivery", |_| server.with(|loki| sent_from(&loki.lines, &ports)) == ports.len());
    daemon.end();
}
