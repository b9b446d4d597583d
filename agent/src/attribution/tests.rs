//! The whole way from clues to an owner, over trees shaped like a node's.

use super::*;
use std::fs;
use std::os::unix::fs::{DirEntryExt, symlink};
use std::path::Path;
use std::time::Duration;

const UID: &str = "0a1b2c3d-1111-4222-8333-445566778899";
const ID: &str = "1f0e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const OTHER_ID: &str = "a0b1c2d3e4f5061728394a5b6c7d8e9f0a1b2c3d4e5f60718293a4b5c6d7e8f9";
const START: u64 = 777;

/// A node below a temporary directory: `proc`, `cgroup` and `log/pods`.
struct Node(tempfile::TempDir);

impl Node {
    fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap())
    }

    /// In memory where there is a place for that, because a large tree on a disk takes long to make.
    fn in_memory() -> Self {
        let place = Some(Path::new("/dev/shm")).filter(|place| place.is_dir());
        Self::in_folder(tempfile::tempdir_in(place.unwrap_or(&std::env::temp_dir())).unwrap())
    }

    fn in_folder(folder: tempfile::TempDir) -> Self {
        let node = Self(folder);
        for dir in ["proc", "cgroup", "log/pods"] {
            fs::create_dir_all(node.path(dir)).unwrap();
        }
        node
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn attributor(&self, now: Instant) -> Attributor {
        let config = AttributionConfig {
            proc_root: self.path("proc"),
            cgroup_root: Some(self.path("cgroup")),
            sources: Sources { logs: Some(self.path("log/pods")), ..Sources::default() },
            node: Some("node-7".into()),
            conntrack: None,
        };
        let mut attributor = Attributor::new_at(config, now).unwrap();
        // As on the host, wherever these tests run.
        attributor.cgroups.spells_like_proc = true;
        attributor
    }

    fn add_cgroup(&self, path: &str) -> CgroupClue {
        let dir = self.path("cgroup").join(path);
        fs::create_dir_all(&dir).unwrap();
        let mut siblings = fs::read_dir(dir.parent().unwrap()).unwrap().flatten();
        let id = siblings.find(|entry| entry.path() == dir).unwrap().ino();
        CgroupClue { id, is_creator_only: false }
    }

    fn root_cgroup(&self) -> CgroupClue {
        use std::os::unix::fs::MetadataExt;
        CgroupClue { id: fs::metadata(self.path("cgroup")).unwrap().ino(), is_creator_only: false }
    }

    fn add_process(&self, pid: u32, cgroups: &str) -> ProcessClue {
        let dir = self.path("proc").join(pid.to_string());
        fs::create_dir(&dir).unwrap();
        // Fields 4 to 52, the 22nd being the start time.
        let rest: Vec<String> = (4..=52).map(|field| if field == 22 { START } else { 0 }.to_string()).collect();
        fs::write(dir.join("stat"), format!("{pid} (app) S {}\n", rest.join(" "))).unwrap();
        symlink("/usr/bin/app", dir.join("exe")).unwrap();
        fs::write(dir.join("cgroup"), cgroups).unwrap();
        ProcessClue { pid, start_boottime_ns: START * 1_000_000_000 / procfs::ticks_per_second(), comm: "app".into() }
    }

    fn add_pod(&self, container: &str) {
        let dir = format!("log/pods/shop_cart-0_{UID}/{container}");
        fs::create_dir_all(self.path(&dir)).unwrap();
    }
}

fn json(owner: &Owner) -> serde_json::Value {
    serde_json::to_value(owner).unwrap()
}

#[test]
fn a_pod_on_a_cgroup2_node() {
    let node = Node::new();
    let uid = UID.replace('-', "_");
    let path = format!("kubepods.slice/kubepods-pod{uid}.slice/cri-containerd-{ID}.scope");
    let cgroup = node.add_cgroup(&path);
    let id = cgroup.id;
    let process = node.add_process(4711, "0::/\n");
    node.add_pod("app");
    let now = Instant::now();

    let owner = node.attributor(now).attribute_at(&Clues { process: Some(process), cgroup: Some(cgroup) }, now);
    assert_eq!(
        json(&owner),
        serde_json::json!({
            "process": {"pid": 4711, "comm": "app", "exe": "/usr/bin/app"},
            "container": {"id": ID, "name": "app", "runtime": "containerd"},
            "pod": {"namespace": "shop", "name": "cart-0", "uid": UID, "node": "node-7"},
            "cgroup": {"id": id, "path": format!("/{path}")},
            "attribution": {"container": "socket_cgroup", "pod": "pod_logs", "container_name": "pod_logs"},
        })
    );
}

