//! Names of pods and containers, from the kubelet's log directories.
//!
//! The kubelet makes `/var/log/pods/NAMESPACE_NAME_UID/CONTAINER/` before it starts
//! a container, on every node and for every runtime. That is enough to name what a
//! cgroup path identifies, without the API server and without a runtime's socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cgroup_path::is_hex;
use super::remembered::{KEEP_NAMES, Remembered};

/// Looking again for something unknown happens at most this often.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A node runs some hundred pods; the rest is room for those that ended.
const MOST_PODS: usize = 4096;

/// As for pods, several containers each.
const MOST_CONTAINERS: usize = 16_384;

/// What the name of a pod's directory says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PodName {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// The log directories of a node.
pub(super) struct PodLogs {
    pods_dir: PathBuf,
    /// `/var/log/containers`: one symlink for each container, with its id. A legacy
    /// path, but the only one that ties a name to an id under most runtimes.
    containers_dir: PathBuf,
    pods: Remembered<String, PodName>,
    /// Container names by id; none where the last search found none.
    containers: Remembered<String, Option<String>>,
    last_listing: Instant,
}

impl PodLogs {
    /// Reads `pods_dir` and the directory `containers` next to it.
    pub(super) fn new(pods_dir: PathBuf, now: Instant) -> Self {
        let mut logs = Self {
            containers_dir: pods_dir.with_file_name("containers"),
            pods_dir,
            pods: Remembered::new(KEEP_NAMES, MOST_PODS),
            containers: Remembered::new(KEEP_NAMES, MOST_CONTAINERS),
            last_listing: now,
        };
        logs.rescan(now);
        logs
    }

    /// Lists both directories again.
    pub(super) fn rescan(&mut self, now: Instant) {
        self.last_listing = now;
        for entry in names_in(&self.pods_dir) {
            if let Some((uid, pod)) = parse_pod_dir(&entry) {
                self.pods.confirm(uid.to_owned(), pod, now);
            }
        }
        for entry in names_in(&self.containers_dir) {
            if let Some((id, name)) = parse_container_link(&entry) {
                let name = Some(name.to_owned());
                self.containers.confirm(id.to_owned(), name, now);
            }
        }
        self.pods.forget(now);
        self.containers.forget(now);
    }

    /// The pod's namespace and name.
    pub(super) fn pod(&mut self, uid: &str, now: Instant) -> Option<PodName> {
        if let Some(pod) = self.pods.get(uid) {
            return Some(pod.clone());
        }
        self.rescan_for_unknown(now);
        self.pods.get(uid).cloned()
    }

    /// The name of container `id` in pod `uid`, once only one can be meant.
    pub(super) fn container(&mut self, uid: &str, id: &str, now: Instant) -> Option<String> {
        if let Some(Some(name)) = self.containers.get(id) {
            return Some(name.clone());
        }
        if self.containers.get_younger(id, RETRY_PAUSE, now).is_some() {
            return None;
        }
        self.rescan_for_unknown(now);
        if let Some(Some(name)) = self.containers.get(id) {
            return Some(name.clone());
        }
        let name = self.container_in_pod_dir(uid, id);
        self.containers.confirm(id.to_owned(), name.clone(), now);
        name
    }

    fn rescan_for_unknown(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last_listing) >= RETRY_PAUSE {
            self.rescan(now);
        }
    }

    /// Looks into the pod's own directory. Read afresh each time: with a listing made
    /// before a second container came, that one would get the first one's name.
    fn container_in_pod_dir(&self, uid: &str, id: &str) -> Option<String> {
        let pod = self.pods.get(uid)?;
        let pod_dir = self.pods_dir.join(format!("{}_{}_{uid}", pod.namespace, pod.name));
        let mut names = dirs_in(&pod_dir);
        if let Some(named) = names.iter().find(|name| links_to_container(&pod_dir.join(name), id)) {
            return Some(named.clone());
        }
        let only = names.pop()?;
        names.is_empty().then_some(only)
    }
}

/// Under docker the log files are links into a directory named after the container's id.
fn links_to_container(container_dir: &Path, id: &str) -> bool {
    names_in(container_dir).iter().any(|log| {
        let target = fs::read_link(container_dir.join(log)).unwrap_or_default();
        target.iter().any(|part| part == id)
    })
}

/// Splits `NAMESPACE_NAME_UID`; none of the three can contain an underscore.
fn parse_pod_dir(entry: &str) -> Option<(&str, PodName)> {
    let mut parts = entry.split('_');
    let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let is_pod = parts.next().is_none() && [namespace, name, uid].iter().all(|p| !p.is_empty());
    let pod = PodName { namespace: namespace.to_owned(), name: name.to_owned() };
    is_pod.then_some((uid, pod))
}

