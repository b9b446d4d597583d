//! Names of pods and containers, from the kubelet's log folders.
//!
//! The kubelet makes `/var/log/pods/NAMESPACE_NAME_UID/CONTAINER/` before it starts a container, on every node and for
//! every runtime (`BuildPodLogsDirectory` in its `kuberuntime`). That is enough to name what a cgroup's path identifies,
//! without the API server and without a runtime's socket.

use std::{
    collections::HashMap,
    fs::{self, DirEntry},
    io,
    path::Path,
};

use super::{
    facts::{ContainerFacts, PodFacts},
    failure::Failure,
};
use crate::attribution::cgroup_path::is_hex;

/// The pods that have logs in `folder`. Their containers' ids are in the folder `containers` beside it: one link for each
/// container. A legacy path, but the only one that ties a name to an id under most runtimes.
pub fn list(folder: &Path) -> Result<Vec<PodFacts>, Failure> {
    let entries = fs::read_dir(folder).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "in a container mount the host's /var/log/pods read-only (see --pod-logs)",
            _ => "let the agent read it, or give another --pod-logs",
        };
        Failure::new(format!("{}: {error}", folder.display()), remedy)
    })?;
    let ids = Ids::read(&folder.with_file_name("containers"));
    // A name that is not UTF-8 was not written by a kubelet.
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter_map(|name| pod(folder, &name, &ids)).collect())
}

fn pod(folder: &Path, entry: &str, ids: &Ids) -> Option<PodFacts> {
    let [namespace, name, uid] = parse_pod_folder(entry)?;
    let folder = folder.join(entry);
    let container_names = containers_in(&folder);
    let mut containers = HashMap::new();
    for container in &container_names {
        let ids = ids.of(namespace, name, container).map(str::to_owned);
        for id in ids.chain(linked_to(&folder.join(container))) {
            containers.insert(id, ContainerFacts { name: container.clone(), image: None });
        }
    }
    Some(PodFacts {
        uid: uid.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        container_names,
        containers,
        ..PodFacts::default()
    })
}

/// Splits `NAMESPACE_NAME_UID`; none of the three can contain an underscore.
fn parse_pod_folder(entry: &str) -> Option<[&str; 3]> {
    let mut parts = entry.split('_');
    let pod = [parts.next()?, parts.next()?, parts.next()?];
    (parts.next().is_none() && pod.iter().all(|part| !part.is_empty())).then_some(pod)
}

fn containers_in(folder: &Path) -> Vec<String> {
    let is_folder = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let folders = fs::read_dir(folder).into_iter().flatten().flatten().filter(is_folder);
    folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Under docker the log files are links into a folder named after the container's id.
fn linked_to(container: &Path) -> Vec<String> {
    let is_link = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
    let links = fs::read_dir(container).into_iter().flatten().flatten().filter(is_link);
    let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    let id = |target: std::path::PathBuf| {
        target.iter().filter_map(|part| part.to_str()).find(|part| is_hex(part, 64)).map(str::to_owned)
    };
    targets.filter_map(id).collect()
}

/// Container ids by pod and container.
#[derive(Default)]
struct Ids(HashMap<String, Vec<String>>);

impl Ids {
    fn read(folder: &Path) -> Self {
        let mut ids = Self::default();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if let Some((owner, id)) = entry.file_name().to_str().and_then(parse_container_link) {
                ids.0.entry(owner.to_owned()).or_default().push(id.to_owned());
            }
        }
        ids
    }

    /// Those of the container that runs and of those before it.
    fn of(&self, namespace: &str, pod: &str, container: &str) -> impl Iterator<Item = &str> {
        let ids = self.0.get(&format!("{pod}_{namespace}_{container}"));
        ids.into_iter().flatten().map(String::as_str)
    }
}

