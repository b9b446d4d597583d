//! One `rstscope trace`, whose lines a story looks at.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::process::bound_to_us;

/// How long it may take to attach: a busy kernel takes its time to let programs in.
const START: Duration = Duration::from_secs(60);
/// How long to wait for a line. The agent sees the whole machine, and what goes on elsewhere comes before.
const PATIENCE: Duration = Duration::from_secs(30);
/// After this time nothing more comes: four times as long as any line is held back.
const QUIET: Duration = Duration::from_millis(400);

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    lines: Receiver<Value>,
    seen: Vec<Value>,
    namespace: u64,
}

impl Agent {
    /// Starts it with these flags and waits until it has attached. It sees the whole machine unless a flag says
    /// otherwise; only lines of the namespace are looked at.
    pub fn start(rstscope: &Path, namespace: u64, flags: &[&str]) -> Result<Self> {
        let instance = instance();
        let mut child = bound_to_us(rstscope)
            .args(["trace", "--output", "json", "--facts", "--instance", &instance])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run rstscope")?;
        let output = child.stdout.take().context("rstscope has no standard output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else {
                    eprintln!("rstscope printed what is no JSON: {line}");
                    continue;
                };
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let mut agent = Self { child, lines, seen: Vec::new(), namespace };
        agent.wait_for(START, "the `agent` line of the start", |line| line["agent"]["action"] == "start")?;
        Ok(agent)
    }

    /// The reset of this direction between these two ports.
    pub fn reset(&mut self, direction: &str, local: u16, peer: u16) -> Result<Value> {
        let namespace = self.namespace;
        self.wait(&format!("a reset {direction} with local port {local} and peer port {peer}"), |line| {
            line["type"] == "reset"
                && line["reset"]["direction"] == direction
                && line["local"]["netns"] == namespace
                && line["local"]["port"] == local
                && line["peer"]["port"] == peer
        })
    }

    /// The reset of this direction at the end of a process, on a connection with this port at either end.
    pub fn reset_of(&mut self, direction: &str, process: &str, port: u16) -> Result<Value> {
        let namespace = self.namespace;
        self.wait(&format!("a reset {direction} by {process} on a connection with port {port}"), |line| {
            line["type"] == "reset"
                && line["reset"]["direction"] == direction
                && line["local"]["netns"] == namespace
                && line["local"]["process"]["comm"] == process
                && (line["local"]["port"] == port || line["peer"]["port"] == port)
        })
    }

    /// The failed connect to this port.
    pub fn connect_failure(&mut self, port: u16) -> Result<Value> {
        let namespace = self.namespace;
        self.wait(&format!("a failed connect to port {port}"), |line| {
            line["type"] == "connect_failure" && line["local"]["netns"] == namespace && line["peer"]["port"] == port
        })
    }

    /// Every line about a connection with this port at either end that nobody has asked for yet.
    pub fn about(&mut self, port: u16) -> Vec<Value> {
        let deadline = Instant::now() + QUIET;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(_) => break,
            }
        }
        let namespace = self.namespace;
        let is_about = |line: &&Value| {
            line["local"]["netns"] == namespace && (line["local"]["port"] == port || line["peer"]["port"] == port)
        };
        self.seen.iter().filter(is_about).cloned().collect()
    }

    /// Kills it, if that was not done before.
    pub fn end(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // Ended since is as good.
            let _ended = self.child.kill();
            let _waited = self.child.wait();
            forget_instance();
        }
    }

    fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.wait_for(PATIENCE, what, wanted)
    }

    /// Waits for a line and takes it out. Others that come stay available.
    fn wait_for(&mut self, patience: Duration, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        if let Some(index) = self.seen.iter().position(&wanted) {
            return Ok(self.seen.remove(index));
        }
        let deadline = Instant::now() + patience;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match self.lines.recv_timeout(left) {
                Ok(line) if wanted(&line) => return Ok(line),
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => bail!("rstscope ended instead of printing a line for {what}"),
            }
        }
        let mut seen = String::new();
        for line in self.seen.iter().filter(|line| line["local"]["netns"] == self.namespace) {
            write!(seen, "\n{line}").context("writing to a string")?;
        }
        if seen.is_empty() {
            seen.push_str(" none");
        }
        let lost = self.seen.iter().filter(|line| line["type"] == "lost").count();
        let all = self.seen.len() - lost;
        bail!(
            "rstscope printed no line for {what}, among {all} lines about the whole machine and {lost} about losses; \
             lines about this story:{seen}"
        )
    }
}

/// A name no other agent has.
fn instance() -> String {
    format!("incident-{}", std::process::id())
}

/// Removes the lock file that our agent leaves behind when it is killed.
pub fn forget_instance() {
    // There is none where it did not come to start.
    let _gone = fs::remove_file(format!("/run/rstscope-{}.lock", instance()));
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}
