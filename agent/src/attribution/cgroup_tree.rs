//! From a cgroup's id to its path, in the mounted cgroup2 hierarchy.
//!
//! The id the kernel side records is the inode number of a directory. A walk now
//! and then keeps the names of all of them, including those just removed; an id
//! the last walk has not met is opened by file handle, which needs no walk but a
//! capability, or else looked for by one more walk.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cgroup_mount::{CgroupMount, is_initial_namespace};
use super::remembered::{KEEP_NAMES, Remembered};

/// The most cgroups a walk visits; a full node has a tenth of that. The walk goes level by
/// level, so a workload that fills its own subtree crowds out nobody above.
const MOST_CGROUPS: usize = 16_384;

/// Names held in memory: as many again of cgroups that were removed, so that a full tree
/// does not crowd out those. 136 removals a second fit into two minutes.
const MOST_NAMES: usize = 2 * MOST_CGROUPS;

/// How long an id that could not be resolved is not tried again.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// Walks asked for by unknown ids are so many times as far apart as the last one took: a small
/// tree is walked again at once, since a new container's first event may well be its last, and
/// a large one takes no more than a twentieth of the time.
const PAUSE_FACTOR: u32 = 20;
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The cgroup2 tree as this process sees it.
pub(super) struct CgroupTree {
    mount: Option<CgroupMount>,
    paths: Remembered<u64, Arc<str>>,
    unknown: Remembered<u64, ()>,
    last_walk: Instant,
    pause: Duration,
    /// Paths in `/proc/PID/cgroup` begin at the root of the hierarchy.
    pub(super) spells_like_proc: bool,
}

impl CgroupTree {
    /// Reads the tree mounted at `root`, or where it is found.
    pub(super) fn new(root: Option<&Path>, proc_root: &Path, now: Instant) -> Self {
        let mut tree = Self {
            mount: CgroupMount::find(root, proc_root),
            paths: Remembered::new(KEEP_NAMES, MOST_NAMES),
            unknown: Remembered::new(UNKNOWN_FOR, MOST_CGROUPS),
            last_walk: now,
            pause: LONGEST_PAUSE,
            spells_like_proc: is_initial_namespace(),
        };
        tree.rescan(now);
        tree
    }

    /// Confirms what exists and forgets what has been gone for long.
    pub(super) fn rescan(&mut self, now: Instant) {
        self.last_walk = now;
        if let Some(mount) = &self.mount {
            let start = Instant::now();
            walk(mount, |id, path| self.paths.confirm(id, Arc::from(path), now));
            self.pause = pause_after(start.elapsed());
        }
        self.paths.forget(now);
        self.unknown.forget(now);
    }

    /// The root of the hierarchy, if all of it can be seen.
    pub(super) fn root(&self) -> Option<&Path> {
        self.mount.as_ref().filter(|mount| mount.is_whole).map(|mount| mount.dir.as_path())
    }

    /// The id of the cgroup that `/proc/PID/cgroup` calls `path`, while it exists.
    pub(super) fn id_of(&self, path: &str) -> Option<u64> {
        self.mount.as_ref().filter(|_| self.spells_like_proc)?.id_of(path)
    }

    /// The path of cgroup `id` from the root of the hierarchy.
    pub(super) fn path(&mut self, id: u64, now: Instant) -> Option<Arc<str>> {
        if let Some(path) = self.paths.get(&id) {
            return Some(Arc::clone(path));
        }
        if self.unknown.get_younger(&id, UNKNOWN_FOR, now).is_some() {
            return None;
        }
        self.look_again(id, now);
        self.paths.get(&id).cloned()
    }

    /// Tries to learn an id that no walk has met.
    fn look_again(&mut self, id: u64, now: Instant) {
        let Some(mount) = &self.mount else {
            return;
        };
        if let Some(handles) = &mount.handles {
            if let Some(below) = handles.resolve(id) {
                self.paths.confirm(id, Arc::from(mount.absolute(&below)), now);
            }
        } else if now.saturating_duration_since(self.last_walk) >= self.pause {
            self.rescan(now);
        } else {
            // Nothing was tried, so nothing is known about the id either.
            return;
        }
        if self.paths.get(&id).is_none() {
            self.unknown.confirm(id, (), now);
        }
    }
}

