//! What `/proc` still says about a process, once it is proved to be the same one.
//!
//! A pid is only a number that is given out again. The start time the kernel side
//! recorded tells whether `/proc/PID` is the process that owned the socket; if it
//! does not match, or was not recorded, nothing of that directory is believed.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use procfs::process::Process;

use super::ProcessClue;
use super::cgroup_path::{self, ContainerRef};
use super::remembered::{KEEP_NAMES, Remembered};

/// How long what was read is used again: one process's resets come in bursts, while
/// an `exec` or a move to another cgroup should show up soon.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A process seldom appears more than once a minute; the rest are bursts.
const MOST_PROCESSES: usize = 4096;

/// A line of `/proc/PID/cgroup` for each of some fifteen hierarchies, each a path.
const MOST_CGROUP_BYTES: u64 = 64 * 1024;

/// What was read of one process; all unknown if it was not to be trusted.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct ProcessFacts {
    /// The executable's path in the process's own mounts, while it goes by the name that was seen.
    pub(super) exe: Option<String>,
    /// Its path in the hierarchy of cgroup v2, as this process's cgroup namespace spells it.
    pub(super) cgroup: Option<String>,
    /// What the best of its cgroups names, in whichever hierarchy.
    pub(super) container: ContainerRef,
}

/// The processes met lately.
pub(super) struct Processes {
    proc_root: PathBuf,
    ns_per_tick: u64,
    seen: Remembered<Identity, ProcessFacts>,
}

/// An `exec` changes the name but not the start time, so the name belongs to it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity {
    pid: u32,
    start_boottime_ns: u64,
    comm: String,
}

impl Processes {
    /// Reads processes below `proc_root`.
    pub(super) fn new(proc_root: PathBuf) -> Self {
        Self {
            proc_root,
            ns_per_tick: 1_000_000_000 / procfs::ticks_per_second().max(1),
            seen: Remembered::new(KEEP_NAMES, MOST_PROCESSES),
        }
    }

    /// What is known about the process of `clue`.
    pub(super) fn look_up(&mut self, clue: &ProcessClue, now: Instant) -> ProcessFacts {
        if clue.start_boottime_ns == 0 {
            return ProcessFacts::default();
        }
        let identity = Identity { pid: clue.pid, start_boottime_ns: clue.start_boottime_ns, comm: clue.comm.clone() };
        if let Some(facts) = self.seen.get_younger(&identity, READ_AGAIN_AFTER, now) {
            return facts.clone();
        }
        let fresh = self.read(clue).unwrap_or_default();
        // An exiting process has lost its executable first, then its cgroup, then
        // its directory: what it was does not become untrue by that.
        let before = self.seen.get(&identity).cloned().unwrap_or_default();
        let facts = ProcessFacts {
            exe: fresh.exe.or(before.exe),
            cgroup: fresh.cgroup.or(before.cgroup),
            container: if fresh.container == ContainerRef::default() { before.container } else { fresh.container },
        };
        self.seen.confirm(identity, facts.clone(), now);
        facts
    }

    /// Forgets processes nobody has asked for in a while.
    pub(super) fn forget(&mut self, now: Instant) {
        self.seen.forget(now);
    }

    fn read(&self, clue: &ProcessClue) -> Option<ProcessFacts> {
        // The open directory stays that process's own, whoever gets the pid next.
        let dir = self.proc_root.join(clue.pid.to_string());
        let process = Process::new_with_root(dir).ok()?;
        let stat = process.stat().ok()?;
        let expected = clue.start_boottime_ns / self.ns_per_tick;
        // One tick for rounding.
        if stat.starttime.abs_diff(expected) > 1 {
            return None;
        }
        let cgroups = read_cgroups(&process).unwrap_or_default();
        Some(ProcessFacts {
            // By another name it may have executed something else since.
            exe: if stat.comm == clue.comm { exe(&process) } else { None },
            cgroup: cgroups.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned),
            container: container_of(&cgroups),
        })
    }
}

fn exe(process: &Process) -> Option<String> {
    let exe = process.exe().ok()?;
    let exe = exe.to_string_lossy();
    // A binary replaced by an upgrade is still known by the name it had.
    Some(exe.strip_suffix(" (deleted)").unwrap_or(&exe).to_owned())
}

