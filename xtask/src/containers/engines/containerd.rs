//! containerd and its shim, with runc: a container that its own client asks for, or a pod that a kubelet asks for.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    Container, Task,
    installed::{Installed, succeed},
};
use crate::{
    containers::image,
    files,
    incidents::{process::Process, sockets},
};

/// What a pod's first process is made of, where a node has its pause image.
const PAUSE: &str = "registry.example/pause:3";
/// The namespace of the kubelet's containers and images.
const KUBELETS: &str = "k8s.io";

/// Where it listens, also before it does.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("containerd/socket")
}

/// `ctr run`. Nobody asks for the kubelet's interface, which is left out.
pub fn run(installed: &Installed, task: &Task<'_>) -> Result<Container> {
    let daemon = start(installed, task, &["grpc.v1.cri"], "")?;
    let bundle = task.bundle(&installed.program("runc")?, installed)?;
    let mut command = ctr(installed, task)?;
    command.args(["run", "--rm", "--null-io", "--runc-root"]);
    command.arg(task.folder.join("state")).arg("--config").arg(bundle.join("config.json")).arg(task.id);
    let client = Process::serve("ctr", &mut command, task.folder, task.port)?;
    Ok(task.container(vec![client, daemon]))
}

/// A pod with one container in the node's network, which takes no network plug-in, made as a kubelet makes it.
pub fn run_pod(installed: &Installed, task: &Task<'_>) -> Result<Container> {
    // A snapshot is a copy: overlays take a file system that bears them. A machine may withhold the right to lower the
    // OOM score.
    let interface = format!(
        "[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = '{PAUSE}'\nrestrict_oom_score_adj = true\n\
         disable_apparmor = true\ndisable_tcp_service = true\n\
         [plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = 'native'\n\
         [plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '{0}'\nconf_dir = '{0}'\n",
        task.folder.join("cni").display()
    );
    let mut daemon = start(installed, task, &[], &interface)?;
    let entry_point = task.server();
    let pause = [image::PROGRAM, "container-part", "pause"].map(str::to_owned);
    let archive = image::archive(task.root, task.folder, &[(PAUSE, &pause[..]), (task.pod.image, &entry_point)])?;
    let mut import = ctr(installed, task)?;
    import.args(["--namespace", KUBELETS, "images", "import", "--no-unpack"]).arg(archive);
    succeed("ctr images import", &mut import)?;

    let cgroup = Path::new(task.cgroup).parent().context("a container's cgroup is in that of its pod")?;
    let parent = format!("/{}/{}", task.top, cgroup.display());
    let pod = task.pod;
    let pair = |(key, value): (&str, &str)| format!("{key}={value}");
    let mut kubelet = Command::new(task.kubelet);
    kubelet.arg("--socket").arg(socket(task.folder)).args(["--namespace", pod.namespace, "--pod", pod.name]);
    kubelet.args(["--uid", pod.uid, "--container", pod.container, "--image", pod.image, "--cgroup", &parent]);
    kubelet.args(["--label", &pair(pod.label), "--annotation", &pair(pod.annotation)]);
    kubelet.arg("--logs").arg(task.folder.join("output")).arg("--").args(task.server());
    let id = succeed("the program that plays the kubelet", &mut kubelet)?.trim().to_owned();
    daemon.wait_until("the server in the pod", || sockets::listens(task.port))?;
    Ok(Container { _processes: vec![daemon], path: format!("{parent}/{id}"), id })
}

/// Starts the daemon without the plug-ins that other file systems take, and without those named.
fn start(installed: &Installed, task: &Task<'_>, disabled: &[&str], more: &str) -> Result<Process> {
    let socket = socket(task.folder);
    let state = task.folder.join("containerd");
    let never = ["snapshotter.v1.aufs", "snapshotter.v1.btrfs", "snapshotter.v1.devmapper", "snapshotter.v1.zfs"];
    let disabled = never
        .iter()
        .chain(&["internal.v1.opt", "internal.v1.tracing"])
        .chain(disabled)
        .map(|name| format!("'io.containerd.{name}'"))
        .collect::<Vec<_>>()
        .join(", ");
    let configuration = format!(
        "version = 2\nroot = '{0}/root'\nstate = '{0}/state'\ndisabled_plugins = [{disabled}]\n\
         [grpc]\naddress = '{1}'\n[ttrpc]\naddress = '{1}.ttrpc'\n{more}",
        state.display(),
        socket.display()
    );
    let file = task.folder.join("containerd.toml");
    files::write_file(&file, &configuration)?;
    let mut command = installed.command(&installed.program("containerd")?);
    let mut daemon = Process::start("containerd", command.arg("--config").arg(&file), task.folder)?;
    daemon.wait_until("its socket", || Ok(socket.exists()))?;
    Ok(daemon)
}

fn ctr(installed: &Installed, task: &Task<'_>) -> Result<Command> {
    let mut command = installed.command(&installed.program("ctr")?);
    command.arg("--address").arg(socket(task.folder));
    Ok(command)
}
