//! rstscope names every TCP reset and failed connect on a Linux node: which connection, which process, container and
//! pod, how old, how idle, and why.
//!
//! One stage after another, each a folder, each knowing the one before it only through the type it receives:
//!
//! ```text
//! kernel hook ─► agent-ebpf ─► ring buffer ─► kernel ─► event ─► attribution ─► diagnosis ─► sinks
//!                (raw facts)                 (records)  (typed)  (whose is it)    (why)        (who reads it)
//! ```
//!
//! The command line ([`cli`]) arranges the stages; it holds no logic of theirs. [`config`] is what the daemon is told by a file.

pub mod attribution;
pub mod cli;
pub mod config;
pub mod diagnosis;
pub mod event;
pub mod kernel;
pub mod settings;
pub mod sinks;
pub mod telemetry;
