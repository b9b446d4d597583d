//! Who has which connection open: the descriptors in `/proc`, joined with the sockets of sock_diag by inode.

use std::{fs, path::Path, time::Instant};

use agent_common::connection::Task;
use anyhow::{Context, Result, bail};
use rustix::{
    fs::{CWD, Dir, Mode, OFlags, openat, readlinkat_raw},
    io::Errno,
};

use super::{
    Found, NOBODY, Open, SEVERAL, UNSEEN,
    namespaces::{NetworkNamespaces, shows_every_pid},
    netlink::{self, Sockets},
    seeds::Seeds,
    stat,
};

/// Finds the holders, until `deadline`.
///
/// # Errors
///
/// If `/proc` does not show the host's processes.
pub fn find(proc_root: &Path, most: usize, deadline: Instant) -> Result<(Found, Seeds)> {
    if !shows_every_pid(proc_root) {
        bail!(
            "{} does not have the host's processes; mount the host's and name it with --proc-root",
            proc_root.display()
        );
    }
    let pids = pids(proc_root).with_context(|| format!("listing {}", proc_root.display()))?;
    let namespaces = NetworkNamespaces::of(proc_root, &pids);
    let unread_namespaces = namespaces.unread;
    let mut sockets = netlink::list(namespaces.found, most);
    let mut search = Search::new(std::mem::take(&mut sockets.found));
    for (index, pid) in pids.iter().enumerate() {
        if Instant::now() > deadline {
            search.late = pids.len() - index;
            break;
        }
        search.look_at(proc_root, *pid);
    }
    let missing = search.missing(&sockets, unread_namespaces);
    let (shared, seeds) = search.seeds(proc_root);
    Ok((Found { named: seeds.len() as u64, shared, missing }, seeds))
}

/// Ascending, as the kernel's iterator takes them.
fn pids(proc_root: &Path) -> std::io::Result<Vec<u32>> {
    let entries = fs::read_dir(proc_root)?;
    let mut pids: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// The connections, and who was found to have them.
struct Search {
    /// By inode.
    connections: Vec<Open>,
    processes: Vec<Task>,
    /// Processes that did not show their open files.
    unread: u64,
    /// Processes that there was no time for.
    late: usize,
}

impl Search {
    fn new(mut connections: Vec<Open>) -> Self {
        connections.sort_unstable_by_key(|connection| connection.inode);
        Self { connections, processes: Vec::new(), unread: 0, late: 0 }
    }

    /// Looks through a process's descriptors. Those of threads that have a table of their own are not there.
    fn look_at(&mut self, proc_root: &Path, pid: u32) {
        let Some(before) = stat::read(proc_root, pid).filter(|stat| !stat.is_kernel_thread) else { return };
        let sockets = match sockets_of(&proc_root.join(pid.to_string()).join("fd")) {
            Ok(sockets) => sockets,
            Err(error) => {
                self.unread += u64::from(matches!(error, Errno::ACCESS | Errno::PERM));
                return;
            }
        };
        // Was the pid given to another process meanwhile, what was read may be of either.
        let same = |after: stat::Stat| after.task.start_boottime_ns == before.task.start_boottime_ns;
        if stat::read(proc_root, pid).is_some_and(same) {
            self.holds(before.task, &sockets);
        }
    }

    fn holds(&mut self, process: Task, sockets: &[u32]) {
        let own = self.processes.len() as u32;
        let mut any = false;
        for inode in sockets {
            let first = self.connections.partition_point(|connection| connection.inode < *inode);
            for connection in self.connections[first..].iter_mut().take_while(|connection| connection.inode == *inode) {
                any = true;
                connection.holder = match connection.holder {
                    NOBODY => own,
                    holder if holder == own => own,
                    _ => SEVERAL,
                };
            }
        }
        if any {
            self.processes.push(process);
        }
    }

    /// How many connections have several holders, and those that have one.
    fn seeds(mut self, proc_root: &Path) -> (u64, Seeds) {
        let shared = self.connections.iter().filter(|connection| connection.holder == SEVERAL).count();
        self.connections.retain(|connection| !matches!(connection.holder, NOBODY | SEVERAL));
        (shared as u64, Seeds::new(proc_root.to_owned(), self.connections, self.processes))
    }

    fn missing(&self, sockets: &Sockets, unread_namespaces: u64) -> Vec<String> {
        let mut missing = Vec::new();
        let mut miss = |how_many: u64, one: &str, many: &str, why: &str| match how_many {
            0 => {}
            1 => missing.push(format!("{UNSEEN}: {one} {why}")),
            _ => missing.push(format!("{UNSEEN}: {how_many} {many} {why}")),
        };
        let ptrace = "(that takes CAP_SYS_PTRACE)";
        miss(self.unread, "one process does not show its open files", "processes do not show their open files", ptrace);
        miss(
            unread_namespaces,
            "one process does not show its network namespace",
            "processes do not show their network namespace",
            ptrace,
        );
        miss(
            sockets.closed_namespaces,
            "one network namespace cannot be entered",
            "network namespaces cannot be entered",
            "(that takes CAP_SYS_ADMIN)",
        );
        miss(sockets.left_out, "one connection is", "connections are", "beyond --connections");
        miss(self.late as u64, "one process was", "processes were", "not looked at within 10 s");
        if let Some(error) = &sockets.error {
            missing.push(format!("{UNSEEN}: {error}"));
        }
        missing
    }
}

/// The inode numbers of the sockets among a process's descriptors.
fn sockets_of(folder: &Path) -> Result<Vec<u32>, Errno> {
    let folder = openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut sockets = Vec::new();
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let mut target = [std::mem::MaybeUninit::uninit(); 64];
        match readlinkat_raw(&folder, entry.file_name(), &mut target) {
            Ok((target, _)) => sockets.extend(socket_inode(target)),
            // The folder itself is shown to anybody of the same user.
            Err(error @ (Errno::ACCESS | Errno::PERM)) => return Err(error),
            // Closed since; or one of `.` and `..`, which are no links.
            Err(_) => {}
        }
    }
    sockets.sort_unstable();
    sockets.dedup();
    Ok(sockets)
}

