//! The stages in a row, for every command that follows the node.
//!
//! One task reads the ring buffer and does nothing else that could wait, so that a slow terminal cannot make the kernel
//! drop events before a bounded queue has; the pipeline thread does the rest.

mod limits;
mod naming;
mod pipeline;
pub mod privileges;
mod tally;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{SyncSender, TrySendError},
    },
    time::{Duration, Instant},
};

use agent_common::settings::Settings;
use anyhow::{Context, Result, bail};
use tokio::{
    sync::oneshot,
    time::{interval, sleep},
};

use self::{
    limits::KernelLimits,
    pipeline::{Asked, Message, Pipeline},
    privileges::Privileges,
};
use super::{
    filter,
    flags::{Follow, Tuning},
};
use crate::{
    attribution::{AttributionConfig, Attributor},
    diagnosis::{
        Diagnosis,
        join::{PATIENCE_NS, Seen},
        limits::{Limits, NoLimits},
        timeouts::Timeouts,
    },
    event::{Millis, decode::Decoder},
    kernel::{
        clock,
        instance::Instance,
        older,
        preflight::{self, Found, Status},
        tracer::{self, LOSS_INTERVAL, Look, Options, Tracer},
    },
    sinks::{AgentLine, OlderConnections, Sink},
    telemetry::vitals::{BY_KERNEL, Vitals},
};

/// Records waiting between the reader and the pipeline. About 30 MB when full.
pub const QUEUE: usize = 65_536;
/// Records taken from the ring buffer at once.
const BATCH: usize = 1024;

/// How long after the last record the pipeline is told that there are no more: until then one may be waiting for its
/// other end. Those that wait longer are told at the next look at losses.
const QUIET: Duration = Duration::from_nanos(PATIENCE_NS + 1_000_000);

/// The stages, checked and ready to start.
pub struct Stages {
    found: Found,
    options: Options,
    attributor: Attributor,
    timeouts: Timeouts,
    asked: Asked,
    vitals: Arc<Vitals>,
    privileges: Privileges,
    _instance: Instance,
}

impl Stages {
    /// Arranges them.
    ///
    /// # Errors
    ///
    /// If the node cannot be traced, with the remedy.
    pub fn prepare(follow: &Follow) -> Result<Self> {
        let Follow { tuning, filters, .. } = follow;
        let found = preflight(tuning)?;
        readable(tuning)?;
        let timeouts = match &follow.timeouts {
            Some(file) => Timeouts::with_file(file)?,
            None => Timeouts::built_in(),
        };
        let attribution = attribution(tuning)?;
        let privileges = Privileges::needed(&attribution, follow.keep_capabilities);
        let attributor = Attributor::new(attribution)?;
        let options = Options {
            connections: tuning.connections,
            closed: tuning.closed_connections,
            ring_bytes: tracer::check_ring_bytes(tuning.ring_bytes)?,
            settings: filter::for_kernel(filters, attributor.cgroup_root())?,
            program_stats: false,
            older: tuning.older_connections,
            proc_root: tuning.proc_root.clone(),
        };
        Ok(Self {
            found,
            options,
            attributor,
            timeouts,
            asked: Asked { events: filter::of_events(filters), count: None, name_wait: follow.name_wait },
            vitals: Arc::default(),
            privileges,
            _instance: Instance::lock(&tuning.instance)?,
        })
    }

    /// Where they write down how they fare.
    #[must_use]
    pub fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

    /// Has the kernel count how often and how long programs run.
    #[must_use]
    pub fn with_program_stats(mut self, wanted: bool) -> Self {
        self.options.program_stats = wanted;
        self
    }

    /// Ends by itself after so many events.
    #[must_use]
    pub fn at_most(mut self, count: Option<u64>) -> Self {
        self.asked.count = count;
        self
    }

    /// Sinks write to these places.
    #[must_use]
    pub fn writing_to(mut self, places: impl IntoIterator<Item = PathBuf>) -> Self {
        self.privileges.needs.written.extend(places);
        self
    }

