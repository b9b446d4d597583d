//! A proxy's two sides: which failure of one connection led it to end another one.
//!
//! * [`step`]: what is remembered of an event; [`fit`]: whether one step can have come of another;
//! * [`recent`]: the last steps, and which came of which;
//! * [`links`]: the chain of a line, over several proxies; [`hold`]: lines that wait for what they lead to.

pub mod fit;
pub mod hold;
pub mod links;
pub mod recent;
pub mod step;

#[cfg(test)]
mod tests;
