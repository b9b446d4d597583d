//! What a story has at hand: an agent, the real programs, a folder, and the verdict that it writes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

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

/// Writes a file of a program's configuration, and the folders it is in.
pub fn write(file: &Path, text: &str) -> Result<()> {
    let folder = file.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
