//! A pod as the Kubernetes API writes it, in the words of [`PodFacts`].

use std::collections::HashMap;

use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    allow::Allowed,
    facts::{ContainerFacts, PodFacts},
};
use crate::event::party::Workload;

/// The kubelet's annotation with the hash of a static pod's manifest, which is the uid in its cgroup's name; the mirror pod
/// that the API server shows has another (`pkg/kubelet/config/common.go`).
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// The label by which a Deployment finds its ReplicaSet's pods; the same hash ends the ReplicaSet's name
/// (`pkg/controller/deployment`).
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What a pod's object says; none for one without a name or a uid, which no API server sends.
pub fn facts(pod: &Pod, allow: &Allowed) -> Option<PodFacts> {
    let metadata = &pod.metadata;
    let statuses = container_statuses(pod.status.as_ref());
    let images = images(pod);
    Some(PodFacts {
        uid: cgroup_uid(pod)?,
        namespace: metadata.namespace.clone()?,
        name: metadata.name.clone()?,
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        addresses: addresses(pod),
        since: pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0),
        workload: workload(pod),
        labels: allow.labels.pick(metadata.labels.clone().unwrap_or_default()),
        annotations: allow.annotations.pick(metadata.annotations.clone().unwrap_or_default()),
        container_names: images.keys().map(|name| (*name).to_owned()).collect(),
        containers: statuses.flat_map(|status| containers(status, &images)).collect(),
    })
}

/// The uid that the pod's cgroup has. Only what looks like a hash is taken for one: it cannot then be another pod's uid.
pub fn cgroup_uid(pod: &Pod) -> Option<String> {
    let hash = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(CONFIG_HASH));
    let is_hash = |hash: &&String| hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    hash.filter(is_hash).or(pod.metadata.uid.as_ref()).filter(|uid| !uid.is_empty()).cloned()
}

/// Where connections to the pod go, unless the node's own address is meant.
fn addresses(pod: &Pod) -> Vec<std::net::IpAddr> {
    let on_host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let Some(status) = pod.status.as_ref().filter(|_| !on_host) else { return Vec::new() };
    // An ended pod's address may be another's already (`status.phase` of the pod's life cycle).
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let all = status.pod_ips.iter().flatten().filter_map(|address| address.ip.parse().ok());
    let mut all: Vec<_> = all.chain(status.pod_ip.iter().filter_map(|ip| ip.parse().ok())).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Who made the pod; for a ReplicaSet that a Deployment made, the Deployment. A static pod's owner is the node, which is
/// nobody's workload.
fn workload(pod: &Pod) -> Option<Workload> {
    let owner = controller(&pod.metadata)?;
    let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH));
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    match (owner.kind.as_str(), deployment) {
        ("Node", _) => None,
        ("ReplicaSet", Some(name)) if !name.is_empty() => {
            Some(Workload { kind: "Deployment".to_owned(), name: name.to_owned() })
        }
        _ => Some(owner),
    }
}

/// The one owner that controls an object.
pub fn controller(metadata: &ObjectMeta) -> Option<Workload> {
    let mut owners = metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    Some(Workload { kind: owner.kind.clone(), name: owner.name.clone() })
}

/// The images of the specification by the container's name.
fn images(pod: &Pod) -> HashMap<&str, Option<&str>> {
    let Some(spec) = &pod.spec else { return HashMap::new() };
    let usual = spec.init_containers.iter().flatten().chain(&spec.containers);
    let usual = usual.map(|container| (container.name.as_str(), container.image.as_deref()));
    let debugging = spec.ephemeral_containers.iter().flatten();
    usual.chain(debugging.map(|container| (container.name.as_str(), container.image.as_deref()))).collect()
}

fn container_statuses(status: Option<&PodStatus>) -> impl Iterator<Item = &ContainerStatus> {
    let usual = status.and_then(|status| status.container_statuses.as_deref());
    let starting = status.and_then(|status| status.init_container_statuses.as_deref());
    let debugging = status.and_then(|status| status.ephemeral_container_statuses.as_deref());
    [usual, starting, debugging].into_iter().flatten().flatten()
}

/// The container that runs and the one before it, by id.
fn containers(
    status: &ContainerStatus,
    images: &HashMap<&str, Option<&str>>,
) -> impl Iterator<Item = (String, ContainerFacts)> {
    let image = images.get(status.name.as_str()).copied().flatten();
    let facts = ContainerFacts { name: status.name.clone(), image: image.map(str::to_owned) };
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref()?.container_id.as_deref());
    let ids = [status.container_id.as_deref(), last].into_iter().flatten();
    ids.filter_map(bare_id).map(move |id| (id.to_owned(), facts.clone()))
}

/// `containerd://ID` without its runtime.
pub fn bare_id(id: &str) -> Option<&str> {
    let bare = id.rsplit_once("://").map_or(id, |(_, bare)| bare);
    (!bare.is_empty()).then_some(bare)
}
