//! What was lost, by cause and CPU, since the last look.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::{AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use agent_common::counter::{COUNTERS, Counter};

/// How long a closed connection has to be remembered: TIME_WAIT and the client's next request come within that.
const REMEMBER: Duration = Duration::from_secs(120);

/// One cause's count since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The cause, as the line names it.
    pub cause: &'static str,
    /// How many.
    pub count: u64,
    /// By CPU where it is counted by CPU.
    pub by_cpu: BTreeMap<u32, u64>,
}

impl Loss {
    /// Whether events are missing, or came without the numbers by which they are known: one of them may have been what
    /// another one's cause is concluded from.
    #[must_use]
    pub fn is_of_events(&self) -> bool {
        // A closed port has no connection, and what is missing in a table is only missing in what is told of it.
        !matches!(
            self.cause,
            "connection_table_full" | "closed_table_failed" | "closed_connection_forgotten" | "backend_not_asked"
        )
    }
}

/// The kernel side's counters at one moment: `counters[counter][cpu]`.
pub type Counters = [Vec<u64>; COUNTERS as usize];

/// Turns running totals into losses.
#[derive(Debug, Default)]
pub struct Losses {
    seen: BTreeMap<(&'static str, u32), u64>,
    closed: VecDeque<(Instant, u64)>,
    closed_reported: Option<Instant>,
}

impl Losses {
    /// Losses since the last call. `skipped` is, per program, how often the kernel did not run it because it was
    /// already running on that CPU; `closed_capacity` the size of the closed-connection table.
    pub fn since(&mut self, now: Instant, counters: &Counters, skipped: u64, closed_capacity: u32) -> Vec<Loss> {
        let mut losses = Vec::new();
        for (counter, cause) in Counter::LOSSES {
            let mut by_cpu = BTreeMap::new();
            for (cpu, total) in counters[counter as usize].iter().enumerate() {
                let cpu = u32::try_from(cpu).unwrap_or(u32::MAX);
                let before = self.seen.insert((cause, cpu), *total).unwrap_or(0);
                if *total > before {
                    by_cpu.insert(cpu, total - before);
                }
            }
            if !by_cpu.is_empty() {
                losses.push(Loss { cause, count: by_cpu.values().sum(), by_cpu });
            }
        }
        losses.extend(self.total("program_skipped_by_kernel", skipped));
        let recorded = counters[Counter::ClosedRecorded as usize].iter().sum();
        losses.extend(self.forgotten(now, recorded, closed_capacity));
        losses
    }

    /// A loss counted in userspace, from its running total.
    pub fn total(&mut self, cause: &'static str, total: u64) -> Option<Loss> {
        let before = self.seen.insert((cause, 0), total).unwrap_or(0);
        (total > before).then(|| Loss { cause, count: total - before, by_cpu: BTreeMap::new() })
    }

    /// The kernel does not say when an LRU table evicts. But if more connections closed within the time they should be
    /// remembered than the table holds, at least the difference is forgotten. Said at most once in that time.
    fn forgotten(&mut self, now: Instant, recorded: u64, capacity: u32) -> Option<Loss> {
        self.closed.push_back((now, recorded));
        while self.closed.len() > 1 && now.duration_since(self.closed[1].0) >= REMEMBER {
            self.closed.pop_front();
        }
        let within = recorded - self.closed.front().map_or(recorded, |(_, total)| *total);
        let too_many = within.saturating_sub(u64::from(capacity));
        let quiet = self.closed_reported.is_some_and(|last| now.duration_since(last) < REMEMBER);
        if too_many == 0 || quiet {
            return None;
        }
        self.closed_reported = Some(now);
        Some(Loss { cause: "closed_connection_forgotten", count: too_many, by_cpu: BTreeMap::new() })
    }
}

/// What the kernel counts of one program; all 0 if it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// How often it was not run because it was already running on the same CPU (`recursion_misses`, from 5.12 on).
    ///
    /// Softirq can interrupt a program in process context and come to the same hook; the kernel then does not run it again.
    pub skipped: u64,
    /// How often it ran, while `kernel.bpf_stats_enabled` is on or somebody has switched it on (`run_cnt`).
    pub count: u64,
    /// How long that took (`run_time_ns`).
    pub ns: u64,
}