    /// Hands everything that happens to `sink`, until `end` or the sink's reader has gone. Returns the summary.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a program, or the sink cannot be written.
    pub async fn follow(self, sink: Box<dyn Sink + Send>, end: impl Future<Output = Result<()>>) -> Result<String> {
        let mut tracer = Tracer::start(self.found, &self.options)?;
        let capabilities = self.privileges.reduce(&tracer)?;
        tracing::debug!(hooks = tracer.attached.hooks.len(), ?capabilities, "attached");
        let started = Instant::now();
        let vitals = self.vitals;
        vitals.reader.beat();
        vitals.pipeline.beat();
        vitals.asks(self.attributor.healths());
        vitals.attached(&tracer.attached);

        let (queue, messages) = std::sync::mpsc::sync_channel(QUEUE);
        let (finished, mut pipeline_finished) = oneshot::channel();
        let seen = seen(&tracer, &self.options.settings);
        let diagnosis = Diagnosis::new(limits(&mut tracer), self.timeouts, seen);
        let start = start_line(&tracer, &self.attributor, capabilities);
        let pipeline = Pipeline::new(
            Arc::clone(&vitals),
            self.asked,
            sink,
            tracer.take_seeds(),
            self.attributor,
            diagnosis,
            decoder(&tracer),
        );
        let pipeline = std::thread::Builder::new()
            .name("pipeline".to_owned())
            .spawn(move || {
                let result = pipeline.run(start, &messages);
                // The reader may have stopped by itself.
                let _stopped = finished.send(());
                result
            })
            .context("starting the pipeline thread")?;

        let mut reader = Reader { vitals, queue, dropped: 0, records: Vec::with_capacity(BATCH) };
        tokio::pin!(end);
        let mut losses = interval(LOSS_INTERVAL);
        let quiet = sleep(Duration::ZERO);
        tokio::pin!(quiet);
        let mut tells_quiet = false;
        loop {
            tokio::select! {
                read = tracer.read(BATCH, &mut reader.records) => {
                    read.context("reading the ring buffer")?;
                    reader.pass_on();
                    quiet.as_mut().reset(tokio::time::Instant::now() + QUIET);
                    tells_quiet = true;
                }
                () = &mut quiet, if tells_quiet => {
                    tells_quiet = !reader.caught_up(&mut tracer);
                    quiet.as_mut().reset(tokio::time::Instant::now() + QUIET);
                }
                _ = losses.tick() => reader.losses(&mut tracer)?,
                _ = &mut pipeline_finished => break,
                ended = &mut end => {
                    ended?;
                    break;
                }
            }
        }

        tracer.stop(&mut reader.records);
        reader.losses(&mut tracer)?;
        let filtered = reader.vitals.filtered[BY_KERNEL].load(Relaxed);
        drop(reader);
        let Ok(written) = pipeline.join() else { bail!("the pipeline thread panicked; please report this as a bug") };
        Ok(written?.summary(started.elapsed(), filtered))
    }
}

/// Runs the checks; the first that failed is the error.
///
/// # Errors
///
/// If one of them failed.
pub fn preflight(tuning: &Tuning) -> Result<Found> {
    let (checks, found) = preflight::run(&tuning.btf, tuning.hooks, !tuning.no_reader_probe);
    match (checks.iter().find(|check| check.status == Status::Failed), found) {
        (None, Some(found)) => Ok(found),
        (Some(failed), _) => bail!("{}", failed.sentence()),
        (None, None) => bail!("the node cannot be traced; run `rstscope doctor`"),
    }
}

/// Without /proc nobody could be named, and nobody would know why.
fn readable(tuning: &Tuning) -> Result<()> {
    let probe = tuning.proc_root.join("self/stat");
    std::fs::read(&probe).with_context(|| {
        format!("cannot read {}; mount the host's /proc and name it with --proc-root", probe.display())
    })?;
    Ok(())
}