/// `/proc/PID/cgroup`, lossily: the workload itself may have named its sub-groups,
/// and one odd byte in a name must not hide the rest.
fn read_cgroups(process: &Process) -> io::Result<String> {
    let file = process.open_relative("cgroup").map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    file.take(MOST_CGROUP_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The container the lines `N:CONTROLLERS:PATH` speak of. The line of cgroup2 goes
/// first; on a v1 or hybrid host it is the root, and some other line names the container.
fn container_of(cgroups: &str) -> ContainerRef {
    let (v2, v1): (Vec<_>, Vec<_>) = cgroups.lines().partition(|line| line.starts_with("0::"));
    let mut best = ContainerRef::default();
    for line in v2.into_iter().chain(v1) {
        let Some(path) = line.splitn(3, ':').nth(2) else {
            continue;
        };
        let found = cgroup_path::parse(path);
        if found.container_id.is_some() {
            return found;
        }
        if best.pod_uid.is_none() {
            best = found;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    const ID: &str = "1f0e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

    fn ourselves() -> ProcessClue {
        let stat = Process::myself().unwrap().stat().unwrap();
        let ns_per_tick = 1_000_000_000 / procfs::ticks_per_second();
        ProcessClue {
            pid: std::process::id(),
            comm: "test".into(),
            // The kernel's own value lies anywhere within the tick.
            start_boottime_ns: stat.starttime * ns_per_tick + ns_per_tick / 2,
        }
    }

    fn system() -> Processes {
        Processes::new(PathBuf::from("/proc"))
    }

    #[test]
    fn the_executable_of_a_living_process() {
        let exe = std::env::current_exe().unwrap();
        let comm = Process::myself().unwrap().stat().unwrap().comm;
        let facts = system().look_up(&ProcessClue { comm, ..ourselves() }, Instant::now());
        assert_eq!(facts.exe.as_deref().map(Path::new), Some(exe.as_path()));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let mut clue = ourselves();
        clue.start_boottime_ns += 30_000_000;
        let facts = system().look_up(&clue, Instant::now());
        assert_eq!(facts, ProcessFacts::default());
    }

    #[test]
    fn an_unknown_start_time_proves_nothing() {
        let mut clue = ourselves();
        clue.start_boottime_ns = 0;
        let facts = system().look_up(&clue, Instant::now());
        assert_eq!(facts, ProcessFacts::default());
    }

    #[test]
    fn processes_that_cannot_be() {
        for (pid, start_boottime_ns) in [(0, 1), (u32::MAX, u64::MAX), (4_194_305, 1)] {
            let clue = ProcessClue { pid, start_boottime_ns, comm: String::new() };
            let facts = system().look_up(&clue, Instant::now());
            assert_eq!(facts, ProcessFacts::default());
        }
    }

    /// A `/proc` with one process, ourselves, whose links and files can be chosen.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new(exe: &str, cgroups: &[u8]) -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            fs::create_dir(fake.dir()).unwrap();
            fake.execute("test");
            symlink(exe, fake.dir().join("exe")).unwrap();
            fs::write(fake.dir().join("cgroup"), cgroups).unwrap();
            fake
        }

        /// Goes by another name from now on.
        fn execute(&self, name: &str) {
            let stat = fs::read_to_string("/proc/self/stat").unwrap();
            let (open, close) = (stat.find('(').unwrap(), stat.rfind(')').unwrap());
            fs::write(self.dir().join("stat"), format!("{}({name}{}", &stat[..open], &stat[close..])).unwrap();
        }

        fn dir(&self) -> PathBuf {
            self.0.path().join(std::process::id().to_string())
        }

        fn processes(&self) -> Processes {
            Processes::new(self.0.path().to_owned())
        }
    }

    #[test]
    fn a_replaced_binary_keeps_its_name() {
        let fake = Fake::new("/usr/bin/app (deleted)", b"");
        let facts = fake.processes().look_up(&ourselves(), Instant::now());
        assert_eq!(facts.exe.as_deref(), Some("/usr/bin/app"));
    }

    #[test]
    fn facts_outlive_the_process() {
        let fake = Fake::new("/usr/bin/app", format!("0::/docker/{ID}\n").as_bytes());
        let mut processes = fake.processes();
        let start = Instant::now();
        let alive = processes.look_up(&ourselves(), start);
        assert!(alive.exe.is_some() && alive.container.container_id.is_some());

        fs::remove_dir_all(fake.dir()).unwrap();
        let later = start + Duration::from_secs(150);
        assert_eq!(processes.look_up(&ourselves(), later), alive);
    }

    #[test]
    fn a_change_shows_up_soon() {
        let fake = Fake::new("/bin/sh", b"");
        let mut processes = fake.processes();
        let start = Instant::now();
        processes.look_up(&ourselves(), start);

        fs::remove_file(fake.dir().join("exe")).unwrap();
        symlink("/bin/java", fake.dir().join("exe")).unwrap();
        let facts = processes.look_up(&ourselves(), start + READ_AGAIN_AFTER);
        assert_eq!(facts.exe.as_deref(), Some("/bin/java"));
    }

    #[test]
    fn an_exec_seen_by_the_kernel_side_is_read_at_once() {
        let fake = Fake::new("/bin/sh", b"");
        let mut processes = fake.processes();
        let now = Instant::now();
        processes.look_up(&ourselves(), now);

        fs::remove_file(fake.dir().join("exe")).unwrap();
        symlink("/bin/java", fake.dir().join("exe")).unwrap();
        fake.execute("java");
        let mut java = ourselves();
        java.comm = "java".into();
        assert_eq!(processes.look_up(&java, now).exe.as_deref(), Some("/bin/java"));
    }

    /// The connection was closed by a shell, which has become something else before its late reset.
    #[test]
    fn what_a_process_executed_later_is_not_what_was_seen() {
        let fake = Fake::new("/bin/java", format!("0::/docker/{ID}\n").as_bytes());
        fake.execute("java");
        let facts = fake.processes().look_up(&ourselves(), Instant::now());
        assert_eq!((facts.exe, facts.container.container_id.as_deref()), (None, Some(ID)));
    }

    #[test]
    fn a_foreign_byte_in_one_line_does_not_hide_the_others() {
        let lines = [b"0::/\xff\n4:memory:/docker/", ID.as_bytes(), b"\n"].concat();
        let fake = Fake::new("/bin/sh", &lines);
        let facts = fake.processes().look_up(&ourselves(), Instant::now());
        assert_eq!(facts.container.container_id.as_deref(), Some(ID));
    }

    #[test]
    fn the_line_that_names_a_container_counts_and_v2_before_v1() {
        let other = ID.replace('1', "2");
        let hybrid = format!("4:memory:/docker/{ID}\n1:name=systemd:/\n0::/\n");
        let both = format!("4:memory:/docker/{other}\n0::/docker/{ID}\n");
        for cgroups in [hybrid, both] {
            let found = container_of(&cgroups);
            assert_eq!(found.container_id.as_deref(), Some(ID), "{cgroups}");
        }
        for nothing in ["", "\n", "0::/", "0:", "4:memory:/user.slice\n0::/init.scope"] {
            assert_eq!(container_of(nothing), ContainerRef::default());
        }
    }
}
