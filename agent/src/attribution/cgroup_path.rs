//! What a cgroup path says about container, runtime and pod: a pure function.
//!
//! The kubelet names a pod's cgroup after its uid and the runtime names the
//! container's after its id, in several spellings (cgroupfs or systemd driver,
//! a runtime's prefix or none). The path is read from the inside out: the last
//! pod counts, because nodes themselves may run in containers (kind).

/// What one path told; all unknown for anything that is not a container.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ContainerRef {
    /// The full container id, 64 hex digits.
    pub container_id: Option<String>,
    /// `containerd`, `cri-o`, `docker` or `podman`; unknown for an id without prefix.
    pub runtime: Option<&'static str>,
    /// The pod's uid with dashes, or 32 hex digits for a static pod.
    pub pod_uid: Option<String>,
}

/// Reads `path`, a cgroup's path in whichever hierarchy.
pub fn parse(path: &str) -> ContainerRef {
    // The kernel marks the removed cgroup of a process that has not been reaped.
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let parts: Vec<&str> = path.split('/').collect();
    let last_pod = parts.iter().enumerate().rev().find_map(|(index, part)| Some((index, pod_uid(part)?)));

    match last_pod {
        // The first id below the pod: what follows was made by the container itself,
        // be it a sub-group or docker in docker. The search starts at the pod's own
        // part since the colon form holds both.
        Some((index, uid)) => {
            let leaf = (index..parts.len()).find_map(|at| Leaf::read(&parts, at));
            ContainerRef { pod_uid: Some(uid), ..leaf.map(ContainerRef::from).unwrap_or_default() }
        }
        None => {
            (0..parts.len()).rev().find_map(|at| Leaf::read(&parts, at)).map(ContainerRef::from).unwrap_or_default()
        }
    }
}

/// A pod's uid if `part` is a pod's cgroup: `podUID`, the systemd driver's
/// `kubepods-burstable-podUID_WITH_UNDERSCORES.slice`, or that with `:runtime:ID` behind it.
fn pod_uid(part: &str) -> Option<String> {
    let head = part.split(':').next()?;
    let name = match head.strip_suffix(".slice") {
        // systemd spells a slice's parents out before it, each followed by a dash.
        Some(slice) => slice.rsplit('-').next()?,
        None => head,
    };
    let uid = name.strip_prefix("pod")?.replace('_', "-");
    is_uid(&uid).then_some(uid)
}

/// A UUID, or the MD5 the kubelet gives a static pod as uid.
fn is_uid(text: &str) -> bool {
    if is_hex(text, 32) {
        return true;
    }
    let mut groups = text.split('-');
    [8, 4, 4, 4, 12].into_iter().all(|length| groups.next().is_some_and(|group| is_hex(group, length)))
        && groups.next().is_none()
}

/// The part of a path that a runtime named after its container.
struct Leaf<'a> {
    id: &'a str,
    runtime: Option<&'static str>,
}

impl<'a> Leaf<'a> {
    /// Reads `parts[at]`: `PREFIX-ID.scope`, `PREFIX-ID`, `…:PREFIX:ID` or the bare id.
    fn read(parts: &[&'a str], at: usize) -> Option<Self> {
        let part = parts[at];
        let unit = part.strip_suffix(".scope").unwrap_or(part);
        let (prefix, id) = match unit.rfind(['-', ':']) {
            Some(end) => (&unit[..end], &unit[end + 1..]),
            None => ("", unit),
        };
        // The monitor process beside the container carries the container's id, but
        // is not in it.
        if !is_hex(id, 64) || prefix.ends_with("conmon") {
            return None;
        }
        // Below podman's parent the bare id is a pod's; its containers carry a prefix.
        if prefix.is_empty() && at > 0 && parts[at - 1] == "libpod_parent" {
            return None;
        }
        let runtime = match prefix.rsplit(':').next().unwrap_or(prefix) {
            "cri-containerd" | "nerdctl" => Some("containerd"),
            "crio" => Some("cri-o"),
            "docker" => Some("docker"),
            // "payload" where podman splits its unit's cgroup between container and monitor.
            "libpod" | "libpod-payload" => Some("podman"),
            // Docker's default parent. Below a pod several runtimes leave the prefix out.
            "" if at > 0 && parts[at - 1] == "docker" => Some("docker"),
            _ => None,
        };
        Some(Self { id, runtime })
    }
}

impl From<Leaf<'_>> for ContainerRef {
    fn from(leaf: Leaf<'_>) -> Self {
        Self { container_id: Some(leaf.id.to_owned()), runtime: leaf.runtime, pod_uid: None }
    }
}

/// Exactly `length` lower-case hex digits, as every runtime writes them.
pub(super) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
