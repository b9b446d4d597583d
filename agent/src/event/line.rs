//! The JSON line, `rstscope.v1`.
//!
//! Keys and units are those of `docs/schema.md`; `docs/rstscope.v1.schema.json` says the same to machines, and the tests
//! hold every line against it. What is not known is left out, never null and never 0.

use serde::Serialize;

use super::{
    Event, Facts, Idle, Millis, Role, Socket, Tcp,
    address::scope,
    end::{Party, party},
    link::{Link, LinkLine},
    party::Owner,
};

/// Name of the schema; changes only when a key changes its meaning.
pub const SCHEMA: &str = "rstscope.v1";

/// A line about a connection: `reset`, `connect_failure` or `timeout`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line<C> {
    schema: &'static str,
    id: String,
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
    connection: Option<Connection>,
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

/// What both ends of a connection have in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Connection {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_end: Option<OtherEnd>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    chain: Vec<LinkLine>,
}

/// What happened at the other end; who it belongs to is said of the peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct OtherEnd {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
    cause: &'static str,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_ms: Option<Millis>,
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

/// The other end of an event's connection, on this node.
#[derive(Clone, Copy, Debug)]
pub struct Twin<'a> {
    /// What happened there.
    pub event: &'a Event,
    /// Whose it is.
    pub owner: &'a Owner,
    /// The name of its cause.
    pub cause: &'static str,
}

impl<C: Serialize> Line<C> {
    /// The line of an event whose local end belongs to `owner` and that `cause` explains; for `id` see [`super::id`].
    #[must_use]
    pub fn new(id: String, event: &Event, owner: &Owner, cause: C) -> Self {
        Self {
            schema: SCHEMA,
            id,
            time: rfc3339(event.time),
            kind: event.what.kind(),
            node: None,
            reset: reset(event),
            cause,
            role: event.role,
            age_ms: event.age.map(|age| age.millis),
            age_is_minimum: event.age.map(|age| age.is_minimum),
            idle_ms: event.idle.either(),
            idle: (event.idle != Idle::default()).then_some(event.idle),
            tcp: (event.tcp != Tcp::default()).then(|| event.tcp.clone()),
            local: party(&event.local, Some(owner), event.netns),
            peer: party(&event.peer, None, None).in_scope(scope(event.peer.ip)),
            connection: None,
            facts: None,
        }
    }

    /// Names whoever has the peer's address, as far as that is known without having seen the other end.
    #[must_use]
    pub fn to_peer(self, event: &Event, owner: &Owner) -> Self {
        Self { peer: party(&event.peer, Some(owner), None).at_the_place_of(self.peer), ..self }
    }

    /// Names the node.
    #[must_use]
    pub fn on_node(self, node: Option<&str>) -> Self {
        Self { node: node.map(str::to_owned), ..self }
    }

    /// Adds the facts behind it.
    #[must_use]
    pub fn with_facts(self, event: &Event) -> Self {
        Self { facts: Some(event.facts.clone()), ..self }
    }

    /// Names the connection, whose the other end is if that is on this node, and what the line follows from or leads to.
    #[must_use]
    pub fn of_connection(self, id: &str, event: &Event, twin: Option<Twin<'_>>, chain: &[Link]) -> Self {
        let peer = match twin {
            Some(twin) => party(&event.peer, Some(twin.owner), twin.event.netns).at_the_place_of(self.peer),
            None => self.peer,
        };
        let other_end = twin.map(|Twin { event, cause, .. }| OtherEnd {
            kind: event.what.kind(),
            direction: event.what.direction(),
            cause,
            role: event.role,
            state: event.tcp.state,
            age_ms: event.age.map(|age| age.millis),
            idle_ms: event.idle.either(),
            ip: event.local.ip.to_string(),
            port: event.local.port,
        });
        let chain = chain.iter().map(LinkLine::from).collect();
        Self { peer, connection: Some(Connection { id: id.to_owned(), other_end, chain }), ..self }
    }
}

/// RFC 3339 in UTC with all nine digits: lines sort as text.
#[must_use]
pub fn rfc3339(time: jiff::Timestamp) -> String {
    format!("{time:.9}")
}

fn reset(event: &Event) -> Option<Reset> {
    let direction = event.what.direction()?;
    Some(Reset { direction, socket: event.socket, kernel_reason: event.kernel_reason.clone() })
}
