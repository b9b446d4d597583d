//! `/proc/PID/stat`: which process it is.
//!
//! Read here byte by byte because a name may be any bytes, and is compared with the kernel's own sixteen.

use std::{fs, path::Path};

use agent_common::connection::Task;

/// `PF_KTHREAD`, `include/linux/sched.h`.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// A process as its `stat` describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process: pid, start to the tick of `sysconf(_SC_CLK_TCK)`, name. Its cgroup is not in there.
    pub task: Task,
    /// It is the kernel's own.
    pub is_kernel_thread: bool,
}

/// Reads it; `None` if the process has gone.
pub fn read(proc_root: &Path, pid: u32) -> Option<Stat> {
    let text = fs::read(proc_root.join(pid.to_string()).join("stat")).ok()?;
    parse(&text, 1_000_000_000 / procfs::ticks_per_second().max(1))
}

/// The fields are those of proc(5), which numbers them from 1; the name, the second one, is in parentheses and may have
/// some itself.
fn parse(text: &[u8], ns_per_tick: u64) -> Option<Stat> {
    const FLAGS: usize = 9;
    const START: usize = 22;
    let open = text.iter().position(|&byte| byte == b'(')?;
    let close = text.iter().rposition(|&byte| byte == b')')?;
    let name = text.get(open + 1..close)?;
    let pid: u32 = std::str::from_utf8(&text[..open]).ok()?.trim().parse().ok()?;
    let rest = std::str::from_utf8(&text[close + 1..]).ok()?;
    let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3)?.parse::<u64>().ok();
    let mut comm = [0; 16];
    // Kernel threads of workqueues have longer names than a task can have.
    let length = name.len().min(comm.len() - 1);
    comm[..length].copy_from_slice(&name[..length]);
    let start_boottime_ns = field(START)? * ns_per_tick;
    Some(Stat {
        task: Task { tgid: pid, tid: pid, start_boottime_ns, cgroup_id: 0, comm },
        is_kernel_thread: field(FLAGS)? & KERNEL_THREAD != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_rest() {
        let text = b"4711 (a) S 1 (\xff) S 1 4711 4711 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 9 9\n";
        let stat = parse(text, 10_000_000).unwrap();
        assert_eq!((stat.task.tgid, stat.task.start_boottime_ns), (4711, 1_234_560_000_000));
        assert_eq!((&stat.task.comm[..], stat.is_kernel_thread), (&b"a) S 1 (\xff\0\0\0\0\0\0\0"[..], false));
    }

    #[test]
    fn what_is_no_stat_is_no_process() {
        for text in [&b""[..], b"1", b"1 (", b"1 )(", b"x (a) S 1", b"1 (a) S 1 2 3"] {
            assert_eq!(parse(text, 1), None, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn this_process_and_the_kernels_own() {
        let own = read(Path::new("/proc"), std::process::id()).unwrap();
        assert!(own.task.tgid == std::process::id() && own.task.start_boottime_ns > 0 && !own.is_kernel_thread);
        assert_eq!(read(Path::new("/proc"), u32::MAX), None);
    }
}
