//! The filters: those cheap enough for the kernel become its settings, the rest is asked of each finished event.

use std::{net::IpAddr, os::unix::fs::MetadataExt, path::Path};

use agent_common::settings::{CgroupSubtree, MAX_CGROUPS, MAX_NETWORKS, MAX_PORTS, Network, Settings};
use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use super::flags::Filters;
use crate::{event::address::to_words, sinks::filter::Filter};

/// Puts the filters by port, network and cgroup into the kernel's settings.
///
/// # Errors
///
/// If there are more than the kernel side has room for, or a cgroup does not exist.
pub fn for_kernel(flags: &Filters, cgroup_root: Option<&Path>) -> Result<Settings> {
    let mut settings = Settings::EMPTY;
    settings.port_count = fill(&mut settings.ports, flags.port.iter().copied(), MAX_PORTS, "--port")?;
    settings.network_count = fill(&mut settings.networks, flags.cidr.iter().map(network), MAX_NETWORKS, "--cidr")?;
    let mut subtrees = Vec::new();
    for path in &flags.cgroup {
        subtrees.push(subtree(path, cgroup_root)?);
    }
    settings.cgroup_count = fill(&mut settings.cgroups, subtrees.into_iter(), MAX_CGROUPS, "--cgroup")?;
    Ok(settings)
}

fn fill<T>(places: &mut [T], values: impl ExactSizeIterator<Item = T>, most: usize, flag: &str) -> Result<u32> {
    let count = values.len();
    if count > most {
        bail!("{flag} can be given at most {most} times, not {count}");
    }
    for (place, value) in places.iter_mut().zip(values) {
        *place = value;
    }
    Ok(count as u32)
}

/// A network in the form the kernel side compares: IPv4 in its mapped form, so that IPv4-mapped sockets match too.
fn network(net: &IpNet) -> Network {
    match net {
        IpNet::V4(net) => {
            let mask = to_words(IpAddr::V4(net.netmask()));
            Network { address: to_words(IpAddr::V4(net.network())), mask: [u32::MAX, u32::MAX, u32::MAX, mask[3]] }
        }
        IpNet::V6(net) => {
            Network { address: to_words(IpAddr::V6(net.network())), mask: to_words(IpAddr::V6(net.netmask())) }
        }
    }
}

/// The id of a cgroup is its directory's inode number, its level the number of steps below the root.
fn subtree(path: &Path, root: Option<&Path>) -> Result<CgroupSubtree> {
    let Some(root) = root else {
        bail!(
            "--cgroup needs the whole tree of cgroup v2, which is not mounted here; filter by --pod or --container instead"
        );
    };
    let below = path.strip_prefix(root).unwrap_or_else(|_| path.strip_prefix("/").unwrap_or(path));
    let directory = root.join(below);
    let metadata = directory
        .metadata()
        .with_context(|| format!("--cgroup {}: no cgroup {}", path.display(), directory.display()))?;
    if !metadata.is_dir() {
        bail!("--cgroup {}: {} is not a cgroup", path.display(), directory.display());
    }
    Ok(CgroupSubtree { id: metadata.ino(), level: below.components().count() as u64 })
}

/// The filters asked of a finished event.
#[must_use]
pub fn of_events(filters: &Filters) -> Filter {
    Filter {
        types: Vec::new(),
        pods: filters.pod.clone(),
        namespaces: filters.namespace.clone(),
        containers: filters.container.clone(),
        processes: filters.process.clone(),
        causes: filters.cause.clone(),
        hide_benign: filters.hide_benign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_network_takes_in_mapped_sockets() {
        let net = network(&"10.0.0.0/8".parse().unwrap());
        assert!(net.contains(&to_words("10.9.8.7".parse().unwrap())));
        assert!(!net.contains(&to_words("11.0.0.1".parse().unwrap())));
        assert!(!net.contains(&to_words("::10.9.8.7".parse().unwrap())), "compatible is not mapped");
        let six = network(&"fd00::/8".parse().unwrap());
        assert!(six.contains(&to_words("fd12::1".parse().unwrap())));
        assert!(!six.contains(&to_words("fe80::1".parse().unwrap())));
    }

    #[test]
    fn a_cgroup_is_its_inode_and_its_depth() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        let found = subtree(Path::new("/a/b"), Some(root.path())).unwrap();
        assert_eq!((found.id, found.level), (deep.metadata().unwrap().ino(), 2));
        assert_eq!(subtree(&deep, Some(root.path())).unwrap(), found, "the full path means the same");
        let missing = format!("{:#}", subtree(Path::new("/none"), Some(root.path())).unwrap_err());
        assert!(missing.contains("no cgroup"), "{missing}");
        assert!(subtree(Path::new("/a"), None).unwrap_err().to_string().contains("cgroup v2"));
    }
}
