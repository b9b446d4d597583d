//! The network of a story: its process was started in a namespace of its own, so nothing of this is seen outside.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::process::{Process, bound_to_us};
use crate::child;

/// An address behind [`black_hole`] from which no answer comes.
pub const BLACK_HOLE: &str = "10.77.0.9";
/// The address of [`Far`].
pub const FAR: &str = "10.78.0.2";

/// The inode number of our namespace, as lines name it.
pub fn own_namespace() -> Result<u64> {
    let path = "/proc/self/ns/net";
    Ok(fs::metadata(path).with_context(|| format!("cannot read {path}"))?.ino())
}

/// A new namespace's loopback is down.
pub fn raise_loopback() -> Result<()> {
    ip("link set lo up")
}

/// Makes a network in which every SYN disappears: the neighbour is known and nobody has its hardware address.
pub fn black_hole() -> Result<()> {
    ip("link add near type veth peer name far")?;
    ip("addr add 10.77.0.1/24 dev near")?;
    ip("link set near up")?;
    ip("link set far up")?;
    ip(&format!("neigh add {BLACK_HOLE} lladdr 02:00:00:00:00:09 dev near nud permanent"))
}

/// A process in a namespace of its own, at the other end of a cable.
#[derive(Debug)]
pub struct Far {
    _process: Process,
}

impl Far {
    /// Starts the process and joins its namespace to ours.
    pub fn start(name: &str, program: &Path, arguments: &[String], folder: &Path) -> Result<Self> {
        let mut command = bound_to_us("unshare");
        command.args(["--net", "--"]).arg(program).args(arguments);
        let process = Process::start(name, &mut command, folder)?;
        let namespace = format!("/proc/{}/ns/net", process.pid());
        let own = own_namespace()?;
        wait_until("the far end's namespace", || Ok(fs::metadata(&namespace).is_ok_and(|file| file.ino() != own)))?;
        ip(&format!("link add near type veth peer name far netns {}", process.pid()))?;
        ip("addr add 10.78.0.1/24 dev near")?;
        ip("link set near up")?;
        let inside = |arguments: &str| {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={namespace}")).arg("ip").args(arguments.split_whitespace());
            child::run_on_stderr(&mut command, "see above")
        };
        inside(&format!("addr add {FAR}/24 dev far"))?;
        inside("link set far up")?;
        Ok(Self { _process: process })
    }
}

/// Waits a bounded time for something that happens soon.
pub fn wait_until(what: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
    for _ in 0..500 {
        if done()? {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    bail!("waited 10 s in vain for {what}")
}

fn ip(arguments: &str) -> Result<()> {
    let program = child::find("ip").context("there is no `ip` program on this machine: install iproute2")?;
    child::run_on_stderr(Command::new(program).args(arguments.split_whitespace()), "see above")
}
