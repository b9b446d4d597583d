//! Programs that come from the system's packages.

use anyhow::{Context, Result};

use super::{already_there, done, working};
use crate::child;

/// A program and where Debian and Ubuntu have it.
#[derive(Debug)]
pub struct SystemProgram {
    /// What to look for.
    pub name: &'static str,
    /// What it is for, in the step's name.
    pub purpose: &'static str,
    /// Their packages.
    pub packages: &'static [&'static str],
}

/// Rust links programs with it.
pub const C_LINKER: SystemProgram =
    SystemProgram { name: "cc", purpose: "C linker `cc`", packages: &["gcc", "libc6-dev"] };

/// The kernel tests run client and server in network namespaces.
pub const IP: SystemProgram =
    SystemProgram { name: "ip", purpose: "`ip` for the kernel tests", packages: &["iproute2"] };

/// The kernel tests have addresses translated, as kube-proxy does it.
pub const NFT: SystemProgram =
    SystemProgram { name: "nft", purpose: "`nft` for the kernel tests", packages: &["nftables"] };

/// Kernel modules are compressed with it.
pub const XZ: SystemProgram = SystemProgram { name: "xz", purpose: "`xz` for kernel modules", packages: &["xz-utils"] };

/// Installs a program's packages where it is missing.
pub fn ensure(program: &SystemProgram) -> Result<()> {
    if child::find(program.name).is_some() {
        already_there(program.purpose);
        return Ok(());
    }
    let packages = program.packages.join(" ");
    working(program.purpose, &format!("installing {packages}"));
    let apt = child::find("apt-get")
        .with_context(|| format!("`{}` is missing: install it with this system's package manager", program.name))?;
    let env = child::find("env").context("there is no `env` program on this machine")?;
    // A container image comes without package lists.
    for arguments in [&["update"][..], &["install", "--yes", "--no-install-recommends"]] {
        let mut command = child::as_root(&env)?;
        command.arg("DEBIAN_FRONTEND=noninteractive").arg(&apt).arg("--quiet").args(arguments);
        if arguments[0] == "install" {
            command.args(program.packages);
        }
        child::run_on_stderr(&mut command, &format!("install {packages} by hand"))?;
    }
    done(program.purpose);
    Ok(())
}
