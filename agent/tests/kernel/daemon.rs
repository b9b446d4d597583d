//! One `rstscope run`, started, killed and ended by a test.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Instant,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    agent::{instance, patience, program},
    netns::Netns,
    schema,
};

/// Its folder: the configuration, the spools, and whatever sinks write.
pub struct Home {
    folder: TempDir,
    instance: String,
}

impl Home {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), instance: instance() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As an editor or Kubernetes does it: a new file in the place of the old one.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.path("new"), text).expect("a file can be written");
        std::fs::rename(self.path("new"), self.path("rstscope.toml")).expect("a file can be replaced");
    }

    /// Runs it, as [`Daemon::start`] does.
    pub fn command(&self) -> Command {
        let mut command = Command::new(program());
        command.arg("run").arg("--config").arg(self.path("rstscope.toml")).arg("--spool").arg(self.path("spool"));
        command.args(["--instance", &self.instance]);
        command
    }

    /// Runs it to its end, which is expected to come at once.
    pub fn output(&self) -> Output {
        self.command().output().expect("rstscope starts")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(format!("/run/rstscope-{}.lock", self.instance));
    }
}

/// A running one, whose configuration has a sink on standard output.
pub struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Daemon {
    /// Starts it in `netns`, where its servers are, and waits until it has attached.
    pub fn start(home: &Home, netns: &Netns) -> Self {
        let mut command = home.command();
        let mut child =
            netns.run(move || command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rstscope starts"));
        let (stdout, mut errors) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (lines, stderr) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::<Mutex<String>>::default());
        let out = Arc::clone(&lines);
        let read_lines = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let line = line.expect("lines are UTF-8");
                // A kill may cut the last one.
                let Ok(value) = serde_json::from_str(&line) else { continue };
                schema::check(&value);
                out.lock().unwrap().push(value);
            }
        });
        let err = Arc::clone(&stderr);
        let read_errors = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = errors.read(&mut buffer) {
                err.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        let daemon = Self { child, lines, stderr, readers: vec![read_lines, read_errors] };
        daemon.until("its start", |lines| lines.iter().any(|line| line["agent"]["action"] == "start"));
        daemon
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Everything it said on standard output so far.
    pub fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap().clone()
    }

    /// Everything it said on standard error so far.
    pub fn errors(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    #[track_caller]
    pub fn until(&self, what: &str, is_so: impl Fn(&[Value]) -> bool) {
        let began = Instant::now();
        while !is_so(&self.lines()) {
            assert!(began.elapsed() < patience(), "not in time: {what}; it says: {}", self.errors());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so its pid is its own.
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// Kills it without warning.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }

    /// Sends SIGTERM; everything it said, on standard output and standard error.
    pub fn end(mut self) -> (Vec<Value>, String) {
        self.signal(libc::SIGTERM);
        let errors = self.wait();
        check_log(&errors);
        (self.lines(), errors)
    }

    /// Waits until it has ended; everything it said on standard error.
    pub fn wait(&mut self) -> String {
        let status = self.child.wait().expect("it has ended");
        self.readers.drain(..).for_each(|reader| reader.join().expect("it says what the schema allows"));
        assert!(status.success(), "{status}: {}", self.errors());
        self.errors()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// To what is no terminal a daemon says JSON lines; only its summary, the last, is for people.
#[track_caller]
fn check_log(errors: &str) {
    let mut lines: Vec<&str> = errors.lines().collect();
    assert!(lines.pop().is_some_and(|summary| summary.starts_with("rstscope: in ")), "{errors}");
    for line in lines {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {errors}"));
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(["ERROR", "WARN", "INFO"].iter().any(|level| line["level"] == *level), "{line}");
        assert!(line["message"].is_string() && line["target"].is_string(), "{line}");
    }
}

/// The lines of a file that a sink writes.
pub fn lines_of(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}
