//! A sink as the agent runs it, fed with made-up lines.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};

use rstscope::{
    config::{Configuration, overrides::Overrides},
    sinks::{account::Account, outputs::Line, running::Running},
};
use serde_json::json;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The section of a sink of this type that is in no mood to wait.
pub fn configuration(kind: &str, url: &str, more: &str) -> String {
    patient(kind, url, "500ms", more)
}

/// The same of one that gives each request this time.
pub fn patient(kind: &str, url: &str, timeout: &str, more: &str) -> String {
    format!(
        "[sinks.{kind}]\ntype = \"{kind}\"\nurl = \"{url}\"\nretry = {{ first = \"50ms\", most = \"200ms\" }}\n\
         http.timeout = \"{timeout}\"\nbatch = {{ lines = 50, wait = \"20ms\" }}\n{more}"
    )
}

/// The key with Splunk's token, which is "secret" in these tests.
pub fn token(folder: &Path) -> String {
    let path = folder.join("token");
    std::fs::write(&path, "secret\n").unwrap();
    format!("token = {{ file = \"{}\" }}\n", path.display())
}

/// A running sink.
pub struct Feed {
    lines: SyncSender<Line>,
    pub account: Arc<Account>,
    running: Running,
    next: u64,
    name: String,
}

impl Feed {
    /// Starts the one sink that this configuration has.
    pub fn start(name: &str, configuration: &str, spools: &Path) -> Self {
        let configuration = Configuration::parse(configuration, &Overrides::default()).unwrap();
        let (sink, settings) = configuration.sinks.first_key_value().unwrap();
        let (lines, receiver) = std::sync::mpsc::sync_channel(1000);
        let account = Arc::new(Account::default());
        let running = settings.start(sink, spools, None, receiver, Arc::clone(&account)).unwrap();
        Self { lines, account, running, next: 0, name: name.to_owned() }
    }

    /// Makes so many lines with this in them; returns their ids.
    pub fn send(&mut self, count: u64, text: &str) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        for _ in 0..count {
            let id = format!("{}-{}", self.name, self.next);
            self.next += 1;
            let time = format!("{:.9}", jiff::Timestamp::now());
            let line = json!({
                "schema": "rstscope.v1", "id": id, "time": time, "type": "reset", "node": "n1",
                "cause": { "code": "unknown", "summary": text }, "local": { "ip": "10.0.0.1", "port": 80 },
            });
            self.lines.send(Line::from(line.to_string().into_bytes())).unwrap();
            ids.insert(id);
        }
        ids
    }

    /// Ends it; it has so long to hand on what it has.
    pub fn end(self, grace: Duration) {
        self.running.orders.end_by(Instant::now() + grace);
        drop(self.lines);
        self.running.wait().unwrap();
    }
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
