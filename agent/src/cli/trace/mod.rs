//! `rstscope trace`: the stages in a row, and standard output.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{interval, sleep},
};

use super::{
    flags::{Colour, Output, TraceFlags},
    log,
    stages::Stages,
};
use crate::sinks::{
    Sink,
    encode::Encoder,
    stdout::{closed::was_closed, hangup::reader_is_gone, json::JsonLines, table::Table},
};

/// Runs `trace`.
///
/// # Errors
///
/// If the node cannot be traced or the output cannot be written; one sentence with the remedy.
pub fn run(flags: &TraceFlags) -> Result<ExitCode> {
    if was_closed() {
        bail!("standard output is closed, so nobody would see a line; leave it open or redirect it to a file");
    }
    log::start(flags.follow.log, false);
    let stages = Stages::prepare(&flags.follow)?.at_most(flags.count);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let summary = runtime.block_on(async {
        let end = end(flags.duration)?;
        stages.follow(sink(flags), end).await
    })?;
    // A closed standard error is no reason to fail after everything was written.
    let _unseen = writeln!(io::stderr(), "{summary}");
    Ok(ExitCode::SUCCESS)
}

/// Ends when the time is over, when somebody asks for it, or when nobody reads any more. Signals are watched for from now on.
fn end(duration: Option<Duration>) -> Result<impl Future<Output = Result<()>>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("watching for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    Ok(async move {
        let time_is_over = sleep(duration.unwrap_or(Duration::MAX));
        tokio::pin!(time_is_over);
        let mut hangup = interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                _ = hangup.tick() => if reader_is_gone(io::stdout().as_fd()) { break },
                () = &mut time_is_over => break,
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            }
        }
        Ok(())
    })
}

fn sink(flags: &TraceFlags) -> Box<dyn Sink + Send> {
    let terminal = io::stdout().is_terminal();
    let output = flags.output.unwrap_or(if terminal { Output::Table } else { Output::Json });
    match output {
        Output::Json => {
            Box::new(JsonLines::new(io::stdout(), Encoder::new(flags.follow.tuning.node.clone(), flags.follow.facts)))
        }
        Output::Table => {
            let colour = match flags.color {
                Colour::Always => true,
                Colour::Never => false,
                Colour::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            };
            Box::new(Table::new(io::stdout(), colour))
        }
    }
}