/// `socket:[4711]` (`sockfs_dname`).
fn socket_inode(target: &[u8]) -> Option<u32> {
    let number = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(inode: u32, cookie: u64) -> Open {
        Open { cookie, inode, holder: NOBODY }
    }

    fn process(tgid: u32) -> Task {
        Task { tgid, start_boottime_ns: 7, ..Task::NOBODY }
    }

    #[test]
    fn a_socket_is_told_from_other_files() {
        assert_eq!(socket_inode(b"socket:[4711]"), Some(4711));
        for other in [&b"pipe:[4711]"[..], b"/tmp/socket:[4711]", b"socket:[]", b"socket:[4711", b"socket:[-1]", b""] {
            assert_eq!(socket_inode(other), None);
        }
    }

    #[test]
    fn one_holder_is_named_however_often_it_has_it() {
        let mut search = Search::new(vec![open(20, 200), open(10, 100), open(30, 300)]);
        search.holds(process(1), &[5, 10]);
        search.holds(process(2), &[20]);
        search.holds(process(2), &[99]);
        let (shared, mut seeds) = search.seeds(Path::new("/nonexistent"));
        assert_eq!((shared, seeds.len()), (0, 2));
        assert_eq!((seeds.holder(100), seeds.holder(200), seeds.holder(300)), (Some(1), Some(2), None));
    }

    #[test]
    fn several_holders_are_counted_and_none_is_named() {
        let mut search = Search::new(vec![open(10, 100)]);
        for pid in [1, 2, 3] {
            search.holds(process(pid), &[10]);
        }
        let (shared, mut seeds) = search.seeds(Path::new("/nonexistent"));
        assert_eq!((shared, seeds.len(), seeds.holder(100)), (1, 0, None));
    }

    /// An MPTCP socket stands for its subflows.
    #[test]
    fn one_inode_may_stand_for_several_connections() {
        let mut search = Search::new(vec![open(10, 100), open(10, 101)]);
        search.holds(process(1), &[10]);
        let (_, mut seeds) = search.seeds(Path::new("/nonexistent"));
        assert_eq!((seeds.holder(100), seeds.holder(101)), (Some(1), Some(1)));
    }

    #[test]
    fn what_could_not_be_looked_at_is_said_with_the_right_that_buys_it() {
        let mut search = Search::new(Vec::new());
        search.unread = 3;
        let sockets = Sockets { closed_namespaces: 2, error: Some("sock_diag refuses".into()), ..Sockets::default() };
        let missing = search.missing(&sockets, 0).join("\n");
        for part in ["3 processes", "CAP_SYS_PTRACE", "2 network namespaces", "CAP_SYS_ADMIN", "sock_diag refuses"] {
            assert!(missing.contains(part), "{part}: {missing}");
        }
        assert_eq!(Search::new(Vec::new()).missing(&Sockets::default(), 0), Vec::<String>::new());
    }

    /// The whole way, on this machine, with what this process may see.
    #[test]
    fn own_connection_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let inode = rustix::fs::fstat(&client).unwrap().st_ino as u32;
        let mut search = Search::new(vec![open(inode, 77)]);
        search.look_at(Path::new("/proc"), std::process::id());
        assert_eq!((search.connections[0].holder, search.processes[0].tgid), (0, std::process::id()));
    }
}