/// A connection older than the agent, where the kernel has no iterator: it is a web server's that systemd listened for.
#[test]
fn the_own_cgroup_of_a_known_process_goes_before_the_creators() {
    let node = Node::new();
    let creator = CgroupClue { is_creator_only: true, ..node.add_cgroup("init.scope") };
    let own = node.add_cgroup("system.slice/web.service");
    let process = node.add_process(4711, "0::/system.slice/web.service\n");
    let now = Instant::now();
    let mut attributor = node.attributor(now);
    let mut cgroup_of = |process: Option<&ProcessClue>, cgroup: Option<&CgroupClue>| {
        let clues = Clues { process: process.cloned(), cgroup: cgroup.cloned() };
        let cgroup = attributor.attribute_at(&clues, now).cgroup.unwrap();
        (cgroup.id, cgroup.creator_only)
    };
    assert_eq!(cgroup_of(Some(&process), Some(&creator)), (own.id, false));
    assert_eq!(cgroup_of(Some(&process), None), (own.id, false));
    assert_eq!(cgroup_of(None, Some(&creator)), (creator.id, true));
    let recorded = node.root_cgroup();
    assert_eq!(cgroup_of(Some(&process), Some(&recorded)), (recorded.id, false), "what the kernel saw stays");
    // Inside of a container's cgroup namespace the paths begin elsewhere.
    let mut attributor = node.attributor(now);
    attributor.cgroups.spells_like_proc = false;
    let owner = attributor.attribute_at(&Clues { process: Some(process), cgroup: Some(creator.clone()) }, now);
    assert_eq!(owner.cgroup.map(|cgroup| (cgroup.id, cgroup.creator_only)), Some((creator.id, true)));
}

#[test]
fn nothing_known_is_nothing_said() {
    let node = Node::new();
    let now = Instant::now();
    let owner = node.attributor(now).attribute_at(&Clues::default(), now);
    assert_eq!(owner, Owner::default());
    assert_eq!(json(&owner), serde_json::json!({}));
}

#[test]
fn unreadable_clues_are_repeated_as_they_are() {
    let now = Instant::now();
    let nowhere = PathBuf::from("/nonexistent");
    let config = AttributionConfig {
        proc_root: nowhere.clone(),
        cgroup_root: Some(nowhere.clone()),
        sources: Sources { logs: Some(nowhere), ..Sources::default() },
        ..AttributionConfig::default()
    };
    let clues = Clues {
        process: Some(ProcessClue { pid: 1, start_boottime_ns: 1, comm: "a\u{1b}[31m".into() }),
        cgroup: Some(CgroupClue { id: 99, is_creator_only: true }),
    };
    let owner = Attributor::new_at(config, now).unwrap().attribute_at(&clues, now);
    assert_eq!(
        json(&owner),
        serde_json::json!({
            "process": {"pid": 1, "comm": "a\u{1b}[31m"},
            "cgroup": {"id": 99, "creator": true},
        })
    );
}

#[test]
fn without_the_v2_tree_the_process_names_the_container() {
    let node = Node::new();
    let process = node.add_process(7, &format!("4:memory:/kubepods/pod{UID}/{ID}\n0::/\n"));
    node.add_pod("app");
    let now = Instant::now();
    let owner =
        node.attributor(now).attribute_at(&Clues { process: Some(process), cgroup: Some(node.root_cgroup()) }, now);
    assert_eq!(owner.cgroup.unwrap().path.as_deref(), Some("/"));
    assert_eq!(owner.pod.unwrap().name.as_deref(), Some("cart-0"));
    let container = owner.container.unwrap();
    assert_eq!(container.name.as_deref(), Some("app"));
    assert_eq!(container.runtime, None, "no prefix, no runtime");
}

#[test]
fn another_process_with_the_same_pid_names_nothing() {
    let node = Node::new();
    let mut process = node.add_process(7, &format!("0::/docker/{ID}\n"));
    process.start_boottime_ns += 1_000_000_000;
    let now = Instant::now();
    let clues = Clues { process: Some(process), cgroup: None };
    let owner = node.attributor(now).attribute_at(&clues, now);
    assert_eq!(owner.container, None);
    assert_eq!(owner.process.unwrap().exe, None);
}

#[test]
fn the_user_of_a_socket_counts_more_than_its_creator() {
    let node = Node::new();
    let process = node.add_process(7, &format!("0::/docker/{ID}\n"));
    let mut cgroup = node.add_cgroup(&format!("docker/{OTHER_ID}"));
    let now = Instant::now();
    let mut attributor = node.attributor(now);
    for (is_creator_only, expected) in [(true, ID), (false, OTHER_ID)] {
        cgroup.is_creator_only = is_creator_only;
        let clues = Clues { process: Some(process.clone()), cgroup: Some(cgroup.clone()) };
        let owner = attributor.attribute_at(&clues, now);
        assert_eq!(owner.container.unwrap().id, expected);
    }
}

