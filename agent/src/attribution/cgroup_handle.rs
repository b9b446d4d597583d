//! Opens cgroups by id alone: on cgroup2 the id is all there is to a file handle.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A cgroup2 mount through which ids can be opened.
pub(super) struct CgroupHandles {
    mount: File,
    /// The mount point as `/proc/self/fd` spells it.
    mount_point: PathBuf,
}

/// What `open_by_handle_at` reads: the kernel's `struct file_handle` with the eight
/// bytes of a kernfs id behind it.
#[repr(C)]
struct KernfsHandle {
    header: libc::file_handle,
    id: u64,
}

/// `FILEID_KERNFS` of the kernel's `enum fid_type`: the id of a kernfs node.
const FILEID_KERNFS: libc::c_int = 0xfe;

impl CgroupHandles {
    /// None where handles do not work: no CAP_DAC_READ_SEARCH, a seccomp filter, or
    /// not a cgroup2 mount. Trying it on a directory whose id is known tells for sure.
    pub(super) fn new(dir: &Path) -> Option<Self> {
        let mount = File::open(dir).ok()?;
        let handles = Self { mount_point: link_of(&mount).ok()?, mount };
        let own_id = handles.mount.metadata().ok()?.ino();
        let own_path = handles.resolve(own_id)?;
        own_path.as_os_str().is_empty().then_some(handles)
    }

    /// The path below the mount of the cgroup with this id, if it exists there.
    pub(super) fn resolve(&self, id: u64) -> Option<PathBuf> {
        let cgroup = self.open(id, libc::O_PATH).ok()?;
        let link = link_of(&cgroup).ok()?;
        let path = link.strip_prefix(&self.mount_point).ok()?;
        match path.to_str().and_then(|p| p.strip_suffix(" (deleted)")) {
            // Removed since it was opened.
            Some(path) => Some(PathBuf::from(path)),
            None => Some(path.to_owned()),
        }
    }

    /// Opens the directory of the cgroup with this id, be it below the mount or not.
    pub(super) fn open_dir(&self, id: u64) -> io::Result<File> {
        self.open(id, libc::O_RDONLY | libc::O_DIRECTORY).map(File::from)
    }

    fn open(&self, id: u64, flags: libc::c_int) -> io::Result<OwnedFd> {
        let mut handle = KernfsHandle {
            header: libc::file_handle {
                handle_bytes: size_of::<u64>() as libc::c_uint,
                handle_type: FILEID_KERNFS,
                f_handle: [],
            },
            id,
        };
        // SAFETY: the pointer is valid for the whole of `handle`, whose header announces
        // exactly the eight bytes that follow it (`repr(C)`, no padding between), and
        // the descriptor stays open during the call.
        let fd = unsafe {
            libc::open_by_handle_at(self.mount.as_raw_fd(), (&raw mut handle).cast(), flags | libc::O_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor, nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

fn link_of(file: &impl AsRawFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_not_used_where_they_do_not_work() {
        let ordinary = tempfile::tempdir().unwrap();
        assert!(CgroupHandles::new(ordinary.path()).is_none());
        assert!(CgroupHandles::new(Path::new("/nonexistent")).is_none());
    }
}
