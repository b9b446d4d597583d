//! Loads the programs, attaches them, and reads what they say.

use std::{
    collections::HashMap as Names,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use agent_common::{
    connection::{IdleLimit, Server},
    counter::{COUNTERS, Counter},
    layout::Locations,
    settings::Settings,
};
use anyhow::{Context, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader, TestRun,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
    programs::RawTracePoint,
};
use bytes::Bytes;
use tokio::io::unix::AsyncFd;

#[cfg(feature = "ebpf-log")]
use super::ebpf_log;
use super::{
    attach::{self, Attached, Running, attach},
    hz::{self, Sample},
    losses::{Counters, Loss, Losses, Runs},
    older::{self, Seeds},
    plan::Hook,
    preflight::Found,
    refusal::refused,
};

/// The eBPF object, built by `build.rs`.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("RSTSCOPE_EBPF_OBJECT"));

/// What the kernel has counted.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// What was lost since the look before.
    pub losses: Vec<Loss>,
    /// Events that filters in the kernel left out so far.
    pub filtered: u64,
    /// What it counts of each program so far; nothing once they are unloaded.
    pub runs: Vec<(Hook, Runs)>,
}

/// Sizes and filters.
#[derive(Clone, Debug)]
pub struct Options {
    /// Living connections that can be followed.
    pub connections: u32,
    /// Closed connections remembered.
    pub closed: u32,
    /// Bytes of the ring buffer, a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Filters; the member locations are filled in here.
    pub settings: Settings,
    /// Have the kernel count how often and how long programs run, of everybody on this node.
    pub program_stats: bool,
    /// How to find the processes of connections older than the agent.
    pub older: older::Choice,
    /// Where the host's `/proc` is.
    pub proc_root: PathBuf,
}

/// Idle limits that the kernel side learns of servers.
pub struct IdleLimits {
    /// [`Server`] and [`IdleLimit`] as the words they are made of.
    table: HashMap<MapData, [u32; 6], [u32; 4]>,
}

impl IdleLimits {
    /// What was learned of `server`.
    #[must_use]
    pub fn of(&self, server: &Server) -> Option<IdleLimit> {
        let [a, b, c, d] = server.address;
        let [last, least, count, padding] = self.table.get(&[a, b, c, d, server.port, server.netns], 0).ok()?;
        Some(IdleLimit { last, least, count, padding })
    }
}

/// The attached programs. They are detached when it is dropped.
pub struct Tracer {
    ebpf: Ebpf,
    ring: AsyncFd<RingBuf<MapData>>,
    counters: PerCpuArray<MapData, u64>,
    idle_limits: Option<IdleLimits>,
    seeds: Seeds,
    losses: Losses,
    closed_capacity: u32,
    skipped_before_stop: u64,
    /// While it is open the kernel counts runs.
    _counting: Option<OwnedFd>,
    /// Ticks per second, measured.
    pub hz: u32,
    /// Member locations.
    pub locations: Locations,
    /// Names of `enum sk_rst_reason` without their prefix; empty before about 6.10.
    pub reasons: Names<u32, String>,
    /// What was attached, and what not.
    pub attached: Attached,
    /// What was found out about connections older than the agent.
    pub older: older::Report,
}

