//! Who owns a socket, from what the kernel side recorded about it.
//!
//! A process and a cgroup are recorded; from there everything is read on the node
//! itself, without the API server and without a runtime's socket: the cgroup's path
//! names container, runtime and pod uid, the kubelet's log directories name the pod,
//! and `/proc` names the executable. Whatever cannot be read stays unknown; nothing
//! here fails.

mod cgroup_handle;
mod cgroup_mount;
pub mod cgroup_path;
mod cgroup_tree;
mod pod_logs;
mod process;
mod remembered;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::event::party::{Cgroup, Container, Owner, Pod, Process};
use cgroup_mount::CgroupMount;
use cgroup_path::ContainerRef;
use cgroup_tree::CgroupTree;
use pod_logs::PodLogs;
use process::{ProcessFacts, Processes};

/// What the kernel side recorded about who owns one end of a connection.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Clues {
    /// The process seen using the socket.
    pub process: Option<ProcessClue>,
    /// The cgroup on record for the socket.
    pub cgroup: Option<CgroupClue>,
}

/// A process as the kernel side saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessClue {
    /// Thread group id.
    pub pid: u32,
    /// When the group leader started, in nanoseconds of `CLOCK_BOOTTIME`; 0 if unknown.
    pub start_boottime_ns: u64,
    /// The group leader's name, lossily UTF-8.
    pub comm: String,
}

/// A cgroup as the kernel side saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CgroupClue {
    /// The id in the cgroup2 hierarchy.
    pub id: u64,
    /// It is the cgroup of the socket's creator, for an accepted socket that of the
    /// listener's creator, and not known to be that of its user.
    pub is_creator_only: bool,
}

/// Where to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttributionConfig {
    /// A mount of procfs that shows the initial pid namespace.
    pub proc_root: PathBuf,
    /// Where the host's cgroup v2 is; found if unset.
    pub cgroup_root: Option<PathBuf>,
    /// The kubelet's pod log directory; `containers` is looked for beside it.
    pub pod_logs: PathBuf,
    /// This node's name, said of every pod found here.
    pub node: Option<String>,
}

impl Default for AttributionConfig {
    fn default() -> Self {
        Self {
            proc_root: PathBuf::from("/proc"),
            cgroup_root: None,
            pod_logs: PathBuf::from("/var/log/pods"),
            node: None,
        }
    }
}

/// Turns clues into owners, remembering names so that late events find them.
pub struct Attributor {
    processes: Processes,
    cgroups: CgroupTree,
    pod_logs: PodLogs,
    node: Option<String>,
    rescan_pause: Duration,
}

/// Rescans are so many times as far apart as the last one took, which is a fifth of a percent
/// of one CPU, up to the longest pause. What lives and goes between two of them, and had no
/// event, stays nameless.
const RESCAN_FACTOR: u32 = 500;
const SHORTEST_RESCAN_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_RESCAN_PAUSE: Duration = Duration::from_secs(5);

impl Attributor {
    /// Walks the cgroup tree and lists the pod logs for the first time.
    pub fn new(config: AttributionConfig) -> Self {
        Self::new_at(config, Instant::now())
    }

    /// Where the root of cgroup v2 is, if all of its tree can be seen.
    pub fn cgroup_root(&self) -> Option<&Path> {
        self.cgroups.root()
    }

    /// Cgroup v2 is mounted, but shows us only a part of the host's tree.
    pub fn sees_part_of_cgroups(&self) -> bool {
        self.cgroups.root().is_none() && CgroupMount::is_any_mounted()
    }

    /// Says all that is known about the owner.
    pub fn attribute(&mut self, clues: &Clues) -> Owner {
        self.attribute_at(clues, Instant::now())
    }

    /// Learns new names and drops those long gone. Called again and again, since a cgroup
    /// removed before any walk met it has lost its name.
    pub fn rescan(&mut self) {
        let start = Instant::now();
        self.rescan_at(start);
        self.rescan_pause = rescan_pause(start.elapsed());
    }

    /// How long after the last [`rescan`](Self::rescan) the next one is due.
    pub fn rescan_pause(&self) -> Duration {
        self.rescan_pause
    }