/// Takes id and container name out of `POD_NAMESPACE_CONTAINER-ID.log`. A name so long
/// that the kubelet cut it has lost digits of its id and says nothing.
fn parse_container_link(entry: &str) -> Option<(&str, &str)> {
    let (owner, id) = entry.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = owner.split('_');
    let (_pod, _namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    let is_whole = is_hex(id, 64) && !name.is_empty() && parts.next().is_none();
    is_whole.then_some((id, name))
}

/// The entries of a directory; none if it cannot be read. A name that is not UTF-8
/// was not written by a kubelet.
fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn dirs_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

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

        fn logs(&self, now: Instant) -> PodLogs {
            PodLogs::new(self.pods(), now)
        }

        fn add_container(&self, name: &str) -> PathBuf {
            let dir = self.pods().join(format!("shop_cart-7d9f-x2_{UID}/{name}"));
            fs::create_dir_all(&dir).unwrap();
            dir
        }

        fn add_link(&self, name: &str) {
            let dir = self.0.path().join("containers");
            fs::create_dir_all(&dir).unwrap();
            symlink("/nowhere", dir.join(name)).unwrap();
        }
    }

    #[test]
    fn a_pod_is_known_by_its_uid() {
        let fake = Fake::new();
        fake.add_container("app");
        let now = Instant::now();
        let pod = fake.logs(now).pod(UID, now).unwrap();
        assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("shop", "cart-7d9f-x2"));
    }

    #[test]
    fn other_entries_are_not_pods() {
        for entry in ["", "_", "__", "a_b", "a__b", "_a_b", "a_b_", "a_b_c_d", "_a_b_c", "lost+found"] {
            assert_eq!(parse_pod_dir(entry), None, "{entry}");
        }
    }

    #[test]
    fn a_new_pod_is_found_but_not_looked_for_all_the_time() {
        let fake = Fake::new();
        let start = Instant::now();
        let mut logs = fake.logs(start);
        fake.add_container("app");
        assert_eq!(logs.pod(UID, start + RETRY_PAUSE / 2), None);
        assert!(logs.pod(UID, start + RETRY_PAUSE).is_some());
    }

    #[test]
    fn a_pod_is_remembered_after_its_logs_are_gone() {
        let fake = Fake::new();
        fake.add_container("app");
        let start = Instant::now();
        let mut logs = fake.logs(start);
        assert!(logs.container(UID, APP, start).is_some());
        fs::remove_dir_all(fake.pods()).unwrap();

        let late = start + Duration::from_secs(150);
        logs.rescan(late);
        assert!(logs.pod(UID, late).is_some());
        assert!(logs.container(UID, APP, late).is_some());

        logs.rescan(start + KEEP_NAMES);
        assert_eq!(logs.pod(UID, start + KEEP_NAMES), None);
    }

    #[test]
    fn an_only_container_needs_no_id() {
        let fake = Fake::new();
        fake.add_container("app");
        let now = Instant::now();
        let name = fake.logs(now).container(UID, APP, now);
        assert_eq!(name.as_deref(), Some("app"));
    }

    #[test]
    fn two_candidates_give_no_name() {
        let fake = Fake::new();
        fake.add_container("app");
        fake.add_container("sidecar");
        let now = Instant::now();
        assert_eq!(fake.logs(now).container(UID, APP, now), None);
    }

    #[test]
    fn a_container_that_came_later_does_not_get_the_first_ones_name() {
        let fake = Fake::new();
        fake.add_container("init");
        let now = Instant::now();
        let mut logs = fake.logs(now);
        assert!(logs.container(UID, SIDECAR, now).is_some());
        fake.add_container("app");
        assert_eq!(logs.container(UID, APP, now), None);
    }

    #[test]
    fn the_containers_directory_ties_names_to_ids() {
        let fake = Fake::new();
        fake.add_container("app");
        fake.add_container("side-car");
        fake.add_link(&format!("cart-7d9f-x2_shop_app-{APP}.log"));
        fake.add_link(&format!("cart-7d9f-x2_shop_side-car-{SIDECAR}.log"));
        let now = Instant::now();
        let mut logs = fake.logs(now);
        assert_eq!(logs.container(UID, APP, now).as_deref(), Some("app"));
        assert_eq!(logs.container(UID, SIDECAR, now).as_deref(), Some("side-car"));
    }

    #[test]
    fn a_link_that_comes_later_is_found() {
        let fake = Fake::new();
        fake.add_container("app");
        fake.add_container("sidecar");
        let start = Instant::now();
        let mut logs = fake.logs(start);
        assert_eq!(logs.container(UID, APP, start), None);
        fake.add_link(&format!("cart-7d9f-x2_shop_app-{APP}.log"));
        let later = start + RETRY_PAUSE;
        assert_eq!(logs.container(UID, APP, later).as_deref(), Some("app"));
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
        let now = Instant::now();
        let mut logs = fake.logs(now);
        assert_eq!(logs.container(UID, APP, now).as_deref(), Some("app"));
        assert_eq!(logs.container(UID, SIDECAR, now), None);
    }

    #[test]
    fn a_node_without_a_kubelet() {
        let now = Instant::now();
        let mut logs = PodLogs::new(PathBuf::from("/nonexistent/pods"), now);
        assert_eq!(logs.pod(UID, now + RETRY_PAUSE), None);
        assert_eq!(logs.container(UID, APP, now + RETRY_PAUSE), None);
    }
}
