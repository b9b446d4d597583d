//! Which cgroup hierarchies the engine of a case finds: made by mounts in the case's own mount namespace, which change
//! nothing for the machine. Never remove a mount point in there: that would unmount it for everybody.

use std::{
    ffi::CStr,
    fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// The group, below that of the case, of everything that is not the container.
pub const ENGINE: &str = "engine";

const PLACE: &str = "/sys/fs/cgroup";

/// What is mounted on `/sys/fs/cgroup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// cgroup v2 itself, as on every present distribution.
    Unified,
    /// Hierarchies of version 1 and cgroup v2 beside them, as the machine has it.
    Hybrid,
    /// Hierarchies of version 1 only.
    V1,
    /// Whatever the machine has: for an engine that insists on controllers, which are in one version only.
    Machine,
}

impl Layout {
    /// Why this machine cannot show it, if it cannot: controllers of v2 cannot be had as v1.
    pub fn is_impossible(self) -> Result<Option<&'static str>> {
        let has_v1 = hierarchies()?.iter().any(|root| root.ends_with("pids"));
        let takes_v1 = matches!(self, Self::Hybrid | Self::V1);
        Ok((takes_v1 && !has_v1).then_some("this machine has no cgroup hierarchies of version 1"))
    }

    /// Shows it in this process's mount namespace.
    pub fn mount(self) -> Result<()> {
        let v2 = cgroup2()?.context("cgroup v2 is not mounted on this machine")?;
        match self {
            Self::Unified if v2 == Path::new(PLACE) => Ok(()),
            Self::Unified => {
                detach(Path::new(PLACE))?;
                mount_new(c"cgroup2", PLACE)
            }
            Self::Hybrid | Self::Machine => Ok(()),
            Self::V1 => detach(&v2),
        }
    }
}

/// A mount of this process's mount namespace that goes with its value.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts cgroup v2 below the folder where it is mounted nowhere.
    pub fn cgroup2_if_missing(folder: &Path) -> Result<Option<Self>> {
        if cgroup2()?.is_some() {
            return Ok(None);
        }
        let place = folder.join("cgroup2");
        fs::create_dir(&place).with_context(|| format!("cannot make the folder {}", place.display()))?;
        let mounted = mount(c"cgroup2", &place, c"cgroup2", MountFlags::empty(), None);
        mounted.context("cgroup v2 is mounted nowhere and cannot be mounted")?;
        Ok(Some(Self(place)))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Before the folder goes, so that nobody removes what is mounted there.
        if let Err(error) = detach(&self.0) {
            eprintln!("{error:#}");
        }
    }
}

/// Moves this process, and with it all it starts, into the group of the engine.
pub fn enter(top: &str) -> Result<()> {
    let root = cgroup2()?.context("cgroup v2 is not mounted on this machine")?;
    let procs = root.join(top).join(ENGINE).join("cgroup.procs");
    fs::write(&procs, process::id().to_string()).with_context(|| format!("cannot write {}", procs.display()))
}

/// Hides what engines write below these folders of the machine. What is in `/etc` stays to be seen.
pub fn hide_state() -> Result<()> {
    for place in ["/run", "/dev/shm"] {
        mount_new(c"tmpfs", place)?;
    }
    for folder in ["/run/etc/changes", "/run/etc/work"] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {folder}"))?;
    }
    let layers = c"lowerdir=/etc,upperdir=/run/etc/changes,workdir=/run/etc/work";
    mount(c"overlay", "/etc", c"overlay", MountFlags::empty(), Some(layers)).context("cannot mount on /etc")
}

fn mount_new(kind: &CStr, place: &str) -> Result<()> {
    mount(kind, place, kind, MountFlags::empty(), None).with_context(|| format!("cannot mount on {place}"))
}

fn detach(place: &Path) -> Result<()> {
    unmount(place, UnmountFlags::DETACH).with_context(|| format!("cannot unmount {}", place.display()))
}

/// Where cgroup v2 is mounted.
pub fn cgroup2() -> Result<Option<PathBuf>> {
    Ok(mounts()?.lines().find_map(|line| mounted(line, "cgroup2")))
}

/// The roots of all hierarchies.
pub fn hierarchies() -> Result<Vec<PathBuf>> {
    Ok(mounts()?.lines().filter_map(|line| mounted(line, "cgroup").or_else(|| mounted(line, "cgroup2"))).collect())
}

fn mounts() -> Result<String> {
    fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")
}

/// `DEVICE FOLDER TYPE …`
fn mounted(line: &str, kind: &str) -> Option<PathBuf> {
    let mut words = line.split(' ').skip(1);
    let (folder, found) = (words.next()?, words.next()?);
    (found == kind).then(|| folder.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,relatime 0 0";
        assert_eq!(mounted(v2, "cgroup2"), Some(PLACE.into()));
        assert_eq!(mounted(v2, "cgroup"), None);
        assert_eq!(
            mounted("cgroup /sys/fs/cgroup/pids cgroup rw,pids", "cgroup"),
            Some(format!("{PLACE}/pids").into())
        );
    }
}
