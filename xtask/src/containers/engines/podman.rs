//! podman and its monitor, with crun.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result};

use super::{Container, Task, installed::Installed};
use crate::{files, incidents::process::Process};

/// `podman run`.
pub fn run(installed: &Installed, task: &Task<'_>) -> Result<Container> {
    let folder = task.folder.join("podman");
    let at = |name: &str| folder.join(name).display().to_string();
    // podman gives the runtime no environment, and the unpacked libraries are nowhere else.
    let crun = folder.join("crun");
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
        installed.libraries,
        installed.program("crun")?.display()
    );
    files::write_file(&crun, &script)?;
    fs::set_permissions(&crun, fs::Permissions::from_mode(0o755)).context("cannot make the script a program")?;
    let configuration = format!(
        "[network]\nnetwork_config_dir = '{}'\n[engine]\ncgroup_manager = 'cgroupfs'\nevents_logger = 'none'\nruntime = 'crun'\nconmon_path = ['{}']\n\
         [engine.runtimes]\ncrun = ['{}']\n",
        at("networks"),
        installed.program("conmon")?.display(),
        crun.display()
    );
    files::write_file(&folder.join("containers.conf"), &configuration)?;
    let storage = format!("[storage]\ndriver = 'vfs'\ngraphroot = '{}'\nrunroot = '{}'\n", at("graph"), at("run"));
    files::write_file(&folder.join("storage.conf"), &storage)?;
    let parent = format!("/{}/libpod_parent", task.top);
    let mut command = installed.command(&installed.program("podman")?);
    command.env("CONTAINERS_CONF", at("containers.conf")).env("CONTAINERS_STORAGE_CONF", at("storage.conf"));
    command.args(["run", "--network=host", "--cgroupns=private", "--log-driver=none", "--tmpdir", &at("tmp")]);
    command.args(["--cgroup-parent", &parent, "--cidfile", &at("id")]);
    // A machine may withhold CAP_SYS_RESOURCE: podman asks for limits above its own, and crun for unlimited locked
    // memory where devices are forbidden.
    command.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--pids-limit=-1", "--privileged"]);
    command.arg("--rootfs").arg(task.root).args(task.server());
    let process = Process::serve("podman", &mut command, task.folder, task.port)?;
    let id = fs::read_to_string(folder.join("id")).context("podman wrote no id")?.trim().to_owned();
    Ok(Container { _processes: vec![process], path: format!("{parent}/libpod-{id}"), id })
}