#[test]
fn a_late_reset_finds_a_pod_that_is_gone() {
    let node = Node::new();
    let clues = Clues { process: None, cgroup: Some(node.add_cgroup(&format!("kubepods/pod{UID}/{ID}"))) };
    node.add_pod("app");
    let start = Instant::now();
    let mut attributor = node.attributor(start);
    let before = attributor.attribute_at(&clues, start);
    assert!(before.container.as_ref().unwrap().name.is_some());

    remove_all(&node.path("cgroup"));
    remove_all(&node.path("log/pods"));
    let late = start + Duration::from_secs(150);
    attributor.rescan_at(late);
    assert_eq!(attributor.attribute_at(&clues, late), before);
}

#[test]
fn a_pod_without_logs_keeps_its_uid() {
    let node = Node::new();
    let clues = Clues { process: None, cgroup: Some(node.add_cgroup(&format!("kubepods/pod{UID}/{ID}"))) };
    let now = Instant::now();
    let owner = node.attributor(now).attribute_at(&clues, now);
    assert_eq!(json(&owner)["pod"], serde_json::json!({"uid": UID, "node": "node-7"}));
}

/// The kubelet names the cgroup and the log folder of a static pod after the hash of its manifest, which the API
/// server shows as the annotation `kubernetes.io/config.hash` and not as the uid.
#[test]
fn a_static_pod_is_named_by_its_hash() {
    const HASH: &str = "3e61c214bc3ed9ff81e21474dd6cba17";
    let node = Node::new();
    let path =
        format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{HASH}.slice/cri-containerd-{ID}");
    let clues = Clues { process: None, cgroup: Some(node.add_cgroup(&path)) };
    fs::create_dir_all(node.path(&format!("log/pods/kube-system_etcd-node-7_{HASH}/etcd"))).unwrap();
    let now = Instant::now();
    let owner = node.attributor(now).attribute_at(&clues, now);
    assert_eq!(
        json(&owner)["pod"],
        serde_json::json!({"namespace": "kube-system", "name": "etcd-node-7", "uid": HASH, "node": "node-7"})
    );
    assert_eq!(owner.container.unwrap().name.as_deref(), Some("etcd"));
}

/// An agent in a cgroup namespace reads its neighbour's path in `/proc` without their common pod.
#[test]
fn two_sources_complete_each_other() {
    let node = Node::new();
    let process = node.add_process(7, &format!("0::/../cri-containerd-{ID}.scope\n"));
    let mut cgroup = node.add_cgroup(&format!("kubepods/pod{UID}/{ID}"));
    node.add_pod("app");
    let now = Instant::now();
    let mut attributor = node.attributor(now);
    for is_creator_only in [false, true] {
        cgroup.is_creator_only = is_creator_only;
        let clues = Clues { process: Some(process.clone()), cgroup: Some(cgroup.clone()) };
        let owner = attributor.attribute_at(&clues, now);
        assert_eq!(owner.pod.unwrap().name.as_deref(), Some("cart-0"));
        assert_eq!(owner.container.unwrap().runtime.as_deref(), Some("containerd"));
    }
}

/// A pod that starts while the agent runs is met by the walk, or asked for by its first event; once it is gone its
/// names stay for the time in which the kernel side still knows its connections.
#[test]
fn pods_come_and_go_while_the_agent_runs() {
    let node = Node::new();
    let start = Instant::now();
    let second = |count| start + Duration::from_secs(count);
    let mut attributor = node.attributor(start);
    let clues = Clues { process: None, cgroup: Some(node.add_cgroup(&format!("kubepods/pod{UID}/{ID}"))) };
    node.add_pod("app");
    let mut found = attributor.attribute_at(&clues, second(2));
    let patience = Instant::now() + Duration::from_secs(10);
    while found.pod.as_ref().unwrap().name.is_none() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(10));
        attributor.complete(&mut found);
    }
    assert_eq!(found.pod.as_ref().unwrap().name.as_deref(), Some("cart-0"));

    remove_all(&node.path("cgroup"));
    remove_all(&node.path("log/pods"));
    for count in (5..=120).step_by(5) {
        attributor.rescan_at(second(count));
        assert_eq!(attributor.attribute_at(&clues, second(count)), found, "{count} s");
    }
    attributor.rescan_at(second(200));
    let forgotten = attributor.attribute_at(&clues, second(200));
    assert_eq!((forgotten.pod, forgotten.container), (None, None));
}

