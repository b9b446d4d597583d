//! What the agent keeps of its rights while it follows the node, and when it gives up the rest: once everything is attached
//! and the connections older than the agent were looked up.

use anyhow::Result;

use crate::{
    attribution::AttributionConfig,
    kernel::{
        privileges::{self, Kept, Needs},
        tracer::Tracer,
    },
};

/// See the module.
#[derive(Clone, Debug)]
pub struct Privileges {
    /// What follows needs.
    pub needs: Needs,
    keeps_all: bool,
}

impl Privileges {
    /// For this attribution, without sinks.
    #[must_use]
    pub fn needed(attribution: &AttributionConfig, keeps_all: bool) -> Self {
        // To connect to a socket is to write to it.
        let written = attribution.sources.cri.iter().cloned().collect();
        Self { needs: Needs { conntrack: attribution.conntrack.is_some(), written }, keeps_all }
    }

    /// What would be kept.
    ///
    /// # Errors
    ///
    /// If the kernel does not say what the agent has.
    pub fn kept(&self, tracer: &Tracer) -> Result<Vec<Kept>> {
        privileges::choose(privileges::held()?, &self.needs, tracer.table_reader())
    }

    /// Gives up the rest in every thread, and returns the names of what is kept.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn reduce(&self, tracer: &Tracer) -> Result<Vec<String>> {
        if self.keeps_all {
            return Ok(privileges::names(privileges::held()?));
        }
        let kept = privileges::union(&self.kept(tracer)?);
        for thread in privileges::reduce_to(kept)? {
            tracing::warn!(thread, "a thread does not answer and keeps its capabilities until it does");
        }
        Ok(privileges::names(kept))
    }
}
