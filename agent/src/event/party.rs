//! Who sits at one end of a connection, as one line of output says it.
//!
//! Every field is a fact that somebody told: the socket, `/proc`, the cgroup tree, and
//! for names Kubernetes or the container runtime. A fact nobody could tell is left out
//! of the JSON, so absent always means unknown.

use std::collections::BTreeMap;

use serde::Serialize;

/// Everything known about the owner of one end; empty when nothing is.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Owner {
    /// The process that used the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The container the socket belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The pod the container belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// What made the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// The Service that has the address, or that the pod is behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// The node that has the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The endpoint that the address stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<Box<Backend>>,
    /// The cgroup v2 directory the kernel had on record for the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
    /// Where the names come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribution: Option<Attribution>,
}

/// What made a pod, at the top of the chain as far as it is known: `Deployment`,
/// `StatefulSet`, `DaemonSet`, `Job`, `CronJob`, or whatever kind its owner has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Workload {
    /// The kind, as `ownerReferences` writes it.
    pub kind: String,
    /// The name.
    pub name: String,
}

/// A Kubernetes Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The endpoint that the kernel translated an address to, such as a Service's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Its address.
    pub ip: String,
    /// Its port.
    pub port: u16,
    /// The pod that has the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// What made the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// The node that has the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Where the names of an [`Owner`] come from.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Attribution {
    /// What tied the socket to the container or the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Evidence>,
    /// Who named the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Source>,
    /// Who named the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<Source>,
}

/// What ties a socket to a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The cgroup on record for the socket.
    SocketCgroup,
    /// `/proc/PID/cgroup` of the process that used it.
    ProcessCgroup,
    /// The address, which the pod had when the connection began.
    Address,
}

/// Who names pods and containers, the most believed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A watch of the API server, narrowed to this node: names, owners, labels
    ApiServer,
    /// The kubelet's list of its pods: the same
    Kubelet,
    /// The container runtime's socket (CRI): names, images, labels
    Cri,
    /// The kubelet's log folders: names only
    PodLogs,
}

/// A process, named by its thread group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Process {
    /// Thread group id in the initial pid namespace, from the kernel's `task_struct`.
    pub pid: u32,
    /// Name of the group leader when the kernel side saw it, at most 15 bytes;
    /// a later `exec` does not change it.
    pub comm: String,
    /// Executable from `/proc/PID/exe`, as seen in the process's own mounts.
    /// Only there when the process still ran and its start time proved that
    /// the pid had not been reused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
}

/// A container, named by its cgroup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Container {
    /// The full id, 64 hex digits, from the cgroup path.
    pub id: String,
    /// Name in the pod's specification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Image reference, as the pod's specification or the runtime writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `containerd`, `cri-o`, `docker` or `podman`, from the prefix the runtime
    /// puts before the id; unknown where it puts none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
}

/// A Kubernetes pod.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Pod {
    /// `metadata.namespace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// `metadata.name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// From the cgroup path. For a static pod this is the hash of its manifest
    /// (annotation `kubernetes.io/config.hash`), not the mirror pod's uid.
    pub uid: String,
    /// The node's name from the agent's configuration: pods seen in the local
    /// cgroup tree run here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Those that were asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Those that were asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A cgroup v2 directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Cgroup {
    /// The kernel's id, which is also the directory's inode number.
    pub id: u64,
    /// Path from the root of the hierarchy, found in the mounted tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The id is that of whoever created the socket (or the listener it was
    /// accepted from), which need not be who used it.
    #[serde(rename = "creator", skip_serializing_if = "std::ops::Not::not")]
    pub creator_only: bool,
}

impl Source {
    /// As people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "API server",
            Self::Kubelet => "kubelet",
            Self::Cri => "CRI socket",
            Self::PodLogs => "pod logs",
        }
    }
}