#[test]
fn a_large_node_is_looked_through_more_seldom() {
    assert_eq!(rescan_pause(Duration::from_micros(300)), SHORTEST_RESCAN_PAUSE);
    assert_eq!(rescan_pause(Duration::from_millis(4)), Duration::from_secs(2));
    assert_eq!(rescan_pause(Duration::from_secs(9)), LONGEST_RESCAN_PAUSE);
}

/// What a workload can choose freely: its process's name, the names of cgroups below its own, and of log folders if it
/// may write them. Whatever it chooses, the result is one line of JSON.
#[test]
fn hostile_names_stay_in_their_strings() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let node = Node::new();
    let below = format!("kubepods/pod{UID}/{ID}");
    node.add_cgroup(&below);
    let parent = node.path("cgroup").join(&below);
    let long = [b'x'; 255];
    let names: [&[u8]; 6] =
        [b"a\x1b[2J\x07", b"\xff\xfe\x80", b"\"},{\"type\":\"reset", "\u{2028}\u{202e}".as_bytes(), b"\r\n", &long];
    for name in names {
        fs::create_dir(parent.join(OsStr::from_bytes(name))).unwrap();
        let log = [b"shop_", &name[..name.len().min(200)], b"_", UID.as_bytes()].concat();
        fs::create_dir_all(node.path("log/pods").join(OsStr::from_bytes(&log))).unwrap();
        fs::create_dir_all(node.path("log/containers").join(OsStr::from_bytes(name))).unwrap();
    }
    let now = Instant::now();
    let mut attributor = node.attributor(now);
    let ids: Vec<u64> = fs::read_dir(&parent).unwrap().flatten().map(|entry| entry.ino()).collect();
    assert_eq!(ids.len(), names.len());
    for id in ids {
        let process = ProcessClue { pid: 9, start_boottime_ns: 1, comm: "\n\u{fffd}\u{0}\u{9b}".into() };
        let cgroup = CgroupClue { id, is_creator_only: false };
        let owner = attributor.attribute_at(&Clues { process: Some(process), cgroup: Some(cgroup) }, now);
        assert_eq!(owner.container.as_ref().map(|container| container.id.as_str()), Some(ID));
        assert!(owner.cgroup.as_ref().unwrap().path.as_ref().unwrap().starts_with("/kubepods/"));
        let line = serde_json::to_string(&owner).unwrap();
        assert!(line.bytes().all(|byte| byte >= b' '), "{line}");
        let again: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(again, json(&owner));
    }
}

/// The largest node Kubernetes speaks of, and more. Once a walk has met everything, look-ups need no disk: they are
/// answered after everything was removed from it. `--nocapture` shows how long it takes.
#[test]
fn a_node_of_500_pods_and_5000_containers() {
    const PODS: usize = 500;
    const EACH: usize = 10;
    let node = Node::in_memory();
    let mut clues = Vec::new();
    fs::create_dir_all(node.path("log/containers")).unwrap();
    for pod in 0..PODS {
        let uid = format!("{pod:08x}{}", &UID[8..]);
        let slice = format!("kubepods.slice/kubepods-pod{}.slice", uid.replace('-', "_"));
        for number in 0..EACH {
            let id = format!("{pod:08x}{number:08x}{}", &ID[16..]);
            clues.push((node.add_cgroup(&format!("{slice}/cri-containerd-{id}.scope")), pod, number));
            fs::create_dir_all(node.path(&format!("log/pods/shop_cart-{pod}_{uid}/c{number}"))).unwrap();
            symlink("/nowhere", node.path(&format!("log/containers/cart-{pod}_shop_c{number}-{id}.log"))).unwrap();
        }
    }
    let now = Instant::now();
    let mut attributor = node.attributor(now);
    let walk = Instant::now();
    attributor.cgroups.rescan(now);
    let list = Instant::now();
    let again = Workers::start(Sources { logs: Some(node.path("log/pods")), ..Sources::default() }).unwrap();
    let listed = Instant::now();
    assert_eq!(again.store().count(Source::PodLogs), PODS);
    remove_all(&node.path("cgroup"));
    remove_all(&node.path("log"));

    let ask = Instant::now();
    for (cgroup, pod, number) in &clues {
        let owner = attributor.attribute_at(&Clues { process: None, cgroup: Some(cgroup.clone()) }, now);
        assert_eq!(owner.pod.unwrap().name, Some(format!("cart-{pod}")));
        assert_eq!(owner.container.unwrap().name, Some(format!("c{number}")));
    }
    let each = ask.elapsed() / u32::try_from(clues.len()).unwrap();
    println!("cgroup walk {:?}, pod logs {:?}, one look-up {each:?}", list - walk, listed - list);
}

fn remove_all(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        fs::remove_dir_all(entry.path()).unwrap();
    }
}
