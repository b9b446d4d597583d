//! The cases, in one table: which engine, under which layout of cgroups, with the agent where.

use anyhow::{Result, bail};

use super::{agents::Place, engines::Engine, layout::Layout, names::Names};

/// One container and the agent that has to name it.
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    /// What happens in it.
    pub about: &'static str,
    /// Who makes the container.
    pub engine: Engine,
    /// The container's cgroup below the case's own; `{uid}`, `{uid_}` and `{id}` are filled in, the latter by
    /// [`Engine::Cri`] itself. Empty where the engine chooses it.
    pub cgroup: &'static str,
    /// The hierarchies the engine finds.
    pub layout: Layout,
    /// Where the agent runs.
    pub agent: Place,
    /// What it learns names from.
    pub names: Names,
    /// The container is gone when its connection is reset.
    pub is_late: bool,
    /// What rstscope has to say of the runtime; nothing where the path does not tell it.
    pub runtime: Option<&'static str>,
}

const SYSTEMD_POD: &str =
    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/cri-containerd-{id}.scope";
const CRIO_POD: &str = "kubepods.slice/kubepods-pod{uid_}.slice/crio-{id}.scope/container";
const CGROUPFS_POD: &str = "kubepods/besteffort/pod{uid}/{id}";

/// All of them.
pub const CASES: &[Case] = &[
    Case {
        name: "runc-pod-v2",
        about: "runc on cgroup v2, the path of the systemd driver",
        engine: Engine::Runc,
        cgroup: SYSTEMD_POD,
        layout: Layout::Unified,
        agent: Place::Host,
        names: Names::LogFolders,
        is_late: false,
        runtime: Some("containerd"),
    },
    Case {
        name: "runc-pod-hybrid",
        about: "runc on v1 hierarchies beside cgroup v2, the path of the cgroupfs driver",
        engine: Engine::Runc,
        cgroup: CGROUPFS_POD,
        layout: Layout::Hybrid,
        agent: Place::Host,
        names: Names::LogFolders,
        is_late: false,
        runtime: None,
    },
    Case {
        name: "crun-pod-v1",
        about: "crun on v1 hierarchies only: the process's own list of cgroups has to name the container",
        engine: Engine::Crun,
        cgroup: CRIO_POD,
        layout: Layout::V1,
        agent: Place::Host,
        names: Names::LogFolders,
        is_late: false,
        runtime: Some("cri-o"),
    },
    Case {
        name: "containerd-pod",
        about: "containerd and its shim on cgroup v2, with runc; its socket knows nothing of pods",
        engine: Engine::Containerd,
        cgroup: SYSTEMD_POD,
        layout: Layout::Unified,
        agent: Place::Host,
        names: Names::LogFoldersOnly,
        is_late: false,
        runtime: Some("containerd"),
    },
    Case {
        name: "containerd-pod-gone",
        about: "a connection of a container that lived for 2 s is used again 6 s after everything of it is gone",
        engine: Engine::Containerd,
        cgroup: SYSTEMD_POD,
        layout: Layout::Unified,
        agent: Place::Host,
        names: Names::LogFolders,
        is_late: true,
        runtime: Some("containerd"),
    },
    Case {
        name: "containerd-cri",
        about: "a pod that containerd was asked for as by a kubelet; its socket is the only thing that knows names",
        engine: Engine::Cri,
        cgroup: CGROUPFS_POD,
        layout: Layout::Machine,
        agent: Place::Host,
        names: Names::RuntimeSocket,
        is_late: false,
        runtime: None,
    },
    Case {
        name: "podman",
        about: "podman and conmon on cgroup v2, with crun",
        engine: Engine::Podman,
        cgroup: "",
        layout: Layout::Unified,
        agent: Place::Host,
        names: Names::LogFolders,
        is_late: false,
        runtime: Some("podman"),
    },
    Case {
        name: "docker",
        about: "docker and its own containerd, with runc",
        engine: Engine::Docker,
        cgroup: "",
        layout: Layout::Machine,
        agent: Place::Host,
        names: Names::LogFolders,
        is_late: false,
        runtime: Some("docker"),
    },
    Case {
        name: "agent-with-host-mount",
        about: "the agent in a cgroup namespace, with the host's tree mounted",
        engine: Engine::Runc,
        cgroup: SYSTEMD_POD,
        layout: Layout::Unified,
        agent: Place::HostMount,
        names: Names::LogFolders,
        is_late: false,
        runtime: Some("containerd"),
    },
    Case {
        name: "agent-with-pid-1",
        about: "the agent in a cgroup namespace, with the host's pids and CAP_SYS_PTRACE",
        engine: Engine::Runc,
        cgroup: SYSTEMD_POD,
        layout: Layout::Unified,
        agent: Place::Pid1,
        names: Names::LogFolders,
        is_late: false,
        runtime: Some("containerd"),
    },
    Case {
        name: "agent-with-handles",
        about: "the agent in a cgroup namespace, with CAP_DAC_READ_SEARCH only",
        engine: Engine::Runc,
        cgroup: SYSTEMD_POD,
        layout: Layout::Unified,
        agent: Place::Handles,
        names: Names::LogFolders,
        is_late: false,
        runtime: Some("containerd"),
    },
    Case {
        name: "agent-without-rights",
        about: "the agent in a cgroup namespace that shows only itself: no cgroup's path is better than a wrong one",
        engine: Engine::Runc,
        cgroup: SYSTEMD_POD,
        layout: Layout::Unified,
        agent: Place::Blind,
        names: Names::LogFolders,
        is_late: false,
        runtime: Some("containerd"),
    },
];

/// The case with this name.
pub fn named(name: &str) -> Result<&'static Case> {
    match CASES.iter().find(|case| case.name == name) {
        Some(case) => Ok(case),
        None => bail!("there is no case {name:?}"),
    }
}

/// The cases whose name contains one of these; all if there is none.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Case>> {
    if let Some(unknown) = names.iter().find(|name| !CASES.iter().any(|case| case.name.contains(name.as_str()))) {
        bail!("there is no case {unknown:?}: `cargo xtask containers --list` says which there are");
    }
    let is_chosen = |case: &&Case| names.is_empty() || names.iter().any(|name| case.name.contains(name.as_str()));
    Ok(CASES.iter().filter(is_chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_one_name() {
        for case in CASES {
            assert_eq!(CASES.iter().filter(|other| other.name == case.name).count(), 1);
            assert_eq!(named(case.name).unwrap().about, case.about);
        }
    }

    #[test]
    fn parts_of_names_choose() {
        assert_eq!(chosen(&[]).unwrap().len(), CASES.len());
        assert_eq!(chosen(&["runc-pod".to_owned()]).unwrap().len(), 2);
        assert!(chosen(&["nobody".to_owned()]).is_err());
    }
}