/// Reads `struct bpf_prog_info`.
#[must_use]
pub fn runs(program: BorrowedFd<'_>) -> Runs {
    // Offsets in `struct bpf_prog_info`, `include/uapi/linux/bpf.h`.
    const RUN_TIME_NS: usize = 192;
    const RUN_CNT: usize = 200;
    const RECURSION_MISSES: usize = 208;
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

    #[repr(C)]
    struct Attributes {
        fd: u32,
        info_len: u32,
        info: u64,
    }

    let mut info = [0_u8; RECURSION_MISSES + 8];
    let mut attributes = Attributes {
        fd: program.as_raw_fd().cast_unsigned(),
        info_len: info.len() as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: `attributes` is what BPF_OBJ_GET_INFO_BY_FD reads and writes, and points to `info_len` writable bytes. All
    // pointers inside the zeroed `bpf_prog_info` are null with length 0, so the kernel writes nothing else.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw mut attributes,
            size_of::<Attributes>() as libc::c_long,
        )
    };
    if result != 0 {
        return Runs::default();
    }
    // An older kernel fills in less, and says how much.
    let filled = info.len().min(attributes.info_len as usize);
    let word =
        |at: usize| info[..filled].get(at..at + 8).and_then(|it| it.try_into().ok()).map_or(0, u64::from_ne_bytes);
    Runs { skipped: word(RECURSION_MISSES), count: word(RUN_CNT), ns: word(RUN_TIME_NS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters() -> Counters {
        [const { Vec::new() }; COUNTERS as usize].map(|_: Vec<u64>| vec![0, 0])
    }

    #[test]
    fn a_loss_of_events_is_told_from_one_of_memory() {
        let loss = |cause| Loss { cause, count: 1, by_cpu: BTreeMap::new() }.is_of_events();
        assert!(loss("ring_buffer_full") && loss("queue_full") && loss("program_skipped_by_kernel"));
        assert!(!loss("connection_table_full") && !loss("closed_connection_forgotten"));
    }

    #[test]
    fn a_loss_is_told_once_with_its_cpus() {
        let mut losses = Losses::default();
        let mut counters = counters();
        counters[Counter::RingBufferFull as usize] = vec![5, 7];
        let now = Instant::now();
        let told = losses.since(now, &counters, 0, 10);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].cause, told[0].count), ("ring_buffer_full", 12));
        assert_eq!(told[0].by_cpu, BTreeMap::from([(0, 5), (1, 7)]));
        assert!(losses.since(now, &counters, 0, 10).is_empty());
        counters[Counter::RingBufferFull as usize][1] = 8;
        assert_eq!(losses.since(now, &counters, 0, 10)[0].by_cpu, BTreeMap::from([(1, 1)]));
    }

    #[test]
    fn what_is_no_loss_is_not_told() {
        let mut counters = counters();
        counters[Counter::Filtered as usize] = vec![5, 7];
        counters[Counter::Emitted as usize] = vec![5, 7];
        assert!(Losses::default().since(Instant::now(), &counters, 0, 10).is_empty());
    }

    #[test]
    fn a_closed_table_that_turns_over_too_soon_is_told() {
        let mut losses = Losses::default();
        let mut counters = counters();
        let start = Instant::now();
        assert!(losses.since(start, &counters, 0, 100).is_empty());
        counters[Counter::ClosedRecorded as usize] = vec![60, 90];
        let told = losses.since(start + Duration::from_secs(60), &counters, 0, 100);
        assert_eq!((told[0].cause, told[0].count), ("closed_connection_forgotten", 50));
        assert!(losses.since(start + Duration::from_secs(61), &counters, 0, 100).is_empty());
        // Two minutes on, those 150 no longer matter.
        assert!(losses.since(start + Duration::from_secs(200), &counters, 0, 100).is_empty());
    }

    #[test]
    fn programs_the_kernel_skipped_are_a_loss() {
        let told = Losses::default().since(Instant::now(), &counters(), 3, 10);
        assert_eq!((told[0].cause, told[0].count), ("program_skipped_by_kernel", 3));
    }
}
