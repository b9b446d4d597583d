//! docker and the containerd it starts, with runc.

use std::fs;

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

/// `docker run`, in a network that the daemon leaves alone.
pub fn run(installed: &Installed, task: &Task<'_>) -> Result<Container> {
    let folder = task.folder.join("docker");
    let at = |name: &str| folder.join(name).display().to_string();
    let socket = folder.join("socket");
    let host = format!("unix://{}", socket.display());
    // Instead of the machine's.
    files::write_file(&folder.join("daemon.json"), "{}")?;
    let mut command = installed.command(&installed.program("dockerd")?);
    command.args(["--config-file", &at("daemon.json"), "--data-root", &at("data"), "--exec-root", &at("state")]);
    command.args(["--pidfile", &at("pid"), "--host", &host, "--storage-driver=vfs", "--iptables=false"]);
    command.args(["--bridge=none", "--exec-opt=native.cgroupdriver=cgroupfs"]);
    let mut daemon = Process::start("dockerd", &mut command, task.folder)?;
    daemon.wait_until("its socket", || Ok(socket.exists()))?;

    let client = || -> Result<_> {
        let mut command = installed.command(&installed.program("docker")?);
        command.args(["--host", &host]).env("DOCKER_CONFIG", at("client"));
        Ok(command)
    };
    let server = task.server();
    let archive = image::archive(task.root, task.folder, &[(task.pod.image, &server)])?;
    succeed("docker load", client()?.arg("load").arg("--input").arg(archive))?;
    let parent = format!("/{}/docker", task.top);
    let mut command = client()?;
    command.args(["run", "--detach", "--network=host", "--log-driver=none", "--cgroup-parent", &parent]);
    command.args(["--cidfile", &at("id"), task.pod.image]);
    succeed("docker run", &mut command)?;
    daemon.wait_until("the server in the container", || sockets::listens(task.port))?;
    let id = fs::read_to_string(folder.join("id")).context("docker wrote no id")?.trim().to_owned();
    Ok(Container { _processes: vec![daemon], path: format!("{parent}/{id}"), id })
}
