//! One `rstscope trace`, started and stopped by a test.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{netns::Netns, schema};

/// Whether this machine is an emulated one: 20 to 30 times slower, so that tests make less load and wait longer.
static SLOW: LazyLock<bool> = LazyLock::new(|| std::env::var_os("RSTSCOPE_SLOW_MACHINE").is_some());

/// See [`SLOW`].
pub fn is_slow() -> bool {
    *SLOW
}

/// How long to wait for a line before the test fails.
pub fn patience() -> Duration {
    Duration::from_secs(if *SLOW { 120 } else { 20 })
}

/// A time in which this machine gets something short done for sure: five times as long on a slow one.
pub fn at_leisure(time: Duration) -> Duration {
    if *SLOW { time * 5 } else { time }
}

/// So many of what makes load: a twentieth on a slow machine.
pub fn scaled(count: usize) -> usize {
    if *SLOW { count / 20 } else { count }
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The program under test: the one this test was built with, unless the environment names another.
pub fn program() -> PathBuf {
    std::env::var_os("RSTSCOPE_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_rstscope")), PathBuf::from)
}

/// A name no other agent of this run has.
pub fn instance() -> String {
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Where one kind of hook was asked for, by the variable that the agent reads as well, it is used.
fn assert_forced(start: &Value) {
    let asked = std::env::var("RSTSCOPE_HOOKS").unwrap_or_default();
    let own = match asked.as_str() {
        "fentry" => &["fentry", "fexit"][..],
        "kprobe" => &["kprobe", "kretprobe"],
        "tracepoint" => &[],
        _ => return,
    };
    let hooks = start["agent"]["hooks"].as_array().expect("the start line names the hooks");
    let flavours: Vec<&str> = hooks.iter().filter_map(|hook| hook["flavour"].as_str()).collect();
    let functions = flavours.iter().filter(|flavour| **flavour != "raw tracepoint");
    assert_eq!(functions.clone().count() == 0, own.is_empty(), "{asked}: {start}");
    assert!(functions.into_iter().all(|flavour| own.contains(flavour)), "{asked}: {start}");
}

/// A running agent.
pub struct Agent {
    child: Child,
    lines: Receiver<Value>,
    seen: Vec<Value>,
    /// Its first line.
    start: Value,
    /// What this kernel does not show, as the agent says it.
    unseen: Vec<String>,
    stderr: Option<JoinHandle<String>>,
    instance: String,
}

impl Agent {
    /// Starts `rstscope trace` with `flags` and waits until it has attached.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_in(flags, || {})
    }

    /// The same from a thread of its own that has done `prepare`: left a namespace, given up rights.
    pub fn start_in(flags: &[&str], prepare: impl FnOnce() + Send + 'static) -> Self {
        let instance = instance();
        let mut command = Command::new(program());
        command
            .args(["trace", "--output", "json", "--facts", "--instance", &instance])
            .args(flags)
            // A cluster of this machine's user has nothing to say about the test's pods.
            .env_remove("KUBERNETES_SERVICE_HOST")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let spawned = std::thread::spawn(move || {
            prepare();
            command.spawn()
        });
        let mut child = spawned.join().expect("prepared").expect("rstscope starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut errors = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let line = line.expect("lines are UTF-8");
                let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).expect("stderr is UTF-8");
            text
        });
        let (seen, unseen) = (Vec::new(), Vec::new());
        let mut agent = Self { child, lines, seen, start: Value::Null, unseen, stderr: Some(stderr), instance };
        let Some(start) = agent.next(patience()) else {
            agent.child.kill().expect("the agent can be killed");
            let stderr = agent.stderr.take().expect("not stopped yet").join().expect("stderr was read");
            panic!("rstscope does not say that it has started; it says: {stderr}");
        };
        assert_eq!(start["type"], "agent", "{start}");
        assert_eq!(start["agent"]["action"], "start", "{start}");
        let unseen = start["agent"]["unseen"].as_array().map_or(&[][..], Vec::as_slice);
        assert_forced(&start);
        agent.unseen = unseen.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        agent.start = start;
        agent
    }

    /// The agent's process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Runs something while the agent stands still, so that it gets to all of it at once and late.
    ///
    /// The signal wakes one of its threads, which stops the others once it gets to run: only then it stands still.
    pub fn stopped<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        self.signal(libc::SIGSTOP);
        let deadline = Instant::now() + patience();
        while !stands_still(self.pid()) {
            assert!(Instant::now() < deadline, "the agent does not stop");
            sleep(Duration::from_millis(1));
        }
        let result = meanwhile();
        self.signal(libc::SIGCONT);
        result
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the agent is this program's child and has not been waited for, so the id is its own.
        let sent = unsafe { libc::kill(self.pid(), signal) };
        assert_eq!(sent, 0, "the agent is gone: {}", std::io::Error::last_os_error());
    }

    fn next(&mut self, patience: Duration) -> Option<Value> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => {
                schema::check(&line);
                Some(line)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Drops every line that has come, after a look at its form. Fails if the agent has ended.
    pub fn forget(&mut self) {
        let ended = self.child.try_wait().expect("the agent can be waited for");
        assert!(ended.is_none(), "the agent has ended: {ended:?}");
        self.seen.clear();
        while self.next(Duration::ZERO).is_some() {}
    }

    /// Waits for a line that `wanted` accepts. Lines that came before stay available to later calls.
    ///
    /// Whatever a test provokes, the kernel's own reason for it must not contradict the cause.
    #[track_caller]
    pub fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let line = self.next_wanted(what, wanted);
        crate::expect::absent(&line, "/cause/evidence/kernel_reason_disagrees");
        line
    }

    #[track_caller]
    fn next_wanted(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(index) = self.seen.iter().position(&wanted) {
            return self.seen.remove(index);
        }
        let deadline = Instant::now() + patience();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match self.next(left) {
                Some(line) if wanted(&line) => return line,
                Some(line) => self.seen.push(line),
                None => break,
            }
        }
        panic!(
            "no line for: {what}\nseen were:\n{}it was stopped, and then said:\n{}",
            shown(&self.seen),
            self.last_words()
        );
    }

    /// What it still says when it is stopped, whatever that is, and standard error: for a test that fails.
    fn last_words(&mut self) -> String {
        self.interrupt();
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(patience()) {
            rest.push(line);
        }
        // Past the time it is given it has not ended, and neither has its standard error.
        let ended = self.child.try_wait().ok().flatten().is_some();
        let stderr = self.stderr.take().filter(|_| ended).and_then(|stderr| stderr.join().ok());
        shown(&rest) + &stderr.unwrap_or_default()
    }

    fn interrupt(&self) {
        self.signal(libc::SIGINT);
    }

    /// Waits for the reset of this direction with this port at the local end, in this namespace.
    #[track_caller]
    pub fn reset(&mut self, netns: &Netns, direction: &str, local_port: u16) -> Value {
        let inode = netns.inode();
        self.wait(&format!("reset {direction} with local port {local_port}"), |line| {
            line["type"] == "reset"
                && line["reset"]["direction"] == direction
                && line["local"]["port"] == local_port
                && line["local"]["netns"] == inode
        })
    }

    /// The same for a reset that no full socket sends, unless the agent said that this kernel does not show those: then
    /// it must not make one up, which [`Self::nothing_more`] asserts.
    #[track_caller]
    pub fn reset_without_socket(&mut self, netns: &Netns, local_port: u16) -> Option<Value> {
        self.sees_every_sender().then(|| self.reset(netns, "sent", local_port))
    }

    /// Its first line.
    pub const fn start_line(&self) -> &Value {
        &self.start
    }

    /// Whether resets sent without a socket are seen.
    pub fn sees_every_sender(&self) -> bool {
        !self.unseen.iter().any(|sentence| sentence.starts_with("resets sent without a socket"))
    }

    /// Whether this kernel names its reasons for a reset.
    pub fn has_reasons(&self) -> bool {
        !self.unseen.iter().any(|sentence| sentence.starts_with("the kernel's own reset reason"))
    }

    /// Whether the process that accepts a connection is known before it reads.
    pub fn sees_acceptors(&self) -> bool {
        !self.unseen.iter().any(|sentence| sentence.starts_with("the process that accepts a connection"))
    }

    /// Waits for the failed connect to this port, in this namespace.
    #[track_caller]
    pub fn connect_failure(&mut self, netns: &Netns, peer_port: u16) -> Value {
        let inode = netns.inode();
        self.wait(&format!("connect failure to port {peer_port}"), |line| {
            line["type"] == "connect_failure" && line["peer"]["port"] == peer_port && line["local"]["netns"] == inode
        })
    }

    /// Everything about this namespace that arrives within `time` and was not asked for yet.
    pub fn rest(&mut self, netns: &Netns, time: Duration) -> Vec<Value> {
        let inode = netns.inode();
        let (own, other) = self.everything(time).into_iter().partition(|line| line["local"]["netns"] == inode);
        self.seen = other;
        own
    }

    /// Every line that arrives within `time` and was not asked for yet, of any namespace.
    pub fn everything(&mut self, time: Duration) -> Vec<Value> {
        let deadline = Instant::now() + time;
        let mut lines = std::mem::take(&mut self.seen);
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let Some(line) = self.next(left) else { break };
            lines.push(line);
        }
        lines
    }

    /// Fails if anything more about this namespace arrives within 400 ms, four times as long as lines are held back. (Those
    /// of an end that certainly has a sender here wait longer for it, and a test that expects one waits for it by name.)
    ///
    /// Apart from the aftermath of a close: where two ends are dropped one right after the other, the FIN of the second may
    /// cross the reset of the first, and is answered by one more.
    pub fn nothing_more(&mut self, netns: &Netns) {
        let mut rest = self.rest(netns, Duration::from_millis(400));
        rest.retain(|line| line["cause"]["code"] != "close_aftermath");
        assert!(rest.is_empty(), "one event too many: {rest:#?}");
    }

    /// Kills it without warning.
    pub fn kill(mut self) {
        self.child.kill().expect("the agent can be killed");
        self.child.wait().expect("the agent has ended");
    }

    /// Sends SIGINT, as Ctrl-C does, and returns every remaining line and standard error.
    pub fn stop(mut self) -> (Vec<Value>, String) {
        self.interrupt();
        let mut rest = std::mem::take(&mut self.seen);
        while let Some(line) = self.next(patience()) {
            rest.push(line);
        }
        let status = self.child.wait().expect("the agent has ended");
        let stderr = self.stderr.take().expect("stopped once").join().expect("stderr was read");
        assert!(status.success(), "{status}: {stderr}");
        (rest, stderr)
    }
}

/// Whether every thread of a process is stopped: `T` in proc_pid_stat(5).
fn stands_still(pid: i32) -> bool {
    let Ok(threads) = procfs::process::Process::new(pid).and_then(|process| process.tasks()) else { return false };
    threads.flatten().all(|thread| thread.stat().is_ok_and(|stat| stat.state == 'T'))
}

/// Lines as they were written.
fn shown(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
        let _gone = std::fs::remove_file(format!("/run/rstscope-{}.lock", self.instance));
    }
}
