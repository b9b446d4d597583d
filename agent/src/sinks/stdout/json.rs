//! JSON lines.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
};

use serde::Serialize;

use crate::{
    diagnosis::Diagnosed,
    event::line::{Line, SCHEMA, Twin, rfc3339},
    kernel::losses::Loss,
    sinks::{AgentLine, Sink},
};

/// Writes `rstscope.v1` lines.
#[derive(Debug)]
pub struct JsonLines<W: Write> {
    out: BufWriter<W>,
    node: Option<String>,
    with_facts: bool,
}

#[derive(Serialize)]
struct Framed<'a, T: Serialize> {
    schema: &'static str,
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
}

#[derive(Serialize)]
struct AgentBody<'a> {
    agent: &'a AgentLine,
}

impl<W: Write> JsonLines<W> {
    /// Writes to `out`; every line names `node`, if it is known, and the facts behind it, if asked for.
    pub fn new(out: W, node: Option<String>, with_facts: bool) -> Self {
        Self { out: BufWriter::with_capacity(64 * 1024, out), node, with_facts }
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line).map_err(io::Error::from)?;
        self.out.write_all(b"\n")
    }

    fn framed(&mut self, kind: &'static str, body: impl Serialize) -> io::Result<()> {
        let node = self.node.clone();
        self.line(&Framed { schema: SCHEMA, time: rfc3339(jiff::Timestamp::now()), kind, node: node.as_deref(), body })
    }
}

impl<W: Write> Sink for JsonLines<W> {
    fn event(&mut self, diagnosed: &Diagnosed) -> io::Result<()> {
        let Diagnosed { event, owner, cause, other, peer, connection, chain } = diagnosed;
        let mut line = Line::new(event, owner, cause).to_peer(event, peer).on_node(self.node.as_deref());
        if let Some(id) = connection {
            let twin =
                other.as_ref().map(|other| Twin { event: &other.event, owner: &other.owner, cause: other.code.name() });
            line = line.of_connection(id, event, twin, chain);
        }
        if self.with_facts {
            line = line.with_facts(event);
        }
        self.line(&line)
    }

    fn loss(&mut self, loss: &Loss) -> io::Result<()> {
        self.framed("lost", LostBody { lost: LostLine { cause: loss.cause, count: loss.count, by_cpu: &loss.by_cpu } })
    }

    fn agent(&mut self, agent: &AgentLine) -> io::Result<()> {
        self.framed("agent", AgentBody { agent })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
