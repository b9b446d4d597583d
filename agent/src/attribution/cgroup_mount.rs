//! Where the tree of cgroup v2 can be read from, and how its names begin there.
//!
//! On the host any mount shows the whole tree. In a container of its own cgroup
//! namespace the usual mount shows that container's subtree only and calls its top
//! `/`: names read there would lack everything above. The host's tree is then behind
//! a mount of the host's folder, behind the root of PID 1, or behind a file handle.
//! Each takes another right, so all of them are tried.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use procfs::process::MountInfo;

use super::cgroup_handle::CgroupHandles;

/// The root of the hierarchy is the first node that kernfs makes, hence this number
/// in every kernel. Of another file system it would prove nothing.
pub(super) const ROOT_ID: u64 = 1;

/// `/proc/self/ns/cgroup` outside of every container: `PROC_CGROUP_INIT_INO` of the
/// kernel's `include/linux/proc_ns.h`.
const INITIAL_NAMESPACE: &str = "cgroup:[4026531835]";

/// A directory whose cgroups have known names.
pub(super) struct CgroupMount {
    /// Its path for us.
    pub(super) dir: PathBuf,
    /// Its path in the hierarchy, no slash at the end.
    above: String,
    /// Opens cgroups by their ids, where that works.
    pub(super) handles: Option<CgroupHandles>,
    /// It is the root of the hierarchy.
    pub(super) is_whole: bool,
    /// Keeps a `dir` alive that is the link of a descriptor of ours.
    _opened: Option<File>,
}

impl CgroupMount {
    /// The best there is at or below `configured`, or anywhere without it.
    pub(super) fn find(configured: Option<&Path>, proc_root: &Path) -> Option<Self> {
        let mounts = mounts_of(Path::new("/proc/self"));
        let own = widest_first(&mounts, configured.unwrap_or(Path::new("/")));
        own.iter()
            .find_map(|mount| Self::whole(mount.mount_point.clone(), &mount.majmin))
            .or_else(|| Self::as_configured(configured?, &mounts))
            .or_else(|| Self::of_pid_1(proc_root))
            .or_else(|| own.iter().find_map(|mount| Self::by_handle(&mount.mount_point)))
            .or_else(|| own.iter().find_map(|mount| Self::part(mount)))
    }

    /// The id of a cgroup that is somewhere in the tree, by its path in the hierarchy.
    pub(super) fn id_of(&self, path: &str) -> Option<u64> {
        if !self.is_whole || !is_below_the_readers_root(path) {
            return None;
        }
        let dir = self.dir.join(path.trim_start_matches('/'));
        fs::metadata(dir).ok().filter(fs::Metadata::is_dir).map(|dir| dir.ino())
    }

    /// Whether any cgroup2 is mounted for us, with known names or without.
    pub(super) fn is_any_mounted() -> bool {
        mounts_of(Path::new("/proc/self")).iter().any(|mount| mount.fs_type == "cgroup2")
    }

    /// A cgroup's path in the hierarchy, from its path below this directory.
    pub(super) fn absolute(&self, below: &Path) -> String {
        let below = below.to_string_lossy();
        if below.is_empty() && !self.above.is_empty() {
            return self.above.clone();
        }
        format!("{}/{below}", self.above)
    }

    /// A mount of the whole tree. Something else may be mounted over it since.
    fn whole(dir: PathBuf, device: &str) -> Option<Self> {
        let root = fs::metadata(&dir).ok()?;
        let is_root = root.ino() == ROOT_ID && device_of(&root) == device;
        is_root.then(|| Self {
            handles: CgroupHandles::new(&dir),
            dir,
            above: String::new(),
            is_whole: true,
            _opened: None,
        })
    }

