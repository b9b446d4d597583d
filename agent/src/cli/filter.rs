//! The filters: those cheap enough for the kernel become its settings, the rest is asked of each finished event.

use std::{net::IpAddr, os::unix::fs::MetadataExt, path::Path};

use agent_common::settings::{CgroupSubtree, MAX_CGROUPS, MAX_NETWORKS, MAX_PORTS, Network, Settings};
use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use super::flags::TraceFlags;
use crate::{
    diagnosis::Diagnosed,
    event::{address::to_words, party::Owner},
};

/// Puts the filters by port, network and cgroup into the kernel's settings.
///
/// # Errors
///
/// If there are more than the kernel side has room for, or a cgroup does not exist.
pub fn for_kernel(flags: &TraceFlags, cgroup_root: Option<&Path>) -> Result<Settings> {
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
#[derive(Clone, Debug, Default)]
pub struct Names {
    pods: Vec<String>,
    namespaces: Vec<String>,
    containers: Vec<String>,
    processes: Vec<String>,
    causes: Vec<String>,
    hide_benign: bool,
}

impl Names {
    /// From the flags.
    #[must_use]
    pub fn new(flags: &TraceFlags) -> Self {
        Self {
            pods: flags.pod.clone(),
            namespaces: flags.namespace.clone(),
            containers: flags.container.clone(),
            processes: flags.process.clone(),
            causes: flags.cause.clone(),
            hide_benign: flags.hide_benign,
        }
    }

    /// Whether an event is wanted. An owner nobody knows is not a pod anybody asked for.
    #[must_use]
    pub fn want(&self, diagnosed: &Diagnosed) -> bool {
        any(&self.causes, &[Some(diagnosed.cause.code.name())])
            && !(self.hide_benign && diagnosed.cause.benign)
            && self.want_owner(&diagnosed.owner)
    }

    fn want_owner(&self, owner: &Owner) -> bool {
        let pod = owner.pod.as_ref();
        let container = owner.container.as_ref();
        let process = owner.process.as_ref();
        any(&self.pods, &[pod.and_then(|pod| pod.name.as_deref())])
            && any(&self.namespaces, &[pod.and_then(|pod| pod.namespace.as_deref())])
            && (any(
                &self.containers,
                &[
                    container.and_then(|container| container.name.as_deref()),
                    container.map(|container| container.id.as_str()),
                ],
            ) || self.containers.iter().any(|prefix| {
                prefix.len() >= 8 && container.is_some_and(|container| container.id.starts_with(prefix.as_str()))
            }))
            && any(
                &self.processes,
                &[process.map(|process| process.comm.as_str()), process.and_then(|process| process.exe.as_deref())],
            )
    }
}

/// Whether one of `names` matches one of `patterns`, or no pattern was given.
fn any(patterns: &[String], names: &[Option<&str>]) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| names.iter().flatten().any(|name| matches(pattern, name)))
}

/// Matches a pattern in which `*` stands for any run of characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = pattern.contains('*').then(|| pattern.rsplit('*').next().unwrap_or("")) else {
        return rest.is_empty();
    };
    let middle: Vec<&str> = parts.collect();
    for part in &middle[..middle.len().saturating_sub(1)] {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::party::{Container, Process};

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in
            [("web", "web"), ("web-*", "web-1"), ("*-1", "web-1"), ("w*b-*1", "web-x1"), ("*", "x"), ("a*a", "aa")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("web", "web-1"), ("web-*", "we"), ("a*a", "a"), ("*x*y", "yx"), ("", "a")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn kinds_are_joined_by_and_within_a_kind_by_or() {
        let names = Names {
            processes: vec!["envoy".to_owned(), "node".to_owned()],
            containers: vec!["0123456789ab".to_owned()],
            ..Names::default()
        };
        let mut owner =
            Owner { process: Some(Process { pid: 1, comm: "node".to_owned(), exe: None }), ..Owner::default() };
        assert!(!names.want_owner(&owner), "no container");
        owner.container = Some(Container { id: "0123456789abcdef".to_owned(), name: None, image: None, runtime: None });
        assert!(names.want_owner(&owner));
    }

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
