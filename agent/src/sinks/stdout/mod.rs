//! Standard output: a live table on a terminal, JSON lines in a pipe, or one of several sinks.

pub mod closed;
pub mod hangup;
pub mod json;
pub mod lines;
pub mod table;
