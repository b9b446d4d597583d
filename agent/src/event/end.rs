//! One end of a connection, as lines and the links between them have it in JSON.

use serde::Serialize;

use super::{
    Endpoint,
    address::Scope,
    party::{Attribution, Backend, Cgroup, Container, Owner, Pod, Process, Service, Workload},
};

/// Address and owner, in the line's own words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Party {
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<Scope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Container>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Pod>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<Workload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Service>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<Box<Backend>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<Cgroup>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attribution: Option<Attribution>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
}

impl Party {
    /// Says how far away its owner may be.
    pub(super) fn in_scope(self, scope: Scope) -> Self {
        Self { scope: Some(scope), ..self }
    }

    /// Takes over what is known of the address itself, and not of who has it.
    pub(super) fn at_the_place_of(self, other: Self) -> Self {
        Self { scope: other.scope, backend: self.backend.or(other.backend), ..self }
    }
}

/// An end that belongs to `owner`, if that is known.
pub(super) fn party(endpoint: &Endpoint, owner: Option<&Owner>, netns: Option<u32>) -> Party {
    let owner = owner.cloned().unwrap_or_default();
    Party {
        ip: endpoint.ip.to_string(),
        port: endpoint.port,
        scope: None,
        process: owner.process,
        container: owner.container,
        pod: owner.pod,
        workload: owner.workload,
        service: owner.service,
        node: owner.node,
        backend: owner.backend,
        cgroup: owner.cgroup,
        attribution: owner.attribution,
        netns,
    }
}
