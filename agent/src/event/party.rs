//! Who sits at one end of a connection, as one line of output says it.
//!
//! Every field is a fact read on this node: from the socket, from `/proc`, from
//! the cgroup tree or from the kubelet's log directories. A fact nobody could
//! read is left out of the JSON, so absent always means unknown.

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
    /// The cgroup v2 directory the kernel had on record for the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
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
    /// Name in the pod's specification, from the kubelet's log directories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Image reference. Nothing read on the node without a runtime's socket
    /// tells it, so [`crate::attribution`] leaves it unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `containerd`, `cri-o`, `docker` or `podman`, from the prefix the runtime
    /// puts before the id; unknown where it puts none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
}

/// A Kubernetes pod.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Pod {
    /// From the pod's directory below `/var/log/pods`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// From the pod's directory below `/var/log/pods`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// From the cgroup path. For a static pod this is the hash of its manifest
    /// (annotation `kubernetes.io/config.hash`), not the mirror pod's uid.
    pub uid: String,
    /// The node's name from the agent's configuration: pods seen in the local
    /// cgroup tree run here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
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