    /// A configured directory that is no mount is taken at its word. A mount of anything
    /// else, such as a v1 hierarchy, numbers its directories from one as well and would
    /// give wrong names.
    fn as_configured(dir: &Path, mounts: &[MountInfo]) -> Option<Self> {
        let is_mount = mounts.iter().any(|mount| mount.mount_point == dir);
        (dir.is_dir() && !is_mount).then(|| Self {
            dir: dir.to_owned(),
            above: String::new(),
            handles: CgroupHandles::new(dir),
            is_whole: true,
            _opened: None,
        })
    }

    /// Behind the root of the host's first process: takes the host's pids in `proc_root`,
    /// and CAP_SYS_PTRACE.
    fn of_pid_1(proc_root: &Path) -> Option<Self> {
        let init = proc_root.join("1");
        let mounts = mounts_of(&init);
        widest_first(&mounts, Path::new("/")).iter().find_map(|mount| {
            let below = mount.mount_point.strip_prefix("/").ok()?;
            Self::whole(init.join("root").join(below), &mount.majmin)
        })
    }

    /// The root opened by its id through a mount of any part: takes CAP_DAC_READ_SEARCH.
    /// From there every cgroup can be reached, but the kernel spells no path of one that
    /// is outside of the mount, so new ids are found by walking.
    fn by_handle(dir: &Path) -> Option<Self> {
        let opened = CgroupHandles::new(dir)?.open_dir(ROOT_ID).ok()?;
        let dir = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        Some(Self { dir, above: String::new(), handles: None, is_whole: true, _opened: Some(opened) })
    }

    /// A part whose place in the tree is known: outside of containers mountinfo tells it.
    fn part(mount: &MountInfo) -> Option<Self> {
        let is_told = is_initial_namespace() && is_below_the_readers_root(&mount.root);
        let dir = mount.mount_point.clone();
        is_told.then(|| Self {
            handles: CgroupHandles::new(&dir),
            dir,
            above: mount.root.trim_end_matches('/').to_owned(),
            is_whole: false,
            _opened: None,
        })
    }
}

/// Whether `/proc/PID/cgroup` spells paths from the root of the hierarchy for us.
pub(super) fn is_initial_namespace() -> bool {
    fs::read_link("/proc/self/ns/cgroup").is_ok_and(|namespace| namespace == Path::new(INITIAL_NAMESPACE))
}

/// The mounts of a process. Anybody may name a mount point with bytes that are no UTF-8;
/// that must not hide the others.
fn mounts_of(process: &Path) -> Vec<MountInfo> {
    let bytes = fs::read(process.join("mountinfo")).unwrap_or_default();
    parse_mounts(&bytes)
}

fn parse_mounts(mountinfo: &[u8]) -> Vec<MountInfo> {
    let text = String::from_utf8_lossy(mountinfo);
    text.lines().filter_map(|line| MountInfo::from_line(line).ok()).collect()
}

/// The cgroup2 mounts at or below `dir`, those that show most of the tree first. A hybrid
/// host has its one a level below where others have it.
fn widest_first<'a>(mounts: &'a [MountInfo], dir: &Path) -> Vec<&'a MountInfo> {
    let is_one = |mount: &&MountInfo| mount.fs_type == "cgroup2" && mount.mount_point.starts_with(dir);
    let mut found: Vec<_> = mounts.iter().filter(is_one).collect();
    found.sort_by_key(|mount| depth(&mount.root));
    found
}

/// How far below the reader's cgroup namespace a mount's root lies. A container that
/// got the host's tree as a volume sees that mount's root as `/../..`, above its own.
fn depth(root: &str) -> i32 {
    root.split('/')
        .map(|part| match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        })
        .sum()
}

/// The way up out of a namespace has no names.
fn is_below_the_readers_root(root: &str) -> bool {
    root.split('/').all(|part| part != "..")
}

