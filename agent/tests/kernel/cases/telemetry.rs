//! The agent about itself: metrics that agree with the lines, and probes.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::sinks::resets;
use crate::{
    Case,
    agent::patience,
    daemon::{Daemon, Home},
    netns::Netns,
    servers::{
        http::{Server, Trouble},
        loki::Loki,
    },
};

pub const CASES: &[Case] = &[
    ("metrics_count_what_the_lines_say", metrics),
    ("metrics_show_a_sink_in_trouble", sink_in_trouble),
    ("an_address_in_use_for_metrics_is_one_sentence", in_use),
];

/// In the test's network namespace, where nobody else listens.
const LISTEN: &str = "127.0.0.1:9464";

/// Status and body.
fn get(netns: &Netns, path: &str, accept: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    let answer = netns.run(move || {
        let mut stream = TcpStream::connect(LISTEN).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Every series with its value.
fn series(netns: &Netns) -> BTreeMap<String, f64> {
    let (status, text) = get(netns, "/metrics", "application/openmetrics-text; version=1.0.0");
    assert_eq!(status, 200, "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let read = |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
    samples.map(|line| read(line).unwrap()).collect()
}

fn until(what: &str, daemon: &Daemon, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < patience(), "not in time: {what}; it says: {}", daemon.errors());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the lines say, as the metric would.
fn counted(lines: &[Value], direction: &str) -> f64 {
    lines.iter().filter(|line| line["reset"]["direction"] == direction && line["type"] == "reset").count() as f64
}

fn sum(series: &BTreeMap<String, f64>, metric: &str, label: &str) -> f64 {
    let wanted = |name: &str| name.starts_with(metric) && name.contains(label);
    series.iter().filter(|(name, _)| wanted(name)).map(|(_, value)| value).sum()
}

fn metrics() {
    let (home, netns) = (Home::new(), Netns::new());
    let agent = format!("[agent]\nlisten = \"{LISTEN}\"\nprogram_stats = true\n");
    home.configure(&[&agent, "[sinks.console]\ntype = \"stdout\"\n"].concat());
    let daemon = Daemon::start(&home, &netns);
    assert_eq!(get(&netns, "/livez", "*/*"), (200, "[+]reader ok\n[+]pipeline ok\n".to_owned()));
    until("readiness", &daemon, || get(&netns, "/readyz", "*/*").0 == 200);
    resets(&netns, 25);
    daemon.until("all resets", |lines| counted(lines, "sent") >= 25.0 && counted(lines, "received") >= 25.0);
    // Connections of others on this machine are counted as well, in both.
    let mut now = BTreeMap::new();
    until("metrics that agree with the lines", &daemon, || {
        now = series(&netns);
        let lines = daemon.lines();
        ["sent", "received"].into_iter().all(|direction| {
            sum(&now, "rstscope_resets_total{", &format!("direction=\"{direction}\"")) == counted(&lines, direction)
        })
    });
    let is = |name: &str, least: f64| {
        assert!(now.get(name).is_some_and(|value| *value >= least), "{name} is not {least} or more: {now:#?}");
    };
    is("rstscope_ready", 1.0);
    is("rstscope_sink_lines_total{sink=\"console\"}", 50.0);
    is("process_resident_memory_bytes", 1e6);
    is("rstscope_queue_limit_lines", 1.0);
    assert!(sum(&now, "rstscope_hooks{", "") >= 4.0, "{now:#?}");
    assert!(sum(&now, "rstscope_attributions_total{", "what=\"process\"") >= 50.0, "{now:#?}");
    until("runs of programs", &daemon, || {
        let now = series(&netns);
        sum(&now, "rstscope_program_runs_total{", "") > 100.0
            && sum(&now, "rstscope_program_run_seconds_total{", "") > 0.0
    });
    let (_, older) = get(&netns, "/metrics", "*/*");
    assert!(older.contains("# TYPE rstscope_resets_total counter\n") && !older.contains("# EOF"), "{older}");
    daemon.end();
}

fn sink_in_trouble() {
    let (home, netns) = (Home::new(), Netns::new());
    let server = netns.run(|| Server::start(Loki::default()));
    server.set_trouble(Trouble::Status(503, None));
    home.configure(&format!(
        "[agent]\nlisten = \"{LISTEN}\"\n[sinks.console]\ntype = \"stdout\"\n[sinks.remote]\ntype = \"loki\"\n\
         url = \"{}\"\nretry = {{ first = \"50ms\", most = \"100ms\" }}\nbatch = {{ wait = \"50ms\" }}\n",
        server.url()
    ));
    let daemon = Daemon::start(&home, &netns);
    resets(&netns, 10);
    let of = |name: &str| series(&netns).get(name).copied();
    until("trouble", &daemon, || {
        of("rstscope_sink_failing{sink=\"remote\"}") == Some(1.0)
            && of("rstscope_spool_lines{sink=\"remote\"}").is_some_and(|lines| lines >= 20.0)
    });
    assert!(of("rstscope_sink_requests_total{sink=\"remote\",outcome=\"retried\"}").is_some_and(|count| count > 0.0));
    assert_eq!(of("rstscope_sink_last_delivery_timestamp_seconds{sink=\"remote\"}"), None);
    assert_eq!(of("rstscope_spool_on_disk{sink=\"remote\"}"), Some(1.0));
    assert_eq!(get(&netns, "/readyz", "*/*").0, 200, "no sink makes the agent unready");
    server.set_trouble(Trouble::None);
    until("its end", &daemon, || {
        of("rstscope_sink_failing{sink=\"remote\"}") == Some(0.0)
            && of("rstscope_spool_lines{sink=\"remote\"}") == Some(0.0)
    });
    assert!(of("rstscope_sink_lines_total{sink=\"remote\"}").is_some_and(|count| count >= 20.0));
    assert!(of("rstscope_sink_last_delivery_timestamp_seconds{sink=\"remote\"}").is_some_and(|time| time > 1e9));
    // A configuration that is not taken shows until one is.
    assert_eq!(of("rstscope_configuration_last_reload_success"), Some(1.0));
    home.configure("[sinks.console]\ntype = \"sdtout\"\n");
    daemon.signal(libc::SIGHUP);
    until("the refused configuration", &daemon, || of("rstscope_configuration_last_reload_success") == Some(0.0));
    assert_eq!(of("rstscope_configuration_reloads_total{outcome=\"refused\"}"), Some(1.0));
    daemon.end();
}

fn in_use() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    home.configure(&format!("[agent]\nlisten = \"{address}\"\n[sinks.console]\ntype = \"stdout\"\n"));
    let output = home.output();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains(&address.to_string()) && stderr.contains("--listen"), "{stderr}");
}
