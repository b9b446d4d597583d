//! Who owns a socket, from what the kernel side recorded about it.
//!
//! A process and a cgroup are recorded. From there the node itself tells the rest: the cgroup's path names container,
//! runtime and pod uid, and `/proc` names the executable. Whoever may be asked about [`pods`] names the pod. Whatever
//! nobody tells stays unknown; nothing here fails.

mod cgroup_handle;
mod cgroup_mount;
pub mod cgroup_path;
mod cgroup_tree;
pub mod conntrack;
pub mod pods;
mod process;
mod remembered;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;

use crate::event::party::{Attribution, Cgroup, Container, Evidence, Owner, Pod, Process, Source};
use cgroup_mount::CgroupMount;
use cgroup_path::ContainerRef;
use cgroup_tree::CgroupTree;
use conntrack::Conntrack;
use pods::{
    cluster::PodAt,
    failure::Failure,
    health::{Health, Healths},
    store::SOURCES,
    workers::{Sources, Workers},
};
use process::{ProcessFacts, Processes};
use remembered::{KEEP_NAMES, Remembered};

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
    /// Whom to ask about pods.
    pub sources: Sources,
    /// This node's name, said of every pod found here.
    pub node: Option<String>,
    /// Network namespaces, the first of which that can be entered is asked what stands behind an address by its
    /// connection tracking; none is asked if unset.
    pub conntrack: Option<Vec<PathBuf>>,
}

impl Default for AttributionConfig {
    fn default() -> Self {
        Self {
            proc_root: PathBuf::from("/proc"),
            cgroup_root: None,
            sources: Sources::default(),
            node: None,
            conntrack: None,
        }
    }
}

/// Turns clues into owners, remembering names so that late events find them.
pub struct Attributor {
    processes: Processes,
    cgroups: CgroupTree,
    pods: Workers,
    conntrack: Option<Conntrack>,
    /// When a container without a name was met.
    first_seen: Remembered<String, Instant>,
    /// Whose name did not come in time.
    given_up: Remembered<String, ()>,
    node: Option<String>,
    rescan_pause: Duration,
}

/// Rescans are so many times as far apart as the last one took, which is a fifth of a percent
/// of one CPU, up to the longest pause. What lives and goes between two of them, and had no
/// event, stays nameless.
const RESCAN_FACTOR: u32 = 500;
const SHORTEST_RESCAN_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_RESCAN_PAUSE: Duration = Duration::from_secs(5);

/// How long nobody waits again for a name that did not come.
const HOPELESS: Duration = Duration::from_secs(10);
/// Containers without a name of which something is remembered.
const MOST_UNNAMED: usize = 4096;