impl Tracer {
    /// Loads, measures the tick, attaches. Needs a tokio runtime for the ring buffer's readiness.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a map or a program; the message names which and what to do.
    pub fn start(found: Found, options: &Options) -> Result<Self> {
        raise_memlock();
        let mut settings = options.settings;
        settings.locations = found.members.locations;
        let mut loader = EbpfLoader::new();
        loader
            .btf(None)
            .override_global("SETTINGS", settings.as_bytes(), true)
            .map_max_entries("CONNECTIONS", options.connections)
            .map_max_entries("CLOSED", options.closed)
            .map_max_entries("EVENTS", options.ring_bytes);
        #[cfg(feature = "ebpf-log")]
        let level = ebpf_log::level();
        #[cfg(feature = "ebpf-log")]
        loader.override_global(ebpf_log::LEVEL, &level, true);
        let mut ebpf = loader.load(OBJECT).map_err(|error| refused("its maps", &error))?;
        #[cfg(feature = "ebpf-log")]
        ebpf_log::listen(&mut ebpf)?;

        let hz = measure_hz(&mut ebpf)?;
        let counting = options.program_stats.then(count_runs).transpose()?;
        let mut kernel = Running::new(&mut ebpf);
        let mut attached = attach(&mut kernel, &found.plan)?;
        let (older, seeds) = older::find(&mut kernel, options.older, &options.proc_root, options.connections as usize)?;
        attached.unseen.extend(older.missing.iter().cloned());
        let ring = RingBuf::try_from(take(&mut ebpf, "EVENTS")?).context("opening the ring buffer")?;
        // SAFETY: the ring buffer owns its descriptor and always returns that same one until it is dropped.
        let ring = unsafe { AsyncFd::register(ring) }.context("watching the ring buffer")?;
        let counters = PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?).context("opening the counters")?;
        let table = HashMap::try_from(take(&mut ebpf, "IDLE_LIMITS")?).context("opening the idle limits")?;
        Ok(Self {
            ebpf,
            ring,
            counters,
            idle_limits: Some(IdleLimits { table }),
            seeds,
            losses: Losses::default(),
            closed_capacity: options.closed,
            skipped_before_stop: 0,
            _counting: counting,
            hz,
            locations: settings.locations,
            reasons: reset_reasons(&found),
            attached,
            older,
        })
    }

    /// Waits until there are records, then appends up to `limit` of them to `out`.
    ///
    /// # Errors
    ///
    /// If the ring buffer cannot be polled.
    pub async fn read(&mut self, limit: usize, out: &mut Vec<Bytes>) -> io::Result<()> {
        let mut guard = self.ring.readable_mut().await?;
        drain(guard.get_inner_mut(), limit, out);
        // Readiness is level-triggered in the kernel but edge-triggered in epoll: only an empty buffer may clear it.
        if out.len() < limit {
            guard.clear_ready();
        }
        Ok(())
    }

    /// Appends every record that is there now to `out`.
    pub fn read_rest(&mut self, out: &mut Vec<Bytes>) {
        drain(self.ring.get_mut(), usize::MAX, out);
    }

    /// Detaches the programs and appends every record still in the buffer to `out`.
    pub fn stop(&mut self, out: &mut Vec<Bytes>) {
        self.skipped_before_stop = skipped(&self.runs());
        for hook in &std::mem::take(&mut self.attached.hooks) {
            attach::unload(&mut self.ebpf, hook);
        }
        drain(self.ring.get_mut(), usize::MAX, out);
    }

    /// The idle limits that the kernel side learns; for one taker.
    pub fn take_idle_limits(&mut self) -> Option<IdleLimits> {
        self.idle_limits.take()
    }

    /// The connections older than the agent that the kernel side does not know of; for one taker.
    pub fn take_seeds(&mut self) -> Seeds {
        std::mem::take(&mut self.seeds)
    }

    /// Reads everything that the kernel counts, once.
    ///
    /// # Errors
    ///
    /// If the counters cannot be read.
    pub fn look(&mut self) -> Result<Look> {
        let counters = self.counters()?;
        let runs = self.runs();
        // A program that is unloaded can no longer be asked.
        let skipped = skipped(&runs).max(self.skipped_before_stop);
        Ok(Look {
            losses: self.losses.since(Instant::now(), &counters, skipped, self.closed_capacity),
            filtered: counters[Counter::Filtered as usize].iter().sum(),
            runs,
        })
    }

    /// A loss counted in userspace, from its running total.
    pub fn count_loss(&mut self, cause: &'static str, total: u64) -> Option<Loss> {
        self.losses.total(cause, total)
    }

    /// The kernel side's counters.
    fn counters(&self) -> Result<Counters> {
        let mut counters = [const { Vec::new() }; COUNTERS as usize];
        for (index, values) in counters.iter_mut().enumerate() {
            let index = u32::try_from(index)?;
            *values = self.counters.get(&index, 0).context("reading the counters")?.iter().copied().collect();
        }
        Ok(counters)
    }

    fn runs(&self) -> Vec<(Hook, Runs)> {
        let hooks = self.attached.hooks.iter();
        hooks.filter_map(|hook| Some((hook.clone(), attach::runs(&self.ebpf, hook)?))).collect()
    }

    /// Reads the table of counters, wherever it is called, and says whether that went well.
    pub fn table_reader(&self) -> impl Fn() -> bool + Sync + '_ {
        let counters = &self.counters;
        move || counters.get(&0, 0).is_ok()
    }
}