    fn new_at(config: AttributionConfig, now: Instant) -> Self {
        Self {
            cgroups: CgroupTree::new(config.cgroup_root.as_deref(), &config.proc_root, now),
            processes: Processes::new(config.proc_root),
            pod_logs: PodLogs::new(config.pod_logs, now),
            node: config.node,
            rescan_pause: SHORTEST_RESCAN_PAUSE,
        }
    }

    fn attribute_at(&mut self, clues: &Clues, now: Instant) -> Owner {
        let facts = clues.process.as_ref().map(|clue| self.processes.look_up(clue, now)).unwrap_or_default();
        let cgroup = self.cgroup(clues.cgroup.as_ref(), &facts);
        let path = cgroup.as_ref().and_then(|clue| self.cgroups.path(clue.id, now));
        let by_cgroup = path.as_deref().map(cgroup_path::parse).unwrap_or_default();
        let found = if cgroup.as_ref().is_some_and(|clue| clue.is_creator_only) {
            more_telling(facts.container, by_cgroup)
        } else {
            more_telling(by_cgroup, facts.container)
        };

        Owner {
            process: clues.process.as_ref().map(|clue| Process {
                pid: clue.pid,
                comm: clue.comm.clone(),
                exe: facts.exe,
            }),
            cgroup: cgroup.map(|clue| Cgroup {
                id: clue.id,
                path: path.as_deref().map(str::to_owned),
                creator_only: clue.is_creator_only,
            }),
            pod: found.pod_uid.as_deref().map(|uid| self.pod(uid, now)),
            container: self.container(found, now),
        }
    }

    /// The one on record, unless that is the creator's at best and the process that is known still shows its own: of a
    /// connection older than the agent `/proc` may be all that tells whose it is.
    fn cgroup(&self, recorded: Option<&CgroupClue>, facts: &ProcessFacts) -> Option<CgroupClue> {
        if let Some(clue) = recorded.filter(|clue| !clue.is_creator_only) {
            return Some(clue.clone());
        }
        let own = facts.cgroup.as_deref().and_then(|path| self.cgroups.id_of(path));
        own.map(|id| CgroupClue { id, is_creator_only: false }).or_else(|| recorded.cloned())
    }

    fn rescan_at(&mut self, now: Instant) {
        self.cgroups.rescan(now);
        self.pod_logs.rescan(now);
        self.processes.forget(now);
    }

    fn pod(&mut self, uid: &str, now: Instant) -> Pod {
        let known = self.pod_logs.pod(uid, now);
        let (namespace, name) = known.map(|pod| (pod.namespace, pod.name)).unzip();
        Pod { namespace, name, uid: uid.to_owned(), node: self.node.clone() }
    }

    fn container(&mut self, found: ContainerRef, now: Instant) -> Option<Container> {
        let id = found.container_id?;
        let uid = found.pod_uid.as_deref();
        Some(Container {
            name: uid.and_then(|uid| self.pod_logs.container(uid, &id, now)),
            image: None,
            runtime: found.runtime.map(str::to_owned),
            id,
        })
    }
}

fn rescan_pause(rescan: Duration) -> Duration {
    rescan.saturating_mul(RESCAN_FACTOR).clamp(SHORTEST_RESCAN_PAUSE, LONGEST_RESCAN_PAUSE)
}

/// The better source unless only the other one knows the container: where the runtime
/// keeps out of the v2 tree, the socket's cgroup is the root or the runtime's own. Of one
/// container each may know something: read in a container of the same pod, `/proc` says
/// `/../ID` and leaves the pod out.
fn more_telling(better: ContainerRef, other: ContainerRef) -> ContainerRef {
    if better.container_id.is_some() && better.container_id == other.container_id {
        ContainerRef {
            container_id: better.container_id,
            runtime: better.runtime.or(other.runtime),
            pod_uid: better.pod_uid.or(other.pod_uid),
        }
    } else if better.container_id.is_some() {
        better
    } else if other.container_id.is_some() || better.pod_uid.is_none() {
        other
    } else {
        better
    }
}

#[cfg(test)]
mod tests;