impl Attributor {
    /// Walks the cgroup tree for the first time and begins to ask about pods.
    ///
    /// # Errors
    ///
    /// If there can be no thread for that.
    pub fn new(config: AttributionConfig) -> Result<Self> {
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

    /// How each source of pods' names fares.
    #[must_use]
    pub fn sources(&self) -> [(Source, Health); SOURCES.len()] {
        self.pods.health()
    }

    /// Where the sources of pods' names say how they fare, for whoever asks later.
    #[must_use]
    pub fn healths(&self) -> Arc<Healths> {
        self.pods.healths()
    }

    /// What the whole cluster's watches know: how many pods, and which of them fail.
    #[must_use]
    pub fn cluster(&self) -> (usize, Vec<(&'static str, Failure)>) {
        self.pods.cluster().health()
    }

    /// Whoever has an address, seen from a connection to it that began at `began`: what is known without having seen that
    /// end itself.
    #[must_use]
    pub fn peer(&self, address: IpAddr, port: Option<u16>, began: Option<Timestamp>) -> Owner {
        let found = self.pods.cluster().find(address, port, began);
        let own = || self.pods.store().at(address, began).map(|pod| PodAt::from(pod.as_ref()));
        let pod = found.pod.or_else(own);
        Owner {
            attribution: pod.is_some().then_some(Attribution {
                container: Some(Evidence::Address),
                pod: Some(Source::ApiServer),
                container_name: None,
            }),
            workload: pod.as_ref().and_then(|pod| pod.workload.clone()),
            pod: pod.map(|pod| Pod {
                namespace: Some(pod.namespace),
                name: Some(pod.name),
                uid: pod.uid,
                node: pod.node,
                ..Pod::default()
            }),
            service: found.service,
            node: found.node,
            ..Owner::default()
        }
    }

    /// The endpoint behind `to`, if that is another, for a connection that `from` opened.
    pub fn backend(&mut self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        self.conntrack.as_mut()?.endpoint(from, to)
    }

    /// How many connections the connection tracking was not asked about in time since this was called last.
    pub fn take_unasked(&mut self) -> u64 {
        self.conntrack.as_mut().map_or(0, Conntrack::take_left_out)
    }

    /// How the connection tracking fares, if it is to be asked.
    #[must_use]
    pub fn conntrack(&self) -> Option<conntrack::State> {
        self.conntrack.as_ref().map(Conntrack::state)
    }

    /// Names what can be named by now. False if a name is missing that may still come; it has been asked for.
    pub fn complete(&mut self, owner: &mut Owner) -> bool {
        self.name(owner, Instant::now());
        !self.lacks_name(owner) || !self.may_come(owner)
    }

    /// The names that are missing did not come in time: for a while nobody waits for them again.
    pub fn give_up(&mut self, owner: &Owner) {
        let now = Instant::now();
        if let Some(key) = key(owner) {
            self.given_up.confirm(key.to_owned(), (), now);
        }
    }

    fn new_at(config: AttributionConfig, now: Instant) -> Result<Self> {
        Ok(Self {
            cgroups: CgroupTree::new(config.cgroup_root.as_deref(), &config.proc_root, now),
            processes: Processes::new(config.proc_root),
            pods: Workers::start(config.sources)?,
            conntrack: config.conntrack.map(Conntrack::start).transpose()?,
            first_seen: Remembered::new(KEEP_NAMES, MOST_UNNAMED),
            given_up: Remembered::new(HOPELESS, MOST_UNNAMED),
            node: config.node,
            rescan_pause: SHORTEST_RESCAN_PAUSE,
        })
    }

    fn attribute_at(&mut self, clues: &Clues, now: Instant) -> Owner {
        let facts = clues.process.as_ref().map(|clue| self.processes.look_up(clue, now)).unwrap_or_default();
        let cgroup = self.cgroup(clues.cgroup.as_ref(), &facts);
        let path = cgroup.as_ref().and_then(|clue| self.cgroups.path(clue.id, now));
        let by_cgroup = path.as_deref().map(cgroup_path::parse).unwrap_or_default();
        let by_cgroup = (by_cgroup, Evidence::SocketCgroup);
        let by_process = (facts.container, Evidence::ProcessCgroup);
        let (found, evidence) = if cgroup.as_ref().is_some_and(|clue| clue.is_creator_only) {
            more_telling(by_process, by_cgroup)
        } else {
            more_telling(by_cgroup, by_process)
        };
        let is_found = found.container_id.is_some() || found.pod_uid.is_some();
        let container = found.container_id.map(|id| Container {
            id,
            name: None,
            image: None,
            runtime: found.runtime.map(str::to_owned),
        });
        let mut owner = Owner {
            process: clues.process.as_ref().map(|clue| Process {
                pid: clue.pid,
                comm: clue.comm.clone(),
                exe: facts.exe,
            }),
            container,
            pod: found.pod_uid.map(|uid| Pod { uid, node: self.node.clone(), ..Pod::default() }),
            workload: None,
            service: None,
            node: None,
            backend: None,
            cgroup: cgroup.map(|clue| Cgroup {
                id: clue.id,
                path: path.as_deref().map(str::to_owned),
                creator_only: clue.is_creator_only,
            }),
            attribution: is_found.then(|| Attribution { container: Some(evidence), ..Attribution::default() }),
        };
        self.name(&mut owner, now);
        if self.lacks_name(&owner) {
            self.pods.want();
        }
        owner
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
        self.processes.forget(now);
        self.first_seen.forget(now);
        self.given_up.forget(now);
    }

    /// Puts in what is known of a pod and its container by now.
    fn name(&mut self, owner: &mut Owner, now: Instant) {
        let (Some(pod), Some(attribution)) = (&mut owner.pod, &mut owner.attribution) else { return };
        if let Some((known, source)) = self.pods.store().pod(&pod.uid) {
            pod.namespace = Some(known.namespace.clone());
            pod.name = Some(known.name.clone());
            pod.node = pod.node.take().or_else(|| known.node.clone());
            pod.labels.clone_from(&known.labels);
            pod.annotations.clone_from(&known.annotations);
            owner.workload.clone_from(&known.workload);
            attribution.pod = Some(source);
        }
        let Some(container) = &mut owner.container else { return };
        let first_seen = match self.first_seen.get(&container.id) {
            Some(&first_seen) => first_seen,
            None => {
                self.first_seen.confirm(container.id.clone(), now, now);
                now
            }
        };
        if let Some((known, source)) = self.pods.store().container(&pod.uid, &container.id, first_seen) {
            container.name = Some(known.name.clone());
            container.image.clone_from(&known.image);
            attribution.container_name = Some(source);
        }
    }

    fn lacks_name(&self, owner: &Owner) -> bool {
        owner.pod.as_ref().is_some_and(|pod| {
            pod.name.is_none() || owner.container.as_ref().is_some_and(|container| container.name.is_none())
        })
    }

    fn may_come(&self, owner: &Owner) -> bool {
        let is_hopeless = |key: &str| self.given_up.get_younger(key, HOPELESS, Instant::now()).is_some();
        key(owner).is_some_and(|key| !is_hopeless(key)) && self.pods.may_learn()
    }
}

/// What an owner's names are missing of.
fn key(owner: &Owner) -> Option<&str> {
    let container = owner.container.as_ref().map(|container| container.id.as_str());
    container.or(owner.pod.as_ref().map(|pod| pod.uid.as_str()))
}

fn rescan_pause(rescan: Duration) -> Duration {
    rescan.saturating_mul(RESCAN_FACTOR).clamp(SHORTEST_RESCAN_PAUSE, LONGEST_RESCAN_PAUSE)
}

/// The better source unless only the other one knows the container: where the runtime
/// keeps out of the v2 tree, the socket's cgroup is the root or the runtime's own. Of one
/// container each may know something: read in a container of the same pod, `/proc` says
/// `/../ID` and leaves the pod out.
fn more_telling(
    (better, by): (ContainerRef, Evidence),
    (other, other_by): (ContainerRef, Evidence),
) -> (ContainerRef, Evidence) {
    if better.container_id.is_some() && better.container_id == other.container_id {
        let both = ContainerRef {
            container_id: better.container_id,
            runtime: better.runtime.or(other.runtime),
            pod_uid: better.pod_uid.or(other.pod_uid),
        };
        (both, by)
    } else if better.container_id.is_some() {
        (better, by)
    } else if other.container_id.is_some() || better.pod_uid.is_none() {
        (other, other_by)
    } else {
        (better, by)
    }
}

#[cfg(test)]
mod tests;
