//! Namespaces of processes: whether `/proc` and the agent know every process, and which network namespaces there are.

use std::{
    collections::HashSet,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::stat;

/// `/proc/self/ns/pid` outside of every container: `PROC_PID_INIT_INO` of the kernel's `include/linux/proc_ns.h`.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// kthreadd: the second process that a kernel starts, and no other pid namespace has one (`rest_init`).
const KTHREADD: u32 = 2;

/// Whether this process is in the initial pid namespace; a kernel without any has one for all.
pub fn has_every_pid() -> bool {
    fs::metadata("/proc/self/ns/pid").map_or(true, |namespace| namespace.ino() == INITIAL_PID_NAMESPACE)
}

/// Whether pids below `proc_root` are those of the initial pid namespace, as events have them.
pub fn shows_every_pid(proc_root: &Path) -> bool {
    stat::read(proc_root, KTHREADD).is_some_and(|stat| stat.is_kernel_thread)
}

/// The network namespace of the kernel's own threads, which is the one it started with, if `proc_root` shows them.
pub fn of_the_kernel(proc_root: &Path) -> Option<PathBuf> {
    shows_every_pid(proc_root).then(|| proc_root.join(format!("{KTHREADD}/ns/net")))
}

/// Network namespaces in which processes are.
#[derive(Debug, Default)]
pub struct NetworkNamespaces {
    /// One descriptor for each.
    pub found: Vec<File>,
    /// Processes whose namespace was not shown.
    pub unread: u64,
}

impl NetworkNamespaces {
    /// Of these processes, this one's first.
    pub fn of(proc_root: &Path, pids: &[u32]) -> Self {
        let mut namespaces = Self::default();
        let mut known = HashSet::new();
        namespaces.add(Path::new("/proc/thread-self/ns/net"), &mut known);
        for pid in pids {
            namespaces.add(&proc_root.join(pid.to_string()).join("ns/net"), &mut known);
        }
        namespaces
    }

    fn add(&mut self, link: &Path, known: &mut HashSet<u64>) {
        let number = match fs::metadata(link) {
            Ok(namespace) => namespace.ino(),
            Err(error) => {
                // Not there: a process that has ended, or a zombie.
                self.unread += u64::from(error.kind() == std::io::ErrorKind::PermissionDenied);
                return;
            }
        };
        if known.contains(&number) {
            return;
        }
        // Gone by now: the next process in it has it too.
        if let Ok(file) = File::open(link) {
            known.insert(number);
            self.found.push(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_namespace_is_there_once() {
        let own = std::process::id();
        let namespaces = NetworkNamespaces::of(Path::new("/proc"), &[own, own, u32::MAX]);
        assert_eq!((namespaces.found.len(), namespaces.unread), (1, 0));
    }

    #[test]
    fn an_empty_folder_shows_nobody() {
        assert!(!shows_every_pid(tempfile::tempdir().unwrap().path()));
    }
}
