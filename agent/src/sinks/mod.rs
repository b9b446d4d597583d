//! Who reads the result. One folder per sink.

pub mod stdout;

use crate::{
    event::{Event, party::Owner},
    kernel::losses::Loss,
};

/// Something that takes finished events.
pub trait Sink {
    /// An event and whose it is.
    ///
    /// # Errors
    ///
    /// If it cannot be handed on.
    fn event(&mut self, event: &Event, owner: &Owner) -> std::io::Result<()>;

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
    fn agent(&mut self, agent: &stdout::json::AgentLine) -> std::io::Result<()>;

    /// Nothing follows for a moment: hand on what is buffered.
    ///
    /// # Errors
    ///
    /// If it cannot be handed on.
    fn flush(&mut self) -> std::io::Result<()>;
}
