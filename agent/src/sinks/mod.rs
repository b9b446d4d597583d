//! Who reads the result. One folder per sink.
//!
//! * [`encode`]: the line; [`filter`]: who wants it; [`outputs`]: a queue for each sink;
//! * [`stdout`], [`mod@file`]: written by a thread each ([`writer`]);
//! * [`loki`], [`splunk`], [`otlp`]: sent by [`network`], from behind a [`spool`];
//! * [`account`]: what each did; [`running`]: how sinks are told to end; [`fsync`]: when they wait for the medium.

pub mod account;
pub mod encode;
pub mod file;
pub mod filter;
pub mod fsync;
pub mod loki;
pub mod network;
pub mod otlp;
pub mod outputs;
pub mod running;
pub mod splunk;
pub mod spool;
pub mod stdout;
pub mod writer;

use serde::{Serialize, Serializer};

use crate::{
    attribution::pods::health::Health,
    diagnosis::Diagnosed,
    event::{Millis, party::Source},
    kernel::{losses::Loss, older::Way, plan::Hook},
};

/// What an `agent` line says beyond the frame.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AgentLine {
    /// `start`, `stop`, or `pod_sources` when one of these begins to answer or ceases to.
    pub action: &'static str,
    /// rstscope's version.
    pub version: &'static str,
    /// `uname -r`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Resolution of idle times: one tick of the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tick_ms: Option<Millis>,
    /// What was attached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// What this kernel does not show.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
    /// What the agent may still do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// How those fare who are asked about pods.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "pod_sources")]
    pub pod_sources: Vec<(Source, Health)>,
    /// What was found out, at the start, about connections that were there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_connections: Option<OlderConnections>,
    /// Event lines written, at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<u64>,
}

impl AgentLine {
    /// A line that says no more than this.
    #[must_use]
    pub fn new(action: &'static str) -> Self {
        Self { action, version: env!("CARGO_PKG_VERSION"), ..Self::default() }
    }
}

fn pod_sources<S: Serializer>(sources: &[(Source, Health)], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct PodSource<'a> {
        source: Source,
        #[serde(flatten)]
        health: &'a Health,
    }
    serializer.collect_seq(sources.iter().map(|(source, health)| PodSource { source: *source, health }))
}

/// Whose the connections are that are older than the agent.
#[derive(Clone, Debug, Serialize)]
pub struct OlderConnections {
    /// How that was found out; absent if no way worked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// How many got a process.
    pub named: u64,
    /// How many got none because several processes have them open.
    pub shared: u64,
    /// How long it took.
    pub ms: Millis,
    /// Why it was not done by the kernel's iterator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Something that takes finished events.
pub trait Sink {
    /// An event, whose it is, and why.
    ///
    /// # Errors
    ///
    /// If it cannot be handed on.
    fn event(&mut self, diagnosed: &Diagnosed) -> std::io::Result<()>;

    /// Something was lost.
    ///
    /// # Errors
    ///
    /// If it cannot be handed on.
    fn loss(&mut self, loss: &Loss) -> std::io::Result<()>;

    /// The agent started or stops.
    ///
    /// # Errors
    ///
    /// If it cannot be handed on.
    fn agent(&mut self, agent: &AgentLine) -> std::io::Result<()>;

    /// Nothing follows for a moment: hand on what is buffered.
    ///
    /// # Errors
    ///
    /// If it cannot be handed on.
    fn flush(&mut self) -> std::io::Result<()>;
}
