//! The JSON line, `rstscope.v1`.
//!
//! Keys and units are those of `docs/schema.md`; `docs/rstscope.v1.schema.json` says the same to machines, and the tests
//! hold every line against it. What is not known is left out, never null and never 0.

use serde::Serialize;

use super::{
    Endpoint, Event, Facts, Idle, Millis, Role, Socket, Tcp, What,
    address::{Scope, scope},
    party::{Cgroup, Container, Owner, Pod, Process},
};

/// Name of the schema; changes only when a key changes its meaning.
pub const SCHEMA: &str = "rstscope.v1";

/// A line about a connection: `reset`, `connect_failure` or `timeout`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line<C> {
    schema: &'static str,
    /// RFC 3339, UTC, nanoseconds.
    pub time: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<Reset>,
    cause: C,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_is_minimum: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<Idle>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Tcp>,
    local: Party,
    peer: Party,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<Facts>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Reset {
    direction: &'static str,
    socket: Socket,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Party {
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
    cgroup: Option<Cgroup>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
}

impl<C: Serialize> Line<C> {
    /// The line of an event whose local end belongs to `owner` and that `cause` explains; with the facts behind it if `with_facts`.
    #[must_use]
    pub fn new(event: &Event, owner: &Owner, cause: C, node: Option<&str>, with_facts: bool) -> Self {
        Self {
            schema: SCHEMA,
            time: rfc3339(event.time),
            kind: kind(event.what),
            node: node.map(str::to_owned),
            reset: reset(event),
            cause,
            role: event.role,
            age_ms: event.age.map(|age| age.millis),
            age_is_minimum: event.age.map(|age| age.is_minimum),
            idle_ms: event.idle.either(),
            idle: (event.idle != Idle::default()).then_some(event.idle),
            tcp: (event.tcp != Tcp::default()).then(|| event.tcp.clone()),
            local: Party {
                process: owner.process.clone(),
                container: owner.container.clone(),
                pod: owner.pod.clone(),
                cgroup: owner.cgroup.clone(),
                netns: event.netns,
                ..party(&event.local)
            },
            peer: Party { scope: Some(scope(event.peer.ip)), ..party(&event.peer) },
            facts: with_facts.then(|| event.facts.clone()),
        }
    }
}

/// The `type` of an event's line.
#[must_use]
pub const fn kind(what: What) -> &'static str {
    match what {
        What::ResetReceived | What::ResetSent => "reset",
        What::ConnectFailed(_) => "connect_failure",
        What::TimedOut => "timeout",
    }
}

/// RFC 3339 in UTC with all nine digits: lines sort as text.
#[must_use]
pub fn rfc3339(time: jiff::Timestamp) -> String {
    format!("{time:.9}")
}

fn reset(event: &Event) -> Option<Reset> {
    let direction = match event.what {
        What::ResetReceived | What::ConnectFailed(super::ConnectFailure::Refused) => "received",
        What::ResetSent => "sent",
        What::ConnectFailed(_) | What::TimedOut => return None,
    };
    Some(Reset { direction, socket: event.socket, kernel_reason: event.kernel_reason.clone() })
}

fn party(endpoint: &Endpoint) -> Party {
    Party {
        ip: endpoint.ip.to_string(),
        port: endpoint.port,
        scope: None,
        process: None,
        container: None,
        pod: None,
        cgroup: None,
        netns: None,
    }
}
