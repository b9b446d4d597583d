//! The agent's own log, on standard error: what happens to the agent, not what happens on the node.
//!
//! People read it on a terminal; whatever collects a daemon's output gets JSON lines. A command that fails says why in one
//! plain sentence, and one that ends its summary, whatever the log is like.

use std::io::{self, IsTerminal, Write};

use clap::{Args, ValueEnum};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    registry::Registry,
    util::SubscriberInitExt,
};

/// Flags of the log.
#[derive(Args, Clone, Copy, Debug)]
pub struct LogFlags {
    /// What the agent's own log on standard error looks like
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "auto", help_heading = "Log")]
    pub log_format: Format,
    /// How much it says
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "info", env = "RSTSCOPE_LOG", help_heading = "Log")]
    pub log_level: Level,
}

/// What the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON lines where `run` does not write to a terminal, else for people
    Auto,
    /// A line for people, in colour on a terminal
    Human,
    /// A JSON object per line
    Json,
}

/// How much is said: this, and what is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Nothing.
    Off,
    /// What ends a part of the agent.
    Error,
    /// What does not work, or is lost.
    Warn,
    /// What changes.
    Info,
    /// What is of use to whoever looks for a fault in rstscope.
    Debug,
    /// Everything.
    Trace,
}

/// Where everything of ours, and of the eBPF programs, says it is from. What libraries say is theirs.
const OURS: &str = "rstscope";

/// Begins to log. A `daemon` says JSON lines to what is no terminal.
pub fn start(flags: LogFlags, daemon: bool) {
    let terminal = io::stderr().is_terminal();
    let human = match flags.log_format {
        Format::Auto => terminal || !daemon,
        Format::Human => true,
        Format::Json => false,
    };
    let layer = fmt::layer().with_writer(|| StandardError).log_internal_errors(false);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = if human {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Box::new(layer.with_target(false).with_ansi(terminal && !no_colour))
    } else {
        Box::new(layer.json().flatten_event(true).with_current_span(false).with_span_list(false))
    };
    let ours = Targets::new().with_target(OURS, flags.log_level.filter());
    // An error would mean that there is one already.
    let _started = tracing_subscriber::registry().with(layer.with_filter(ours)).try_init();
}

impl Level {
    fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// Standard error, to which nobody need listen: if nobody does, there is nobody left to complain to.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _unseen = io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
