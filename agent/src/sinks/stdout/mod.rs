//! Standard output: a live table on a terminal, JSON lines in a pipe.

pub mod closed;
pub mod hangup;
pub mod json;
pub mod table;
