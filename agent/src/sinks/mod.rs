//! Who reads the result. One folder per sink.

pub mod stdout;

use serde::Serialize;

use crate::{
    diagnosis::Diagnosed,
    event::Millis,
    kernel::{losses::Loss, older::Way, plan::Hook},
};

/// What an `agent` line says beyond the frame.
#[derive(Clone, Debug, Serialize)]
pub struct AgentLine {
    /// `start` or `stop`.
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
    /// What was found out, at the start, about connections that were there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_connections: Option<OlderConnections>,
    /// Event lines written, at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<u64>,
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
