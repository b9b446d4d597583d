//! What the kernel side says of itself, in a build with the feature `ebpf-log`, as a part of the agent's own log.
//!
//! Only at the level `debug`: otherwise the programs are loaded with a level at which the verifier takes out what would say
//! something.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use tokio::io::unix::AsyncFd;

/// The name of the global that says up to which level programs speak.
pub const LEVEL: &str = aya_log::LEVEL;

/// Its value: all or nothing.
#[must_use]
pub fn level() -> u8 {
    if is_heard() { aya_log::Level::Debug as u8 } else { 0 }
}

/// Reads what programs say, from now on and while the tokio runtime runs.
///
/// # Errors
///
/// If what they say cannot be read.
pub fn listen(ebpf: &mut Ebpf) -> Result<()> {
    if !is_heard() {
        return Ok(());
    }
    let logger = EbpfLogger::init_with_logger(ebpf, OwnLog).context("opening the log of the eBPF programs")?;
    // SAFETY: the logger owns its ring buffer's descriptor and always returns that same one until it is dropped.
    let mut logger = unsafe { AsyncFd::register(logger) }.context("watching the log of the eBPF programs")?;
    tokio::spawn(async move {
        // An error means that the runtime is ending.
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}

fn is_heard() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// Where it says it is from.
const TARGET: &str = "rstscope::ebpf";

/// The agent's own log, as the crate that reads wants it.
struct OwnLog;

impl Log for OwnLog {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        tracing::debug!(target: TARGET, "{}", record.args());
    }

    fn flush(&self) {}
}
