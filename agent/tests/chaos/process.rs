//! A process of a trial, its output in a file. None outlives the trial.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::netns::Netns;

/// How long anything may take that is not about a sink.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// A running process.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it in the namespace.
    pub fn start(netns: &Netns, mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log can be written");
        let errors = file.try_clone().expect("a second descriptor");
        let child = netns.run(move || {
            let program = command.get_program().to_owned();
            let started = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
            started.unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()))
        });
        Self { child, log: log.to_owned() }
    }

    /// Waits until it has brought something about.
    #[track_caller]
    pub fn until(&mut self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "it ended instead of {what} ({ended:?}); it says: {}", self.said());
            assert!(began.elapsed() < PATIENCE, "not in time: {what}; it says: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so its pid is its own.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Asks it to end and waits until it has.
    pub fn end(mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end; it says: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything that it and its predecessors with the same log said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// A real program, which `cargo xtask sinks` has unpacked and names in the environment, with the folders of its libraries.
pub fn real(variable: &str) -> Command {
    let path = std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} names no program: start this as `cargo xtask sinks`"));
    let mut command = Command::new(path);
    if let Some(libraries) = std::env::var_os(format!("{variable}_LIBRARIES")).filter(|folders| !folders.is_empty()) {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}