/// The device as mountinfo spells it.
fn device_of(metadata: &fs::Metadata) -> String {
    format!("{}:{}", libc::major(metadata.dev()), libc::minor(metadata.dev()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(lines: &[&str]) -> Vec<MountInfo> {
        parse_mounts(lines.join("\n").as_bytes())
    }

    #[test]
    fn the_hybrid_layout() {
        let mounts = mounts(&[
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755",
            "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory",
            "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
        ]);
        let found = widest_first(&mounts, Path::new("/sys/fs/cgroup"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].mount_point, Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn a_host_without_cgroup2() {
        let mounts = mounts(&["35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"]);
        assert!(widest_first(&mounts, Path::new("/")).is_empty());
    }

    #[test]
    fn a_v1_tree_names_other_ids() {
        let dir = tempfile::tempdir().unwrap();
        let line = format!("35 31 0:32 / {} rw - cgroup cgroup rw,memory", dir.path().display());
        assert!(CgroupMount::as_configured(dir.path(), &mounts(&[&line])).is_none());
        assert!(CgroupMount::as_configured(dir.path(), &[]).is_some());
        assert!(CgroupMount::as_configured(Path::new("/nonexistent"), &[]).is_none());
    }

    #[test]
    fn the_hosts_tree_beside_the_containers_own() {
        let mounts = mounts(&[
            "50 40 0:30 / /sys/fs/cgroup ro - cgroup2 cgroup rw",
            "51 40 0:30 /../../.. /host/sys/fs/cgroup ro - cgroup2 cgroup2 rw",
        ]);
        let found = widest_first(&mounts, Path::new("/"));
        assert_eq!(found[0].mount_point, Path::new("/host/sys/fs/cgroup"));
        assert!(!is_below_the_readers_root(&found[0].root), "only its number can say where that is");
    }

    #[test]
    fn a_root_of_another_file_system_is_none() {
        let proc = fs::metadata("/proc").unwrap();
        assert_eq!(proc.ino(), ROOT_ID, "procfs numbers its root like cgroup2");
        assert!(CgroupMount::whole(PathBuf::from("/proc"), "0:4294967").is_none());
        assert!(CgroupMount::whole(PathBuf::from("/proc"), &device_of(&proc)).is_some());
        assert!(CgroupMount::whole(PathBuf::from("/nonexistent"), "0:38").is_none());
    }

    /// procfs stands in for cgroup2, because its root has the same number and is there for everybody.
    #[test]
    fn the_tree_behind_the_root_of_pid_1() {
        let proc_root = tempfile::tempdir().unwrap();
        let init = proc_root.path().join("1");
        fs::create_dir(&init).unwrap();
        std::os::unix::fs::symlink("/", init.join("root")).unwrap();
        let device = device_of(&fs::metadata("/proc").unwrap());
        let lines = format!("1 0 {device} /../.. /proc rw - cgroup2 cgroup2 rw\n");
        fs::write(init.join("mountinfo"), lines).unwrap();
        let found = CgroupMount::of_pid_1(proc_root.path()).unwrap();
        assert_eq!(found.dir, init.join("root/proc"));
        assert_eq!(found.absolute(Path::new("a")), "/a");

        fs::remove_file(init.join("root")).unwrap();
        assert!(CgroupMount::of_pid_1(proc_root.path()).is_none(), "no right to look there");
    }

    #[test]
    fn a_mount_of_a_part_of_the_tree() {
        let mount = CgroupMount {
            dir: PathBuf::from("/sys/fs/cgroup"),
            above: "/kubepods.slice/x".to_owned(),
            handles: None,
            is_whole: false,
            _opened: None,
        };
        assert_eq!(mount.absolute(Path::new("")), "/kubepods.slice/x");
        assert_eq!(mount.absolute(Path::new("a/b")), "/kubepods.slice/x/a/b");
    }

    #[test]
    fn a_mount_point_of_odd_bytes_does_not_hide_the_others() {
        let mounts = parse_mounts(
            b"50 40 0:30 / /home/\xff\xfe ro - fuse x rw\nnonsense\n51 40 0:31 / /sys/fs/cgroup ro - cgroup2 c rw\n",
        );
        assert_eq!(widest_first(&mounts, Path::new("/")).len(), 1);
        assert_eq!(mounts.len(), 2);
    }
}
