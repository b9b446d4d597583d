//! Standard output as one of several sinks.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{Arc, mpsc::Receiver},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sinks::{
    account::Account,
    filter::Filter,
    outputs::Line,
    running::Running,
    writer::{self, Place},
};

/// JSON lines on standard output, for whatever collects the container's log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutSettings {
    /// Which lines.
    #[serde(default)]
    pub filter: Filter,
}

/// Starts the sink.
///
/// # Errors
///
/// If the system has no thread for it.
pub fn start(
    name: &str,
    predecessor: Option<Running>,
    lines: Receiver<Line>,
    account: Arc<Account>,
) -> io::Result<Running> {
    writer::start(name, predecessor, lines, account, || {
        // Past Rust's own standard output, which has a buffer and a lock: a thread that waits in it has to be left behind.
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Box::new(Stdout(stdout)) as Box<dyn Place>)
    })
}

struct Stdout(File);

impl Place for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn between_lines(&mut self, _bytes: usize) -> io::Result<()> {
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}
