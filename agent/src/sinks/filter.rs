//! Which events are wanted: of `trace`, and of each sink by itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{diagnosis::Diagnosed, event::party::Owner};

/// Patterns in which `*` stands for anything. Those of one kind are alternatives; those of different kinds must all match.
/// `lost` and `agent` lines pass every filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Types of lines: `reset`, `connect_failure`, `timeout`.
    pub types: Vec<String>,
    /// Causes by their codes.
    pub causes: Vec<String>,
    /// Pods by name.
    pub pods: Vec<String>,
    /// Kubernetes namespaces.
    pub namespaces: Vec<String>,
    /// Containers by name, id or the beginning of the id.
    pub containers: Vec<String>,
    /// Processes by name or executable path.
    pub processes: Vec<String>,
    /// Leave out what nobody needs to do anything about.
    pub hide_benign: bool,
}

impl Filter {
    /// Whether an event is wanted. An owner nobody knows is not a pod anybody asked for.
    #[must_use]
    pub fn want(&self, diagnosed: &Diagnosed) -> bool {
        any(&self.types, &[Some(diagnosed.event.what.kind())])
            && any(&self.causes, &[Some(diagnosed.cause.code.name())])
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
        let names = Filter {
            processes: vec!["envoy".to_owned(), "node".to_owned()],
            containers: vec!["0123456789ab".to_owned()],
            ..Filter::default()
        };
        let mut owner =
            Owner { process: Some(Process { pid: 1, comm: "node".to_owned(), exe: None }), ..Owner::default() };
        assert!(!names.want_owner(&owner), "no container");
        owner.container = Some(Container { id: "0123456789abcdef".to_owned(), name: None, image: None, runtime: None });
        assert!(names.want_owner(&owner));
    }
}
