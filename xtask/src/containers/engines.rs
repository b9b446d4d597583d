//! Who makes the container: runc and crun by themselves, containerd with its shim, podman with its monitor. Each is told
//! to keep its state in the case's folder.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::image;
use crate::{
    child,
    incidents::{
        network::wait_until,
        process::{Process, bound_to_us},
        programs::debian::{self, Package},
    },
};

/// containerd, and the runc it depends on.
const CONTAINERD: Package = Package { name: "containerd", file: "usr/bin/containerd", proof: Some("--version") };
/// podman, and the crun and conmon it depends on.
const PODMAN: Package = Package { name: "podman", file: "usr/bin/podman", proof: Some("--version") };

/// All of them.
pub const PACKAGES: [&Package; 2] = [&CONTAINERD, &PODMAN];

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// `runc run`, as shims call it.
    Runc,
    /// `crun run`.
    Crun,
    /// `containerd`, asked by `ctr`.
    Containerd,
    /// `podman run`.
    Podman,
}

/// What to start.
pub struct Task<'a> {
    /// Where the packages are unpacked.
    pub programs: &'a Path,
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
    /// The port the server listens on.
    pub port: u16,
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
            Self::Runc | Self::Containerd => &CONTAINERD,
            Self::Crun | Self::Podman => &PODMAN,
        }
    }

    /// Starts the container and waits until its server listens.
    pub fn start(self, task: &Task<'_>) -> Result<Container> {
        let installed = Installed::of(self.package(), task.programs)?;
        match self {
            Self::Runc => alone("runc", &installed, task),
            Self::Crun => alone("crun", &installed, task),
            Self::Containerd => containerd(&installed, task),
            Self::Podman => podman(&installed, task),
        }
    }
}

fn alone(runtime: &str, installed: &Installed, task: &Task<'_>) -> Result<Container> {
    let program = installed.program(runtime)?;
    let bundle = bundle(&program, installed, task)?;
    let mut command = installed.command(&program);
    command.arg("--root").arg(task.folder.join("state")).arg("run").arg("--bundle").arg(bundle).arg(task.id);
    let process = Process::serve(runtime, &mut command, task.folder, task.port)?;
    Ok(task.container(vec![process]))
}

/// Of its plugins only those that a container takes here: snapshotters and the kubelet's interface are not asked.
fn containerd(installed: &Installed, task: &Task<'_>) -> Result<Container> {
    let state = task.folder.join("containerd");
    let socket = state.join("socket");
    let disabled = ["grpc.v1.cri", "internal.v1.opt", "snapshotter.v1.aufs", "snapshotter.v1.btrfs"]
        .into_iter()
        .chain(["snapshotter.v1.devmapper", "snapshotter.v1.zfs", "internal.v1.tracing"])
        .map(|name| format!("'io.containerd.{name}'"))
        .collect::<Vec<_>>()
        .join(", ");
    let configuration = format!(
        "version = 2\nroot = '{0}/root'\nstate = '{0}/state'\ndisabled_plugins = [{disabled}]\n\
         [grpc]\naddress = '{1}'\n[ttrpc]\naddress = '{1}.ttrpc'\n",
        state.display(),
        socket.display()
    );
    let file = task.folder.join("containerd.toml");
    write(&file, &configuration)?;
    let mut command = installed.command(&installed.program("containerd")?);
    let daemon = Process::start("containerd", command.arg("--config").arg(&file), task.folder)?;
    wait_until("containerd's socket", || Ok(socket.exists()))?;

    let bundle = bundle(&installed.program("runc")?, installed, task)?;
    let mut command = installed.command(&installed.program("ctr")?);
    command.arg("--address").arg(&socket).args(["run", "--rm", "--null-io", "--runc-root"]);
    command.arg(task.folder.join("state")).arg("--config").arg(bundle.join("config.json")).arg(task.id);
    let client = Process::serve("ctr", &mut command, task.folder, task.port)?;
    Ok(task.container(vec![client, daemon]))
}

