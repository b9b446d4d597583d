//! What one source says about one pod, in the words that every source has in common.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use jiff::Timestamp;

use crate::event::party::Workload;

/// A pod as one source knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// The uid that the pod's cgroup has: `metadata.uid`, for a static pod the annotation `kubernetes.io/config.hash`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `spec.nodeName`.
    pub node: Option<String>,
    /// `status.podIPs`; none for a pod in the node's own network namespace, whose address says nothing.
    pub addresses: Vec<IpAddr>,
    /// `status.startTime`: when its kubelet first saw it.
    pub since: Option<Timestamp>,
    /// What made the pod, at the top of the chain as far as it is known.
    pub workload: Option<Workload>,
    /// Labels on the allow-list.
    pub labels: BTreeMap<String, String>,
    /// Annotations on the allow-list.
    pub annotations: BTreeMap<String, String>,
    /// Names of all its containers, those for its start and for debugging too.
    pub container_names: Vec<String>,
    /// By container id, without the runtime's prefix (`containerd://`).
    pub containers: HashMap<String, ContainerFacts>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFacts {
    /// The name in the pod's specification.
    pub name: String,
    /// The image as the specification names it.
    pub image: Option<String>,
}

/// Whether a pod was there when a connection began: else the address was another's. Its start is known in whole seconds.
#[must_use]
pub fn is_older(since: Option<Timestamp>, began: Option<Timestamp>) -> bool {
    let (Some(since), Some(began)) = (since, began) else { return true };
    since.as_second() <= began.as_second()
}
