//! From the runtime's sandboxes and containers to what is known about pods.

use std::collections::HashMap;

use super::{
    super::{
        allow::Allowed,
        facts::{ContainerFacts, PodFacts},
    },
    error::CriError,
    image::ImageNames,
    messages::{Container, PodSandbox, PodSandboxMetadata},
};

/// The longest name in Kubernetes (`DNS1123SubdomainMaxLength`); a container's has 63 bytes at most.
const MOST_NAME_BYTES: usize = 253;

/// Labels and annotations that the kubelet adds to those of the pod: the pod's name, namespace and uid.
const KUBELETS_OWN: &str = "io.kubernetes.";

/// What a runtime knows about the pods of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Each pod once, whatever became of it.
    pub pods: Vec<PodFacts>,
    /// Sandboxes and containers that are left out, because no kubelet can have named them so or because what they
    /// belong to is missing.
    pub left_out: usize,
    /// Why some containers have no image, where the runtime did not list its images.
    pub no_images: Option<CriError>,
}

impl Listing {
    /// Joins them.
    pub(super) fn of(
        sandboxes: Vec<PodSandbox>,
        containers: Vec<Container>,
        images: &ImageNames,
        allowed: &Allowed,
    ) -> Self {
        let all = sandboxes.len() + containers.len();
        let sandboxes: Vec<_> = sandboxes.into_iter().filter_map(Run::of).collect();
        let mut used = sandboxes.len();
        let uids: HashMap<String, String> =
            sandboxes.iter().map(|run| (run.sandbox.clone(), run.pod.uid.clone())).collect();
        let mut pods: HashMap<String, PodFacts> =
            newest(sandboxes).into_iter().map(|run| (run.pod.uid.clone(), run.facts(allowed))).collect();
        for container in containers {
            let Some(pod) = uids.get(&container.pod_sandbox_id).and_then(|uid| pods.get_mut(uid)) else { continue };
            let Some((id, facts)) = container_facts(container, images) else { continue };
            pod.containers.insert(id, facts);
            used += 1;
        }
        Self { pods: pods.into_values().collect(), left_out: all - used, no_images: None }
    }
}

/// A sandbox whose names are sound.
struct Run {
    sandbox: String,
    pod: PodSandboxMetadata,
    created_at: i64,
    labels: HashMap<String, String>,
    annotations: HashMap<String, String>,
}

impl Run {
    fn of(sandbox: PodSandbox) -> Option<Self> {
        let PodSandbox { id, metadata, created_at, labels, annotations } = sandbox;
        let pod = metadata?;
        let is_sound = [&pod.uid, &pod.namespace, &pod.name].into_iter().all(|name| is_name(name));
        is_sound.then_some(Self { sandbox: id, pod, created_at, labels, annotations })
    }

    fn facts(self, allowed: &Allowed) -> PodFacts {
        let of_the_pod =
            |pairs: HashMap<String, String>| pairs.into_iter().filter(|(key, _value)| !key.starts_with(KUBELETS_OWN));
        PodFacts {
            uid: self.pod.uid,
            namespace: self.pod.namespace,
            name: self.pod.name,
            labels: allowed.labels.pick(of_the_pod(self.labels)),
            annotations: allowed.annotations.pick(of_the_pod(self.annotations)),
            ..PodFacts::default()
        }
    }
}

/// Of each pod its newest run, which has its present labels. Attempts are counted anew once all older ones were
/// removed, so the time decides first.
fn newest(runs: Vec<Run>) -> Vec<Run> {
    let age = |run: &Run| (run.created_at, run.pod.attempt);
    let mut newest: HashMap<String, Run> = HashMap::new();
    for run in runs {
        match newest.get(&run.pod.uid) {
            Some(known) if age(known) >= age(&run) => {}
            _ => drop(newest.insert(run.pod.uid.clone(), run)),
        }
    }
    newest.into_values().collect()
}

fn container_facts(container: Container, images: &ImageNames) -> Option<(String, ContainerFacts)> {
    let image = images.name(&container);
    let name = container.metadata?.name;
    let is_sound = is_name(&name) && is_name(&container.id);
    is_sound.then_some((container.id, ContainerFacts { name, image }))
}

/// Wider than what Kubernetes allows: pods that were made for a test by hand are named as well.
fn is_name(text: &str) -> bool {
    (1..=MOST_NAME_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
