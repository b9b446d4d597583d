//! The processes of a story. None of them outlives it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::sockets;
use crate::child;
pub use crate::child::bound_to_us;

/// How long a process may take until it is ready. A Java on a busy machine takes its time.
const START: Duration = Duration::from_secs(40);

/// A running process and what it has said.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts it with its output in a file of the folder.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = file.try_clone().context("cannot open a log twice")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot run `{}`", child::shown(command)))?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    /// Starts a server and waits until it listens. Connecting to find out would be a connection too many.
    pub fn serve(name: &str, command: &mut Command, folder: &Path, port: u16) -> Result<Self> {
        let mut process = Self::start(name, command, folder)?;
        process.wait_until(&format!("it to listen on port {port}"), || sockets::listens(port))?;
        Ok(process)
    }

    /// Waits until it has brought something about; what it said tells why it has not.
    pub fn wait_until(&mut self, what: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + START;
        while !done()? {
            let name = &self.name;
            if let Some(status) = self.child.try_wait().context("cannot wait for a process")? {
                bail!("{name} ended ({status}), waiting for {what}; it said:\n{}", self.said());
            }
            if Instant::now() > deadline {
                bail!("{name}: waited {} s in vain for {what}; it said:\n{}", START.as_secs(), self.said());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its process id: a program started by way of [`bound_to_us`] keeps the id it was started with.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, given by name.
    pub fn signal(&self, name: &str) -> Result<()> {
        let mut command = kill(name, &[self.pid()]);
        if !child::succeeds(&mut command) {
            bail!("{} has ended; it said:\n{}", self.name, self.said());
        }
        Ok(())
    }

    /// Stops it, and returns when every one of its threads stands still: the signal wakes only one of them, which stops the
    /// others once it gets to run, and until then they may take what is sent to them.
    pub fn stop(&self) -> Result<()> {
        self.signal("STOP")?;
        let deadline = Instant::now() + START;
        while !stands_still(self.pid()) {
            if Instant::now() > deadline {
                bail!("{} did not stop within {} s", self.name, START.as_secs());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Lets it go on.
    pub fn go_on(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// The last lines of what it said.
    fn said(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let below = descendants(self.child.id());
        // Already ended is as good.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
        if !below.is_empty() {
            child::succeeds(&mut kill("KILL", &below));
        }
    }
}

/// Every shell has `kill`; std has none, and not every machine has a program of that name.
fn kill(signal: &str, processes: &[u32]) -> Command {
    let mut command = Command::new("sh");
    let ids = processes.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    command.args(["-c", &format!("kill -{signal} {ids}")]);
    command
}

/// The children of a process and theirs, such as the workers of a server.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for thread in threads {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
            found.push(child);
            found.extend(descendants(child));
        }
    }
    found
}

/// Whether every thread of a process is stopped: `T` in proc_pid_stat(5), behind a name that may hold anything.
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workers_of_a_process_are_found() {
        let mut child = Command::new("sh").args(["-c", "sleep 30 & wait"]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while descendants(child.id()).is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let below = descendants(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(below.len(), 1);
        assert!(child::succeeds(&mut kill("KILL", &below)));
    }

    #[test]
    fn a_process_that_is_stopped_does_nothing_more() {
        let folder = std::env::temp_dir().join(format!("xtask-stopped-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let counts = "i=0; while :; do i=$((i + 1)); echo $i; done";
        let process = Process::start("counter", Command::new("sh").args(["-c", counts]), &folder).unwrap();
        let written = || fs::metadata(folder.join("counter.log")).unwrap().len();
        process.stop().unwrap();
        let until_then = written();
        thread::sleep(Duration::from_millis(50));
        assert_eq!(written(), until_then);

        process.go_on().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while written() == until_then {
            assert!(Instant::now() < deadline, "it does not go on");
            thread::sleep(Duration::from_millis(1));
        }
        drop(process);
        fs::remove_dir_all(&folder).unwrap();
    }
}
