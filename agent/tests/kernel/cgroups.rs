//! Cgroups shaped like Kubernetes', in the real cgroup v2 hierarchy, removed at the end.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Where cgroup v2 is mounted.
pub fn root() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc/self/mounts");
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    mount.expect("cgroup v2 is mounted somewhere on every machine these tests are for")
}

/// A cgroup below the root and the parents it needed.
pub struct Cgroup {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes `path` and what is missing above it.
    pub fn make(path: &str) -> Self {
        let root = root();
        let mut made = Vec::new();
        let mut place = root.clone();
        for part in Path::new(path.trim_start_matches('/')).components() {
            place.push(part);
            match std::fs::create_dir(&place) {
                Ok(()) => made.push(place.clone()),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{place:?}: {error}"),
            }
        }
        Self { path: place, made }
    }

    /// Its directory.
    pub fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for place in self.made.iter().rev() {
            // A process that just ended may still be in it; another test may use the parent.
            let deadline = Instant::now() + Duration::from_secs(2);
            while std::fs::remove_dir(place).is_err() && place == &self.path && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Moves the calling process into the cgroup at `path`.
pub fn enter(path: &str) {
    std::fs::write(Path::new(path).join("cgroup.procs"), std::process::id().to_string())
        .expect("moved into the cgroup");
}

/// A container's id that no other run on this machine uses at the same time: cgroups are the machine's.
pub fn container_id(salt: u32) -> String {
    const REST: &str = "b2e4976058f7d3c1a9b8e6f405d2c7b1a8e9f6d3c4b5a69788796a5b";
    format!("{:08x}{salt:02x}{}", std::process::id(), &REST[2..])
}