fn pause_after(walk: Duration) -> Duration {
    walk.saturating_mul(PAUSE_FACTOR).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Visits every directory, parents first.
fn walk(mount: &CgroupMount, mut visit: impl FnMut(u64, String)) {
    let Ok(root) = fs::metadata(&mount.dir) else {
        return;
    };
    visit(root.ino(), mount.absolute(Path::new("")));
    let mut visited = 1;
    let mut queue = VecDeque::from([PathBuf::new()]);
    while let Some(parent) = queue.pop_front() {
        // Directories come and go during the walk; the next one sees the rest.
        let Ok(entries) = fs::read_dir(mount.dir.join(&parent)) else {
            continue;
        };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if visited == MOST_CGROUPS {
                return;
            }
            visited += 1;
            let path = parent.join(entry.file_name());
            visit(entry.ino(), mount.absolute(&path));
            // Two links (from its parent and from itself) mean no children. Most
            // cgroups are leaves full of control files, and looking is dearer
            // than asking.
            let is_leaf = entry.metadata().is_ok_and(|data| data.nlink() == 2);
            if !is_leaf {
                queue.push_back(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// An ordinary directory tree: inode numbers serve as ids just as well.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn tree(&self, now: Instant) -> CgroupTree {
            CgroupTree::new(Some(self.0.path()), Path::new("/nonexistent"), now)
        }

        /// Makes a directory and gives its id.
        fn make(&self, path: &str) -> u64 {
            let dir = self.0.path().join(path);
            fs::create_dir_all(&dir).unwrap();
            let mut siblings = fs::read_dir(dir.parent().unwrap()).unwrap().flatten();
            siblings.find(|entry| entry.path() == dir).unwrap().ino()
        }

        fn remove(&self, path: &str) {
            fs::remove_dir(self.0.path().join(path)).unwrap();
        }
    }

    #[test]
    fn the_first_walk_finds_every_level() {
        let fake = Fake::new();
        let leaf = fake.make("system.slice/web.service/worker");
        let middle = fake.make("system.slice/web.service");
        fs::write(fake.0.path().join("system.slice/cgroup.procs"), "").unwrap();
        let root = fs::metadata(fake.0.path()).unwrap().ino();
        let now = Instant::now();
        let mut tree = fake.tree(now);

        let leaf = tree.path(leaf, now);
        assert_eq!(leaf.as_deref(), Some("/system.slice/web.service/worker"));
        let middle = tree.path(middle, now);
        assert_eq!(middle.as_deref(), Some("/system.slice/web.service"));
        assert_eq!(tree.path(root, now).as_deref(), Some("/"));
    }

    #[test]
    fn a_new_cgroup_is_found_by_one_more_walk() {
        let fake = Fake::new();
        let start = Instant::now();
        let mut tree = fake.tree(start);
        let id = fake.make("new");

        let found = tree.path(id, start + SECOND);
        assert_eq!(found.as_deref(), Some("/new"));
    }

    #[test]
    fn walks_for_unknown_ids_are_rare() {
        let fake = Fake::new();
        let start = Instant::now();
        let mut tree = fake.tree(start);
        tree.pause = SECOND;
        let id = fake.make("new");
        assert_eq!(tree.path(id, start + SECOND / 2), None, "walked just now");
        assert!(tree.path(id, start + SECOND).is_some());
    }

    #[test]
    fn a_large_tree_is_walked_more_seldom() {
        assert_eq!(pause_after(Duration::from_micros(100)), SHORTEST_PAUSE);
        assert_eq!(pause_after(Duration::from_millis(40)), Duration::from_millis(800));
        assert_eq!(pause_after(Duration::from_secs(7)), LONGEST_PAUSE);
    }

    #[test]
    fn an_id_that_was_not_found_is_left_alone_for_a_while() {
        let fake = Fake::new();
        let start = Instant::now();
        let mut tree = fake.tree(start);
        let unknown = u64::MAX;
        assert_eq!(tree.path(unknown, start + SECOND), None);
        assert_eq!(tree.path(unknown, start + 2 * SECOND), None);
        assert_eq!(tree.last_walk, start + SECOND, "no second walk");
        assert_eq!(tree.path(unknown, start + SECOND + UNKNOWN_FOR), None);
        assert_eq!(tree.last_walk, start + SECOND + UNKNOWN_FOR);
    }

    #[test]
    fn a_rescan_helps_an_id_that_was_unknown() {
        let fake = Fake::new();
        let now = Instant::now();
        let mut tree = fake.tree(now);
        let id = fake.make("new");
        assert_eq!(tree.path(id, now), None);
        tree.rescan(now);
        assert!(tree.path(id, now).is_some());
    }

    #[test]
    fn the_name_of_a_removed_cgroup_stays_for_a_while() {
        let fake = Fake::new();
        let id = fake.make("gone");
        let start = Instant::now();
        let mut tree = fake.tree(start);
        fake.remove("gone");

        let late = start + Duration::from_secs(150);
        tree.rescan(late);
        assert_eq!(tree.path(id, late).as_deref(), Some("/gone"));

        let too_late = start + KEEP_NAMES;
        tree.rescan(too_late);
        assert_eq!(tree.path(id, too_late), None);
    }

    #[test]
    fn a_missing_root_is_no_error() {
        let now = Instant::now();
        let mut tree = CgroupTree::new(Some(Path::new("/nonexistent")), Path::new("/nonexistent"), now);
        tree.rescan(now);
        assert_eq!(tree.path(1, now + SECOND), None);
    }
}
