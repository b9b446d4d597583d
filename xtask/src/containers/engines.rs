//! Who makes the container: runc and crun by themselves, containerd with its shim, asked by its own client or as a
//! kubelet does, podman with its monitor. Each is told to keep its state in the case's folder.

mod containerd;
mod docker;
mod installed;
mod podman;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::image;
use crate::{
    child, files,
    incidents::{process::Process, programs::debian::Package},
};
pub use containerd::socket;
use installed::Installed;

/// containerd, and the runc it depends on.
const CONTAINERD: Package = Package { name: "containerd", file: "usr/bin/containerd", proof: Some("--version") };
/// podman, and the crun and conmon it depends on.
const PODMAN: Package = Package { name: "podman", file: "usr/bin/podman", proof: Some("--version") };
/// docker, and the containerd and runc it depends on.
const DOCKER: Package = Package { name: "docker.io", file: "usr/sbin/dockerd", proof: Some("--version") };

/// All of them.
pub const PACKAGES: [&Package; 3] = [&CONTAINERD, &PODMAN, &DOCKER];

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// `runc run`, as shims call it.
    Runc,
    /// `crun run`.
    Crun,
    /// `containerd`, asked by `ctr`.
    Containerd,
    /// `containerd`, asked for a pod by way of the container runtime interface.
    Cri,
    /// `podman run`.
    Podman,
    /// `docker run`.
    Docker,
}

/// What to start.
pub struct Task<'a> {
    /// Where the packages are unpacked.
    pub programs: &'a Path,
    /// The program that plays the kubelet.
    pub kubelet: &'a Path,
    /// For configuration and state.
    pub folder: &'a Path,
    /// The container's file system.
    pub root: &'a Path,
    /// The case's cgroup.
    pub top: &'a str,
    /// The container's cgroup below it, for an engine that is told.
    pub cgroup: &'a str,
    /// The container's id, for an engine that is told.
    pub id: &'a str,
    /// The pod, for an engine that is told.
    pub pod: &'a Pod<'a>,
    /// The port the server listens on.
    pub port: u16,
}

/// What the API server would call the pod and its container.
#[derive(Debug)]
pub struct Pod<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod's name.
    pub name: &'a str,
    /// The pod's uid.
    pub uid: &'a str,
    /// The container's name.
    pub container: &'a str,
    /// The container's image.
    pub image: &'a str,
    /// A label.
    pub label: (&'a str, &'a str),
    /// An annotation.
    pub annotation: (&'a str, &'a str),
}

/// A running container.
#[derive(Debug)]
pub struct Container {
    _processes: Vec<Process>,
    /// Its id.
    pub id: String,
    /// Its cgroup from the root of the hierarchy.
    pub path: String,
}

impl Engine {
    /// The package that has it.
    pub fn package(self) -> &'static Package {
        match self {
            Self::Runc | Self::Containerd | Self::Cri => &CONTAINERD,
            Self::Crun | Self::Podman => &PODMAN,
            Self::Docker => &DOCKER,
        }
    }

    /// Starts the container and waits until its server listens.
    pub fn start(self, task: &Task<'_>) -> Result<Container> {
        let installed = Installed::of(self.package(), task.programs)?;
        match self {
            Self::Runc => alone("runc", &installed, task),
            Self::Crun => alone("crun", &installed, task),
            Self::Containerd => containerd::run(&installed, task),
            Self::Cri => containerd::run_pod(&installed, task),
            Self::Podman => podman::run(&installed, task),
            Self::Docker => docker::run(&installed, task),
        }
    }
}

fn alone(runtime: &str, installed: &Installed, task: &Task<'_>) -> Result<Container> {
    let program = installed.program(runtime)?;
    let bundle = task.bundle(&program, installed)?;
    let mut command = installed.command(&program);
    command.arg("--root").arg(task.folder.join("state")).arg("run").arg("--bundle").arg(bundle).arg(task.id);
    let process = Process::serve(runtime, &mut command, task.folder, task.port)?;
    Ok(task.container(vec![process]))
}

impl Task<'_> {
    fn container(&self, processes: Vec<Process>) -> Container {
        Container { _processes: processes, id: self.id.to_owned(), path: format!("/{}/{}", self.top, self.cgroup) }
    }

    fn server(&self) -> [String; 4] {
        [image::PROGRAM.to_owned(), "container-part".to_owned(), "server".to_owned(), self.port.to_string()]
    }

    /// The runtime's own proposal of a container, with our server in our network.
    fn bundle(&self, runtime: &Path, installed: &Installed) -> Result<PathBuf> {
        let bundle = self.folder.join("bundle");
        files::make_folder(&bundle)?;
        child::run_on_stderr(installed.command(runtime).arg("spec").current_dir(&bundle), "see above")?;
        let file = bundle.join("config.json");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut spec: Value = serde_json::from_str(&text).context("the runtime proposed what is no JSON")?;
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(self.server());
        spec["root"] = json!({ "path": self.root, "readonly": false });
        spec["linux"]["cgroupsPath"] = json!(format!("/{}/{}", self.top, self.cgroup));
        let namespaces = spec["linux"]["namespaces"].as_array_mut().context("the runtime proposed no namespaces")?;
        namespaces.retain(|namespace| namespace["type"] != "network");
        files::write_file(&file, &spec.to_string())?;
        Ok(bundle)
    }
}
