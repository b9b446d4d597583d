//! `rstscope run`: the stages in a row, and the sinks of a configuration, for as long as the node lives.

pub mod settings;
mod sinks;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::interval,
};

use self::{
    settings::{Effective, merge},
    sinks::Sinks,
};
use super::{
    flags::RunFlags,
    log,
    stages::{QUEUE, Stages},
};
use crate::{
    config::{Configuration, overrides::Overrides, sink::SinkSettings, watch::Watch},
    sinks::{
        Sink,
        encode::Encoder,
        outputs::{FanOut, Outputs},
        stdout::closed::was_closed,
    },
    telemetry::{events::Counting, samples::Sources, server, vitals::Vitals},
};

/// How often the configuration is looked at. Kubernetes takes up to a minute to bring a ConfigMap to the node.
const LOOK: Duration = Duration::from_secs(2);

/// Runs `run`.
///
/// # Errors
///
/// If the configuration is wrong, or the node cannot be traced; one sentence with the remedy.
pub fn run(flags: &RunFlags) -> Result<ExitCode> {
    let path = flags.config.clone();
    let watch = Watch::new(path.clone());
    let overrides = Overrides::of_this_process(flags.sink.clone())?;
    let (configuration, Effective { flags, .. }) = load(&path, &overrides)?;
    log::start(flags.follow.log, true);
    if configuration.sinks.is_empty() {
        bail!("{}: no sink, so nobody would see a line; add a section [sinks.NAME] with a `type`", path.display());
    }
    if was_closed() && configuration.sinks.values().any(|sink| matches!(sink, SinkSettings::Stdout(_))) {
        bail!("standard output is closed, but a sink writes to it; leave it open or remove the sink");
    }
    let stages = Stages::prepare(&flags.follow)?
        .with_program_stats(flags.program_stats)
        .writing_to(configuration.sinks.iter().filter_map(|(name, sink)| sink.written(name, &flags.spool)));
    let outputs = Outputs::default();
    let telemetry = Sources {
        vitals: stages.vitals(),
        events: Arc::default(),
        outputs: outputs.clone(),
        most_records: QUEUE as u64,
    };
    if let Some(address) = flags.listen {
        server::start(address, telemetry.clone())?;
    }
    let mut sinks = Sinks::new(outputs.clone(), flags.spool.clone());
    sinks.apply(&configuration.sinks)?;
    let fan_out = FanOut::new(Encoder::new(flags.follow.tuning.node.clone(), flags.follow.facts), outputs);
    let sink: Box<dyn Sink + Send> = match flags.listen {
        Some(_) => Box::new(Counting::new(fan_out, telemetry.events, flags.metrics_pairs)),
        // Nobody can ask.
        None => Box::new(fan_out),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let mut ended = None;
    let followed = runtime.block_on(async {
        let daemon = Daemon {
            watch,
            overrides,
            sinks: &mut sinks,
            agent: configuration.agent,
            ended: &mut ended,
            vitals: telemetry.vitals,
        };
        stages.follow(sink, daemon.end(&path)?).await
    });
    // What was seen before something failed is handed on all the same.
    sinks.end(ended.unwrap_or_else(Instant::now) + flags.grace);
    // A closed standard error is no reason to fail after everything was handed on.
    let _unseen = writeln!(io::stderr(), "{}", followed?);
    Ok(ExitCode::SUCCESS)
}

/// Reads the configuration and merges it with this process's command line.
fn load(path: &Path, overrides: &Overrides) -> Result<(Configuration, Effective)> {
    let configuration = Configuration::read(path, overrides)?;
    let arguments: Vec<_> = std::env::args_os().collect();
    let effective = merge(&arguments, path, &configuration)?;
    Ok((configuration, effective))
}

/// What happens to a daemon beside events.
struct Daemon<'a> {
    watch: Watch,
    overrides: Overrides,
    sinks: &'a mut Sinks,
    agent: toml::Table,
    vitals: Arc<Vitals>,
    /// When it was told to end.
    ended: &'a mut Option<Instant>,
}

impl<'a> Daemon<'a> {
    /// Reloads when it is told to or the file changes, and ends on SIGTERM. Signals are watched for from now on.
    fn end(mut self, path: &'a Path) -> Result<impl Future<Output = Result<()>> + 'a> {
        let mut interrupt = signal(SignalKind::interrupt()).context("watching for Ctrl-C")?;
        let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
        let mut hangup = signal(SignalKind::hangup()).context("watching for SIGHUP")?;
        Ok(async move {
            let mut look = interval(LOOK);
            loop {
                tokio::select! {
                    _ = interrupt.recv() => break,
                    _ = terminate.recv() => break,
                    _ = hangup.recv() => {
                        self.sinks.reopen();
                        self.watch.has_changed();
                        self.reload(path);
                    }
                    _ = look.tick() => if self.watch.has_changed() { self.reload(path) },
                }
            }
            *self.ended = Some(Instant::now());
            Ok(())
        })
    }

    /// A configuration that is wrong changes nothing.
    fn reload(&mut self, path: &Path) {
        let applied = load(path, &self.overrides).and_then(|(configuration, _)| {
            if configuration.sinks.is_empty() {
                bail!("{}: no sink is left", path.display());
            }
            let changes = self.sinks.apply(&configuration.sinks)?;
            Ok((changes, configuration.agent))
        });
        self.vitals.reloads.count(applied.is_ok());
        match applied {
            Ok((changes, agent)) => {
                let changes = if changes.is_empty() { "no sink changed".to_owned() } else { changes.join(", ") };
                let restart = if agent == self.agent { "" } else { "; [agent] changed as well, which takes a restart" };
                tracing::info!("configuration read again: {changes}{restart}");
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "the configuration is not taken, the old one stays in use");
            }
        }
    }
}