/// Splits `POD_NAMESPACE_CONTAINER-ID.log` before the id. A name so long that the kubelet cut it has lost digits of its id
/// and says nothing.
fn parse_container_link(entry: &str) -> Option<(&str, &str)> {
    let (owner, id) = entry.strip_suffix(".log")?.rsplit_once('-')?;
    let is_whole = owner.split('_').count() == 3 && owner.split('_').all(|part| !part.is_empty());
    (is_whole && is_hex(id, 64)).then_some((owner, id))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, path::PathBuf};

    use super::*;

    const UID: &str = "0a1b2c3d-1111-4222-8333-445566778899";
    const APP: &str = "1f0e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
    const SIDECAR: &str = "a0b1c2d3e4f5061728394a5b6c7d8e9f0a1b2c3d4e5f60718293a4b5c6d7e8f9";

    /// A `/var/log` of our own.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            fs::create_dir(fake.pods()).unwrap();
            fake
        }

        fn pods(&self) -> PathBuf {
            self.0.path().join("pods")
        }

        /// The only pod there is.
        fn pod(&self) -> PodFacts {
            let mut pods = list(&self.pods()).unwrap();
            assert_eq!(pods.len(), 1);
            pods.remove(0)
        }

        fn add_container(&self, name: &str) -> PathBuf {
            let folder = self.pods().join(format!("shop_cart-7d9f-x2_{UID}/{name}"));
            fs::create_dir_all(&folder).unwrap();
            folder
        }

        fn add_link(&self, name: &str) {
            let folder = self.0.path().join("containers");
            fs::create_dir_all(&folder).unwrap();
            symlink("/nowhere", folder.join(name)).unwrap();
        }
    }

    fn name<'a>(pod: &'a PodFacts, id: &str) -> Option<&'a str> {
        pod.containers.get(id).map(|container| container.name.as_str())
    }

    #[test]
    fn a_pod_is_known_by_its_uid() {
        let fake = Fake::new();
        fake.add_container("app");
        fs::create_dir(fake.pods().join("lost+found")).unwrap();
        let pod = fake.pod();
        assert_eq!((pod.uid.as_str(), pod.namespace.as_str(), pod.name.as_str()), (UID, "shop", "cart-7d9f-x2"));
        assert_eq!(pod.container_names, ["app"]);
    }

    #[test]
    fn other_entries_are_not_pods() {
        for entry in ["", "_", "__", "a_b", "a__b", "_a_b", "a_b_", "a_b_c_d", "_a_b_c", "lost+found"] {
            assert_eq!(parse_pod_folder(entry), None, "{entry}");
        }
    }

    #[test]
    fn the_containers_folder_ties_names_to_ids() {
        let fake = Fake::new();
        fake.add_container("app");
        fake.add_container("side-car");
        fake.add_link(&format!("cart-7d9f-x2_shop_app-{APP}.log"));
        fake.add_link(&format!("cart-7d9f-x2_shop_side-car-{SIDECAR}.log"));
        let pod = fake.pod();
        assert_eq!((name(&pod, APP), name(&pod, SIDECAR)), (Some("app"), Some("side-car")));
    }

    #[test]
    fn another_pods_container_of_the_same_name_is_not_this_ones() {
        let fake = Fake::new();
        fake.add_container("app");
        fake.add_link(&format!("cart-7d9f-x3_shop_app-{APP}.log"));
        assert_eq!(name(&fake.pod(), APP), None);
    }

    #[test]
    fn odd_links_say_nothing() {
        for entry in [
            "".to_owned(),
            ".log".to_owned(),
            format!("{APP}.log"),
            format!("pod_ns_app-{APP}"),
            format!("pod_ns_app-{}.log", &APP[1..]),
            format!("pod_ns_-{APP}.log"),
            format!("pod_app-{APP}.log"),
            format!("a_b_c_d-{APP}.log"),
        ] {
            assert_eq!(parse_container_link(&entry), None, "{entry}");
        }
    }

    #[test]
    fn dockers_log_files_link_to_the_container() {
        let fake = Fake::new();
        let target = format!("/var/lib/docker/containers/{APP}/{APP}-json.log");
        symlink(target, fake.add_container("app").join("0.log")).unwrap();
        fs::write(fake.add_container("sidecar").join("0.log"), "").unwrap();
        let pod = fake.pod();
        assert_eq!((name(&pod, APP), name(&pod, SIDECAR)), (Some("app"), None));
    }

    #[test]
    fn a_node_without_a_kubelet() {
        let failure = list(Path::new("/nonexistent/pods")).unwrap_err();
        assert!(failure.to_string().contains("mount the host's /var/log/pods"), "{failure}");
    }
}
