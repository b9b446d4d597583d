//! Where the agent runs: on the host, or as in a container, with one right at a time.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::parent_id},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Where the agent runs and what it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// As a program of the host.
    Host,
    /// In a cgroup namespace, the host's tree mounted beside its own.
    HostMount,
    /// In a cgroup namespace, PID 1 being the host's and CAP_SYS_PTRACE opening its root.
    Pid1,
    /// In a cgroup namespace, file handles being opened with CAP_DAC_READ_SEARCH.
    Handles,
    /// In a cgroup namespace, with nothing that shows the host's tree.
    Blind,
}

impl Place {
    /// Whether it may read `/proc/PID/exe`. Without CAP_SYS_PTRACE that would take all the rights that the process has
    /// (`cap_ptrace_access_check()`), and once it has attached an agent has but few.
    pub fn reads_executables(self) -> bool {
        matches!(self, Self::Host | Self::Pid1)
    }

    /// The program to start as the agent.
    pub fn program(self, rstscope: &Path, folder: &Path) -> Result<PathBuf> {
        let (dropped, host_mount) = match self {
            Self::Host => return Ok(rstscope.to_owned()),
            Self::HostMount => ("-dac_read_search,-sys_ptrace", true),
            Self::Blind => ("-dac_read_search,-sys_ptrace", false),
            Self::Pid1 => ("-dac_read_search", false),
            Self::Handles => ("-sys_ptrace", false),
        };
        let host = folder.join("host-cgroup");
        let beside = if host_mount {
            format!("mkdir {0} && mount --bind /sys/fs/cgroup {0} &&", host.display())
        } else {
            String::new()
        };
        // PID 1 of a machine may be closed even to root; the process that this one was started by is in the same
        // namespaces and has no fewer rights.
        let first = match self {
            Self::Pid1 => format!("{{ test -d /proc/1/root/proc || mount --bind /proc/{} /proc/1; }} &&", parent_id()),
            _ => String::new(),
        };
        // As runtimes do it for a container with a private cgroup namespace.
        let script = format!(
            "#!/bin/sh\nexec unshare --cgroup --mount sh -c '\n{first} {beside} umount -l /sys/fs/cgroup &&\n\
             mount -t cgroup2 cgroup2 /sys/fs/cgroup &&\nexec setpriv --bounding-set={dropped} {} \"$@\"' sh \"$@\"\n",
            rstscope.display()
        );
        let file = folder.join("contained-agent");
        fs::write(&file, script).with_context(|| format!("cannot write {}", file.display()))?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&file, mode).with_context(|| format!("cannot make {} a program", file.display()))?;
        Ok(file)
    }
}