/// Where attribution looks.
///
/// # Errors
///
/// If a flag names something that is not there.
pub fn attribution(tuning: &Tuning) -> Result<AttributionConfig> {
    let (sources, _) = tuning.pods.sources(tuning.node.as_deref())?;
    Ok(AttributionConfig {
        proc_root: tuning.proc_root.clone(),
        cgroup_root: tuning.cgroup_root.clone(),
        sources,
        node: tuning.node.clone(),
        conntrack: tuning.conntrack(),
    })
}

/// The end of the ring buffer's side of the queue.
struct Reader {
    vitals: Arc<Vitals>,
    queue: SyncSender<Message>,
    dropped: u64,
    records: Vec<bytes::Bytes>,
}

impl Reader {
    fn pass_on(&mut self) {
        for record in self.records.drain(..) {
            // A pipeline that has ended takes nothing more: whoever asked for one line got it.
            match self.queue.try_send(Message::Record(record)) {
                Ok(()) => self.vitals.queue.put(),
                Err(TrySendError::Full(_)) => self.dropped += 1,
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }

    /// Reads what is there, whether or not the kernel has said so; up to when (CLOCK_BOOTTIME, nanoseconds) that is all.
    fn read_all(&mut self, tracer: &mut Tracer) -> u64 {
        let now = clock::boot_ns();
        tracer.read_rest(&mut self.records);
        self.pass_on();
        now
    }

    /// Reads what is there, and says that everything up to now was read; false if
    /// there was no room to say so.
    fn caught_up(&mut self, tracer: &mut Tracer) -> bool {
        let now = self.read_all(tracer);
        !matches!(self.queue.try_send(Message::CaughtUp(now)), Err(TrySendError::Full(_)))
    }

    /// Reads what is there, and says what was lost before now.
    fn losses(&mut self, tracer: &mut Tracer) -> Result<()> {
        self.vitals.reader.beat();
        let now = self.read_all(tracer);
        let Look { mut losses, filtered, runs } = tracer.look()?;
        let looked = clock::boot_ns();
        self.vitals.filtered[BY_KERNEL].store(filtered, Relaxed);
        self.vitals.ran(runs);
        losses.extend(tracer.count_loss("queue_full", self.dropped));
        for loss in losses {
            // Rare and small: worth waiting for room. An error means the pipeline has ended.
            if self.queue.send(Message::Loss(loss, looked)).is_err() {
                break;
            }
        }
        // If there is no room for it the next one says the same.
        let _full = self.queue.try_send(Message::Complete(now));
        Ok(())
    }
}

/// Which senders come through the filters in the kernel.
fn seen(tracer: &Tracer, settings: &Settings) -> Seen {
    if !tracer.attached.shows_every_sender() || settings.cgroup_count > 0 {
        return Seen::Some;
    }
    if settings.port_count > 0 || settings.network_count > 0 {
        return Seen::AskedFor;
    }
    Seen::AllSince(clock::boot_ns())
}

fn limits(tracer: &mut Tracer) -> Box<dyn Limits + Send> {
    match tracer.take_idle_limits() {
        Some(table) => Box::new(KernelLimits { table, hz: tracer.hz }),
        None => Box::new(NoLimits),
    }
}

fn decoder(tracer: &Tracer) -> Decoder {
    let reasons: &HashMap<u32, String> = &tracer.reasons;
    Decoder { hz: tracer.hz, locations: tracer.locations, reasons: reasons.clone() }
}

fn start_line(tracer: &Tracer, attributor: &Attributor, capabilities: Vec<String>) -> AgentLine {
    AgentLine {
        kernel: Some(preflight::release()),
        tick_ms: Some(Millis::from_ticks(1, tracer.hz)),
        hooks: tracer.attached.hooks.clone(),
        unseen: tracer.attached.unseen.clone(),
        older_connections: Some(older(&tracer.older)),
        capabilities: Some(capabilities),
        pod_sources: attributor.sources().into(),
        ..AgentLine::new("start")
    }
}

fn older(report: &older::Report) -> OlderConnections {
    OlderConnections {
        way: report.way,
        named: report.named,
        shared: report.shared,
        ms: Millis::from_us(u64::try_from(report.took.as_micros()).unwrap_or(u64::MAX)),
        refused: report.refused.clone(),
    }
}
