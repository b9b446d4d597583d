//! The agent's own process, as Prometheus' client libraries report theirs.

use procfs::{
    WithCurrentSystemInfo,
    process::{LimitValue, Process as Procfs},
};

/// What `/proc/self` says.
pub struct Process {
    /// User and system time.
    pub cpu_seconds: f64,
    /// In memory.
    pub resident_bytes: u64,
    /// Mapped.
    pub virtual_bytes: u64,
    /// Since 1970.
    pub start_seconds: f64,
    /// Descriptors.
    pub open_files: Option<u64>,
    /// RLIMIT_NOFILE.
    pub most_files: Option<u64>,
}

impl Process {
    /// Reads it; nothing where there is no `/proc`.
    pub fn myself() -> Option<Self> {
        let process = Procfs::myself().ok()?;
        let stat = process.stat().ok()?;
        let ticks = procfs::ticks_per_second() as f64;
        let limits = process.limits().ok();
        Some(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            start_seconds: procfs::boot_time_secs().ok()? as f64 + stat.starttime as f64 / ticks,
            open_files: process.fd_count().ok().map(|count| count as u64),
            most_files: limits.and_then(|limits| match limits.max_open_files.soft_limit {
                LimitValue::Value(most) => Some(most),
                LimitValue::Unlimited => None,
            }),
        })
    }
}
