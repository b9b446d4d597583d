//! A cgroup for the part of a story that the agent is to see: what is outside of it is like on another machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use anyhow::{Context, Result};

/// A cgroup below the root of the hierarchy, which goes with the value.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
    home: PathBuf,
    /// Its path from the root, as `--cgroup` takes it.
    pub path: String,
}

impl Cgroup {
    /// Makes it. Nobody is in it yet.
    pub fn make() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        let root = mounts.lines().find_map(mount).context("cgroup v2 is not mounted on this machine: mount it")?;
        let own = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
        let home =
            own.lines().find_map(|line| line.strip_prefix("0::/")).context("we are in no cgroup of version 2")?;
        let path = format!("/rstscope-incident-{}", process::id());
        let folder = root.join(path.trim_start_matches('/'));
        fs::create_dir(&folder).with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
        Ok(Self { folder, home: root.join(home), path })
    }

    /// Moves us into it. Sockets belong to the cgroup in which they are made.
    pub fn enter(&self) -> Result<()> {
        move_to(&self.folder).with_context(|| format!("cannot enter the cgroup {}", self.folder.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Where this fails an empty cgroup stays, which costs nothing and is named after us.
        let _moved = move_to(&self.home);
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn move_to(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), process::id().to_string())
}

/// `DEVICE FOLDER TYPE …`
fn mount(line: &str) -> Option<PathBuf> {
    let mut words = line.split(' ').skip(1);
    let (folder, kind) = (words.next()?, words.next()?);
    (kind == "cgroup2").then(|| folder.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_2_counts() {
        assert_eq!(mount("cgroup2 /sys/fs/cgroup cgroup2 rw,relatime 0 0"), Some("/sys/fs/cgroup".into()));
        assert_eq!(mount("cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0"), None);
    }
}