fn skipped(runs: &[(Hook, Runs)]) -> u64 {
    runs.iter().map(|(_, runs)| runs.skipped).sum()
}

/// BPF_ENABLE_STATS, from 5.8 on: for as long as the descriptor is open.
fn count_runs() -> Result<OwnedFd> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .context("the kernel does not count the runs of programs; leave out --program-stats")
}

fn drain(ring: &mut RingBuf<MapData>, limit: usize, out: &mut Vec<Bytes>) {
    while out.len() < limit {
        let Some(record) = ring.next() else { return };
        out.push(Bytes::copy_from_slice(&record));
    }
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map> {
    ebpf.take_map(name).ok_or_else(|| anyhow!("the eBPF object has no map {name}"))
}

/// Runs the `clock` program by hand (BPF_PROG_TEST_RUN, for raw tracepoints from 5.10 on).
fn measure_hz(ebpf: &mut Ebpf) -> Result<u32> {
    let program: &mut RawTracePoint =
        ebpf.program_mut("clock").ok_or_else(|| anyhow!("the eBPF object has no program clock"))?.try_into()?;
    program.load().map_err(|error| refused("the program clock", &error))?;
    let clock: PerCpuArray<_, [u64; 2]> = PerCpuArray::try_from(take(ebpf, "CLOCK")?).context("opening the clock")?;
    let program: &RawTracePoint = ebpf.program("clock").ok_or_else(|| anyhow!("no program clock"))?.try_into()?;
    let sample = || -> Result<Sample> {
        program
            .test_run(aya::programs::RawTracePointRunOptions::default())
            .map_err(|error| refused("running the clock program", &error))?;
        // It ran on whichever CPU this thread is on; the newest value is its.
        let values = clock.get(&0, 0).context("reading the clock")?;
        let newest = values.iter().max_by_key(|value| value[1]).copied().unwrap_or_default();
        Ok(Sample { jiffies: newest[0], ns: newest[1] })
    };
    hz::measure(sample, thread::sleep).map_err(|error| match error {
        hz::HzError::Sample(error) => error,
        unclear @ hz::HzError::Unclear { .. } => anyhow!("{unclear}"),
    })
}

fn reset_reasons(found: &Found) -> Names<u32, String> {
    found
        .btf
        .enumerators("sk_rst_reason")
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(value, name)| {
            let name = name.strip_prefix("SK_RST_REASON_").unwrap_or(&name).to_owned();
            Some((u32::try_from(value).ok()?, name))
        })
        .collect()
}

/// Before 5.11 maps are charged to RLIMIT_MEMLOCK. Later kernels do not need it, so failing is no error.
fn raise_memlock() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is a valid rlimit.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

/// Checks a ring-buffer size.
///
/// # Errors
///
/// If it is not what the kernel takes: a power of two and whole pages.
pub fn check_ring_bytes(bytes: u32) -> Result<u32> {
    if !bytes.is_power_of_two() || bytes < 64 * 1024 {
        bail!("--ring-bytes must be a power of two of at least 65536, not {bytes}");
    }
    Ok(bytes)
}

/// How often losses are looked at.
pub const LOSS_INTERVAL: Duration = Duration::from_secs(1);
