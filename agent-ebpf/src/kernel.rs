//! What the logic asks of the kernel it runs in.

use agent_common::{
    connection::{Closed, Connection, Failure, Server, Tuple},
    counter::Counter,
    event::Event,
    layout::{Location, Member},
    settings::Settings,
};

/// Types made of integers only: every bit pattern is a value, all zeros included.
///
/// # Safety
///
/// Implementors must be valid for any bytes.
pub unsafe trait Plain: Copy + Default {}

// SAFETY: integers and arrays of integers are valid for any bytes.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for [u32; 4] {}
// SAFETY: as above.
unsafe impl Plain for [u8; 16] {}

/// The kernel, as far as the logic needs it. Addresses are kernel addresses; 0 is none.
pub trait Kernel {
    /// The agent's settings.
    fn settings(&self) -> &Settings;
    /// Where `member` lies.
    fn location(&self, member: Member) -> Location;

    /// Reads memory, `offset` bytes into what begins at `base`. What cannot be read is 0 and counted as
    /// [`Counter::ReadFault`], unless `base` is 0.
    fn read<T: Plain>(&self, base: u64, offset: u64) -> T;

    /// Nanoseconds of CLOCK_BOOTTIME.
    fn boot_ns(&self) -> u64;
    /// Nanoseconds of CLOCK_MONOTONIC.
    fn monotonic_ns(&self) -> u64;
    /// The low 32 bits of jiffies, the kernel's `tcp_jiffies32`.
    fn jiffies(&self) -> u32;
    /// The CPU this runs on.
    fn cpu(&self) -> u16;

    /// Address of the current `struct task_struct`.
    fn current_task(&self) -> u64;
    /// Thread group id in the high half, thread id in the low one.
    fn current_pid_tgid(&self) -> u64;
    /// Id of the current task's cgroup in the v2 hierarchy.
    fn current_cgroup_id(&self) -> u64;
    /// Address of the hook's arguments, which lie on the stack it runs on.
    fn arguments(&self) -> u64;

    /// The record of a living connection, by socket address.
    ///
    /// Mutable, because every hook that writes it runs under the socket's own lock (`lock_sock`, or the bottom-half
    /// lock in softirq), so that no two programs hold the same record at once.
    #[expect(clippy::mut_from_ref, reason = "the record lives in a map of the kernel, not in `self`")]
    fn connection(&self, sk: u64) -> Option<&mut Connection>;
    /// Begins an all-zero record for `sk`, replacing what an earlier socket left at the same address. `None`, and
    /// counted, if there is no room. (Zeroed in the table and filled in place: it is too large for the stack.)
    #[expect(clippy::mut_from_ref, reason = "as for `connection`")]
    fn begin_connection(&self, sk: u64) -> Option<&mut Connection>;
    /// Forgets a connection whose socket goes away.
    fn remove_connection(&self, sk: u64);

    /// The connection that had these ends and is closed.
    fn closed(&self, tuple: &Tuple) -> Option<&Closed>;
    /// Room to put a closed connection together: it is too large for the stack.
    ///
    /// Before 6.1 the kernel does not stop a tracepoint's program from running inside itself: a softirq that interrupts a
    /// process may close a connection while the process's own is put together. The task's stack and the softirq's tell
    /// the two apart, and a softirq is not interrupted by another one.
    #[expect(clippy::mut_from_ref, reason = "the room lives in a per-CPU map of the kernel, not in `self`")]
    fn closed_scratch(&self) -> Option<&mut Closed>;
    /// Remembers a closed connection. Failure is counted.
    fn store_closed(&self, tuple: &Tuple, closed: &Closed);
    /// Forgets a closed connection because a new one has the same ends.
    fn remove_closed(&self, tuple: &Tuple);

    /// Notes that `server` closed a connection after `ticks` of idleness.
    fn learn_idle_limit(&self, server: &Server, ticks: u32);

    /// Notes that a connection of this process (thread group) failed.
    fn note_failure(&self, tgid: u32, failure: &Failure);
    /// The last failure of a connection of this process.
    fn failure(&self, tgid: u32) -> Option<Failure>;

    /// Hands an event over; `fill` writes the zeroed record in place. A full buffer is counted.
    fn emit(&self, fill: impl FnOnce(&mut Event));
    /// Adds one to a counter of this CPU.
    fn count(&self, counter: Counter);
    /// Reads a counter of this CPU.
    fn counted(&self, counter: Counter) -> u64;
}

/// Whether the running kernel has `member`.
#[inline(always)]
pub fn has<K: Kernel>(kernel: &K, member: Member) -> bool {
    kernel.location(member).is_present()
}

/// Reads `member` of the structure at `base`; 0 if there is no such member or no structure.
#[inline(always)]
pub fn field<K: Kernel, T: Plain>(kernel: &K, base: u64, member: Member) -> T {
    let location = kernel.location(member);
    if location.is_present() { kernel.read(base, location.byte()) } else { T::default() }
}

/// Reads a bit-field of at most eight bits that does not cross a byte.
#[inline(always)]
pub fn bits<K: Kernel>(kernel: &K, base: u64, member: Member) -> u8 {
    let location = kernel.location(member);
    let byte: u8 = field(kernel, base, member);
    let width = location.width();
    if width == 0 || width >= 8 { byte } else { (byte >> location.shift()) & ((1 << width) - 1) }
}