fn podman(installed: &Installed, task: &Task<'_>) -> Result<Container> {
    let folder = task.folder.join("podman");
    let at = |name: &str| folder.join(name).display().to_string();
    // podman gives the runtime no environment, and the unpacked libraries are nowhere else.
    let crun = folder.join("crun");
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
        installed.libraries,
        installed.program("crun")?.display()
    );
    write(&crun, &script)?;
    fs::set_permissions(&crun, fs::Permissions::from_mode(0o755)).context("cannot make the script a program")?;
    let configuration = format!(
        "[engine]\ncgroup_manager = 'cgroupfs'\nevents_logger = 'none'\nruntime = 'crun'\nconmon_path = ['{}']\n\
         [engine.runtimes]\ncrun = ['{}']\n",
        installed.program("conmon")?.display(),
        crun.display()
    );
    write(&folder.join("containers.conf"), &configuration)?;
    let storage = format!("[storage]\ndriver = 'vfs'\ngraphroot = '{}'\nrunroot = '{}'\n", at("graph"), at("run"));
    write(&folder.join("storage.conf"), &storage)?;
    let parent = format!("/{}/libpod_parent", task.top);
    let mut command = installed.command(&installed.program("podman")?);
    command.env("CONTAINERS_CONF", at("containers.conf")).env("CONTAINERS_STORAGE_CONF", at("storage.conf"));
    command.args(["run", "--network=host", "--cgroupns=private", "--log-driver=none", "--tmpdir", &at("tmp")]);
    command.args(["--cgroup-parent", &parent, "--cidfile", &at("id")]);
    // A machine may withhold CAP_SYS_RESOURCE: podman asks for limits above its own, and crun for unlimited locked
    // memory where devices are forbidden.
    command.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--pids-limit=-1", "--privileged"]);
    command.arg("--rootfs").arg(task.root).args(server(task));
    let process = Process::serve("podman", &mut command, task.folder, task.port)?;
    let id = fs::read_to_string(folder.join("id")).context("podman wrote no id")?.trim().to_owned();
    Ok(Container { _processes: vec![process], path: format!("{parent}/libpod-{id}"), id })
}

impl Task<'_> {
    fn container(&self, processes: Vec<Process>) -> Container {
        Container { _processes: processes, id: self.id.to_owned(), path: format!("/{}/{}", self.top, self.cgroup) }
    }
}

fn server(task: &Task<'_>) -> [String; 4] {
    [image::PROGRAM.to_owned(), "container-part".to_owned(), "server".to_owned(), task.port.to_string()]
}

/// The runtime's own proposal of a container, with our server in our network.
fn bundle(runtime: &Path, installed: &Installed, task: &Task<'_>) -> Result<PathBuf> {
    let bundle = task.folder.join("bundle");
    fs::create_dir_all(&bundle).with_context(|| format!("cannot make the folder {}", bundle.display()))?;
    child::run_on_stderr(installed.command(runtime).arg("spec").current_dir(&bundle), "see above")?;
    let file = bundle.join("config.json");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut spec: Value = serde_json::from_str(&text).context("the runtime proposed what is no JSON")?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(server(task));
    spec["root"] = json!({ "path": task.root, "readonly": false });
    spec["linux"]["cgroupsPath"] = json!(format!("/{}/{}", task.top, task.cgroup));
    let namespaces = spec["linux"]["namespaces"].as_array_mut().context("the runtime proposed no namespaces")?;
    namespaces.retain(|namespace| namespace["type"] != "network");
    write(&file, &spec.to_string())?;
    Ok(bundle)
}

fn write(file: &Path, text: &str) -> Result<()> {
    let folder = file.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The programs of a package and of those it depends on.
struct Installed {
    root: PathBuf,
    libraries: String,
}

impl Installed {
    fn of(package: &Package, programs: &Path) -> Result<Self> {
        let root = debian::root(package, programs);
        Ok(Self { libraries: debian::library_path(&root)?, root })
    }

    /// In the unpacked folder, or what the machine had already and was therefore not unpacked.
    fn program(&self, name: &str) -> Result<PathBuf> {
        let places = self.folders().into_iter().map(|folder| folder.join(name));
        let own = places.into_iter().find(|file| file.is_file());
        own.or_else(|| child::find(name)).with_context(|| format!("neither unpacked nor installed: `{name}`"))
    }

    fn folders(&self) -> Vec<PathBuf> {
        ["usr/bin", "usr/sbin", "bin", "sbin"].map(|name| self.root.join(name)).to_vec()
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = bound_to_us(program);
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = self.folders().into_iter().chain(env::split_paths(&path));
        // containerd looks for its shim there, and the shim for runc.
        command.env("PATH", env::join_paths(folders).unwrap_or(path.clone()));
        if !self.libraries.is_empty() {
            command.env("LD_LIBRARY_PATH", &self.libraries);
        }
        command
    }
}
