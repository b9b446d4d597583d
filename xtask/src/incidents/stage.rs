//! What a story has at hand: an agent, the real programs, a folder, and the verdict that it writes.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{agent::Agent, programs::Programs, verdict::Verdict};
use crate::cli::StoryPart;

/// What a story plays with.
#[derive(Debug)]
pub struct Stage {
    /// The agent under test.
    pub agent: Agent,
    rstscope: PathBuf,
    namespace: u64,
    /// What was found.
    pub verdict: Verdict,
    /// The real programs.
    pub programs: Programs,
    /// For configurations and logs.
    pub folder: PathBuf,
    /// Not scaled down.
    pub full: bool,
}

impl Stage {
    /// Starts an agent, in the network namespace of this process, and has the rest ready.
    pub fn set(options: &StoryPart, namespace: u64, folder: &Path) -> Result<Self> {
        Ok(Self {
            agent: Agent::start(&options.play.rstscope, namespace, &[])?,
            rstscope: options.play.rstscope.clone(),
            namespace,
            verdict: Verdict::default(),
            programs: Programs::below(options.play.programs.clone()),
            folder: folder.to_owned(),
            full: options.full,
        })
    }

    /// Starts the agent anew with these flags.
    pub fn restart_agent(&mut self, flags: &[&str]) -> Result<()> {
        // Two agents of one name are refused.
        self.agent.end();
        self.agent = Agent::start(&self.rstscope, self.namespace, flags)?;
        Ok(())
    }
}
