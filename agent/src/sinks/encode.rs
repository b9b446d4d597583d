//! Lines of `rstscope.v1` as bytes, each with its id.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;

use super::AgentLine;
use crate::{
    diagnosis::Diagnosed,
    event::{
        id::LineIds,
        line::{Line, SCHEMA, Twin, rfc3339},
    },
    kernel::losses::Loss,
};

/// Makes lines. Every line names `node`, if it is known, and the facts behind it, if asked for.
#[derive(Debug)]
pub struct Encoder {
    node: Option<String>,
    with_facts: bool,
    ids: LineIds,
}

#[derive(Serialize)]
struct Framed<'a, T: Serialize> {
    schema: &'static str,
    id: String,
    time: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize)]
struct LostBody<'a> {
    lost: LostLine<'a>,
}

#[derive(Serialize)]
struct LostLine<'a> {
    cause: &'a str,
    count: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    by_cpu: &'a BTreeMap<u32, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sink: Option<&'a str>,
}

#[derive(Serialize)]
struct AgentBody<'a> {
    agent: &'a AgentLine,
}

impl Encoder {
    /// For the lines of this run.
    #[must_use]
    pub fn new(node: Option<String>, with_facts: bool) -> Self {
        Self { node, with_facts, ids: LineIds::of_this_run() }
    }

    /// Writes an event's line, without its end.
    ///
    /// # Errors
    ///
    /// If `out` takes it not.
    pub fn event(&mut self, diagnosed: &Diagnosed, out: impl Write) -> io::Result<()> {
        let Diagnosed { event, owner, cause, other, peer, connection, chain } = diagnosed;
        let line = Line::new(self.ids.give(), event, owner, cause);
        let mut line = line.to_peer(event, peer).on_node(self.node.as_deref());
        if let Some(id) = connection {
            let twin =
                other.as_ref().map(|other| Twin { event: &other.event, owner: &other.owner, cause: other.code.name() });
            line = line.of_connection(id, event, twin, chain);
        }
        if self.with_facts {
            line = line.with_facts(event);
        }
        Ok(serde_json::to_writer(out, &line)?)
    }

    /// Writes the line of a loss; `sink` is the one that lost it, if it was one.
    ///
    /// # Errors
    ///
    /// If `out` takes it not.
    pub fn loss(&mut self, loss: &Loss, sink: Option<&str>, out: impl Write) -> io::Result<()> {
        let Loss { cause, count, by_cpu } = loss;
        self.framed("lost", LostBody { lost: LostLine { cause, count: *count, by_cpu, sink } }, out)
    }

    /// Writes the line of the agent's start or stop.
    ///
    /// # Errors
    ///
    /// If `out` takes it not.
    pub fn agent(&mut self, agent: &AgentLine, out: impl Write) -> io::Result<()> {
        self.framed("agent", AgentBody { agent }, out)
    }

    fn framed(&mut self, kind: &'static str, body: impl Serialize, out: impl Write) -> io::Result<()> {
        let (id, time) = (self.ids.give(), rfc3339(jiff::Timestamp::now()));
        let line = Framed { schema: SCHEMA, id, time, kind, node: self.node.as_deref(), body };
        Ok(serde_json::to_writer(out, &line)?)
    }
}
