//! Entries, tables and the real kernel, compiled for the eBPF target only.

use core::{cell::Cell, ffi::c_void, hint::black_box, mem::MaybeUninit, ptr};

use agent_common::{
    connection::{Closed, Connection, Failure, IdleLimit, Server, Tuple},
    counter::{COUNTERS as COUNTER_COUNT, Counter},
    event::{Event, flag},
    layout::{Location, Member},
    settings::Settings,
};
use agent_ebpf::{
    kernel::{Kernel, Plain},
    lifecycle, open, reset, task,
};
use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, generated},
    macros::{fentry, fexit, kprobe, kretprobe, map, raw_tracepoint},
    maps::{HashMap, LruHashMap, PerCpuArray, RingBuf},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};

use crate::log;

/// Written by the agent before loading; read-only and frozen after, so the verifier treats it as constants.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings::EMPTY;

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);
/// Keyed by socket address. Not LRU: the connection idle for hours is the one whose age matters most.
#[map]
static CONNECTIONS: HashMap<u64, Connection> = HashMap::with_max_entries(1, 0);
/// LRU: of two closed connections the later one is the one a reset is still due for.
#[map]
static CLOSED: LruHashMap<Tuple, Closed> = LruHashMap::with_max_entries(1, 0);
/// What servers' idle limits look like, for the diagnosis of a race with them.
#[map]
static IDLE_LIMITS: LruHashMap<Server, IdleLimit> = LruHashMap::with_max_entries(4096, 0);
/// The last failure of each process that had one lately, for what it closes right after.
#[map]
static FAILURES: LruHashMap<u32, Failure> = LruHashMap::with_max_entries(1024, 0);
/// One for process context and one for softirq, see [`Kernel::closed_scratch`].
#[map]
static CLOSED_SCRATCH: PerCpuArray<Closed> = PerCpuArray::with_max_entries(2, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_COUNT, 0);
/// (jiffies, CLOCK_MONOTONIC), for the agent's measurement of HZ.
#[map]
static CLOCK: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

/// An all-zero record, in read-only data because it is too large for the stack.
static NO_CONNECTION: Connection = Connection::NONE;

#[raw_tracepoint]
#[inline(always)]
fn inet_sock_set_state(context: RawTracePointContext) -> i32 {
    let Some(kernel) = Running::new(&context) else { return 0 };
    let (sk, old, new): (u64, u32, u32) = (context.arg(0), context.arg(1), context.arg(2));
    lifecycle::on_state(&kernel, sk, old as u8, new as u8);
    0
}

#[fentry]
#[inline(always)]
fn tcp_set_state_fentry(context: FEntryContext) -> i32 {
    set_state(&context, plain(context.arg(0)), context.arg(1));
    0
}

#[kprobe]
#[inline(always)]
fn tcp_set_state_kprobe(context: ProbeContext) -> u32 {
    if let (Some(sk), Some(new)) = (context.arg(0), context.arg(1)) {
        set_state(&context, sk, new);
    }
    0
}

#[inline(always)]
fn set_state(context: &impl EbpfContext, sk: u64, new: u32) {
    if let Some(kernel) = Running::new(context) {
        lifecycle::on_set_state(&kernel, sk, new as u8);
    }
}

#[fentry]
#[inline(always)]
fn inet_sk_set_state_fentry(context: FEntryContext) -> i32 {
    child(&context, plain(context.arg(0)), context.arg(1));
    0
}

#[kprobe]
#[inline(always)]
fn inet_sk_set_state_kprobe(context: ProbeContext) -> u32 {
    if let (Some(sk), Some(new)) = (context.arg(0), context.arg(1)) {
        child(&context, sk, new);
    }
    0
}

#[inline(always)]
fn child(context: &impl EbpfContext, sk: u64, new: u32) {
    if let Some(kernel) = Running::new(context) {
        lifecycle::on_child(&kernel, sk, new as u8);
    }
}

#[raw_tracepoint]
#[inline(always)]
fn tcp_destroy_sock(context: RawTracePointContext) -> i32 {
    let Some(kernel) = Running::new(&context) else { return 0 };
    lifecycle::on_destroy(&kernel, context.arg(0));
    0
}

/// For kernels with `__inet_accept(struct socket *, struct socket *new, struct sock *new)`, about 6.5: unlike the function
/// that waits for a connection it is entered with one, so that nothing has to wait for its return.
#[fentry]
#[inline(always)]
fn inet_accept_fentry(context: FEntryContext) -> i32 {
    accept(&context, plain(context.arg(2)));
    0
}

#[kprobe]
#[inline(always)]
fn inet_accept_kprobe(context: ProbeContext) -> u32 {
    if let Some(sk) = context.arg(2) {
        accept(&context, sk);
    }
    0
}

/// For kernels without: `inet_csk_accept()` with four arguments, behind which the trampoline puts what it returns.
#[fexit]
#[inline(always)]
fn inet_csk_accept_fexit(context: FExitContext) -> i32 {
    accept(&context, plain(context.arg(4)));
    0
}

#[kretprobe]
#[inline(always)]
fn inet_csk_accept_kretprobe(context: RetProbeContext) -> u32 {
    accept(&context, context.ret());
    0
}

#[inline(always)]
fn accept(context: &impl EbpfContext, sk: u64) {
    if let Some(kernel) = Running::new(context) {
        lifecycle::on_accept(&kernel, sk);
    }
}

#[raw_tracepoint]
#[inline(always)]
fn tcp_rcv_space_adjust(context: RawTracePointContext) -> i32 {
    let Some(kernel) = Running::new(&context) else { return 0 };
    lifecycle::on_read(&kernel, context.arg(0));
    0
}

#[raw_tracepoint]
#[inline(always)]
fn tcp_receive_reset(context: RawTracePointContext) -> i32 {
    let Some(kernel) = Running::new(&context) else { return 0 };
    reset::on_receive_reset(&kernel, context.arg(0), 0);
    0
}

/// For kernels whose `tcp_reset()` is given the segment (from about 6.0), which says whether a RST arrived.
#[fentry]
#[inline(always)]
fn tcp_reset_fentry(context: FEntryContext) -> i32 {
    receive_reset(&context, plain(context.arg(0)), plain(context.arg(1)));
    0
}

#[kprobe]
#[inline(always)]
fn tcp_reset_kprobe(context: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (context.arg(0), context.arg(1)) {
        receive_reset(&context, sk, skb);
    }
    0
}

#[inline(always)]
fn receive_reset(context: &impl EbpfContext, sk: u64, skb: u64) {
    if let Some(kernel) = Running::new(context) {
        reset::on_receive_reset(&kernel, sk, skb);
    }
}

/// For kernels whose `tcp_send_reset` has two arguments.
#[raw_tracepoint]
#[inline(always)]
fn tcp_send_reset(context: RawTracePointContext) -> i32 {
    let Some(kernel) = Running::new(&context) else { return 0 };
    reset::on_send_reset(&kernel, context.arg(0), context.arg(1), None);
    0
}

/// For kernels whose `tcp_send_reset` names its reason.
#[raw_tracepoint]
#[inline(always)]
fn tcp_send_reset_reason(context: RawTracePointContext) -> i32 {
    let Some(kernel) = Running::new(&context) else { return 0 };
    reset::on_send_reset(&kernel, context.arg(0), context.arg(1), Some(context.arg(2)));
    0
}

/// For kernels whose `tcp_send_reset` tracepoint does not fire without a full socket: the function that sends. IPv6 has
/// an entry of its own because one program is attached by a trampoline to one function.
#[fentry]
#[inline(always)]
fn tcp_v4_send_reset_fentry(context: FEntryContext) -> i32 {
    answer(&context, plain(context.arg(0)), plain(context.arg(1)));
    0
}

#[fentry]
#[inline(always)]
fn tcp_v6_send_reset_fentry(context: FEntryContext) -> i32 {
    answer(&context, plain(context.arg(0)), plain(context.arg(1)));
    0
}

#[kprobe]
#[inline(always)]
fn tcp_v4_send_reset_kprobe(context: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (context.arg(0), context.arg(1)) {
        answer(&context, sk, skb);
    }
    0
}

#[kprobe]
#[inline(always)]
fn tcp_v6_send_reset_kprobe(context: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (context.arg(0), context.arg(1)) {
        answer(&context, sk, skb);
    }
    0
}

#[inline(always)]
fn answer(context: &impl EbpfContext, sk: u64, skb: u64) {
    if let Some(kernel) = Running::new(context) {
        reset::on_send_reset_function(&kernel, sk, skb);
    }
}

/// Every open file of every process, once: the agent reads the iterator to its end. The context is
/// `struct bpf_iter__task_file`: meta, task, fd and file, eight bytes each; the last call comes without a task.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn task_file(context: *mut c_void) -> i32 {
    let context = context.cast::<u64>();
    // SAFETY: the verifier knows these members of the context.
    let (task, file) = unsafe { (context.add(1).read(), context.add(3).read()) };
    let (task, file) = (plain(task), plain(file));
    if task != 0
        && let Some(kernel) = Running::in_no_hook()
    {
        open::on_open_file(&kernel, task, file);
    }
    0
}

/// Not attached anywhere: the agent runs it by hand (BPF_PROG_TEST_RUN) to measure HZ.
#[raw_tracepoint]
#[inline(always)]
fn clock(_context: RawTracePointContext) -> i32 {
    if let Some(sample) = CLOCK.get_ptr_mut(0) {
        // SAFETY: the pointer is to this CPU's value of a map that is never freed while the program runs; the helpers
        // have no precondition.
        unsafe { *sample = [generated::bpf_jiffies64(), generated::bpf_ktime_get_ns()] };
    }
    0
}

/// A pointer as a plain number. The verifier forbids most arithmetic on a pointer whose type it knows, such as the context, a
/// trampoline's arguments and an iterator's (and the compiler turns two comparisons into a subtraction), so its value is
/// copied by a helper.
#[inline(always)]
fn plain(pointer: u64) -> u64 {
    let mut number = 0_u64;
    // SAFETY: copies eight bytes from one variable to another.
    let _copied =
        unsafe { generated::bpf_probe_read_kernel((&raw mut number).cast(), 8, black_box(&raw const pointer).cast()) };
    number
}

/// The kernel this program runs in.
struct Running {
    arguments: u64,
    /// This CPU's [`Counter::ReadFault`], looked up once: a branch per read would multiply the paths the verifier walks.
    faults: &'static Cell<u64>,
}

impl Running {
    /// Every kind of context lies on the stack that the hook runs on: a tracepoint's arguments, a trampoline's, or the
    /// registers that a kprobe saved.
    #[inline(always)]
    fn new(context: &impl EbpfContext) -> Option<Self> {
        Some(Self { arguments: plain(context.as_ptr() as u64), ..Self::in_no_hook()? })
    }

    /// For what no hook runs: nobody's context.
    #[inline(always)]
    fn in_no_hook() -> Option<Self> {
        // SAFETY: this CPU's value of a map that is never freed while the program runs.
        let faults = unsafe { COUNTERS.get_ptr(Counter::ReadFault as u32)?.cast::<Cell<u64>>().as_ref()? };
        Some(Self { arguments: 0, faults })
    }
}

impl Kernel for Running {
    #[inline(always)]
    fn settings(&self) -> &Settings {
        // The loader changes what the compiler believes to be constant.
        black_box(&SETTINGS)
    }

    #[inline(always)]
    fn location(&self, member: Member) -> Location {
        // SAFETY: a member of a static. Volatile, because the loader changes what the compiler believes to be constant.
        unsafe { (&raw const SETTINGS.locations[member as usize]).read_volatile() }
    }

    /// Without a branch: each one would multiply the paths the verifier walks, and there are hundreds of reads.
    #[inline(always)]
    fn read<T: Plain>(&self, base: u64, offset: u64) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        let address = base.wrapping_add(offset) as *const c_void;
        // SAFETY: the helper checks the address itself and writes as many bytes as there are. Where nothing is mapped, as
        // beside address 0, it fails, and writes zeros.
        let result =
            unsafe { generated::bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address) };
        // The highest bits: of an error, and of every address of the kernel's half of the address space.
        self.faults.set(self.faults.get() + ((result as u64 & base) >> 63));
        // SAFETY: written above; `T` is valid for any bytes.
        unsafe { value.assume_init() }
    }

    #[inline(always)]
    fn boot_ns(&self) -> u64 {
        // SAFETY: the helper has no precondition.
        unsafe { generated::bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn monotonic_ns(&self) -> u64 {
        // SAFETY: the helper has no precondition.
        unsafe { generated::bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn jiffies(&self) -> u32 {
        // SAFETY: the helper has no precondition.
        unsafe { generated::bpf_jiffies64() as u32 }
    }

    #[inline(always)]
    fn cpu(&self) -> u16 {
        // SAFETY: the helper has no precondition.
        unsafe { generated::bpf_get_smp_processor_id() as u16 }
    }

    #[inline(always)]
    fn current_task(&self) -> u64 {
        // SAFETY: the helper has no precondition.
        unsafe { generated::bpf_get_current_task() }
    }

    #[inline(always)]
    fn current_pid_tgid(&self) -> u64 {
        bpf_get_current_pid_tgid()
    }

    #[inline(always)]
    fn current_cgroup_id(&self) -> u64 {
        // SAFETY: the helper has no precondition.
        unsafe { generated::bpf_get_current_cgroup_id() }
    }

    #[inline(always)]
    fn arguments(&self) -> u64 {
        self.arguments
    }

    #[inline(always)]
    fn connection(&self, sk: u64) -> Option<&mut Connection> {
        // SAFETY: a map value stays mapped while the program runs, and the hooks of one socket run under its lock
        // (see the trait).
        CONNECTIONS.get_ptr_mut(sk).and_then(|connection| unsafe { connection.as_mut() })
    }

    #[inline(always)]
    fn begin_connection(&self, sk: u64) -> Option<&mut Connection> {
        if CONNECTIONS.insert(sk, black_box(&NO_CONNECTION), 0).is_err() {
            self.count(Counter::ConnectionTableFull);
            log::no_room_for_connection(sk);
            return None;
        }
        self.connection(sk)
    }

    #[inline(always)]
    fn remove_connection(&self, sk: u64) {
        // Not there is what was wanted.
        let _absent = CONNECTIONS.remove(sk);
    }

    #[inline(always)]
    fn closed(&self, tuple: &Tuple) -> Option<&Closed> {
        // SAFETY: a map value stays mapped while the program runs. An entry evicted meanwhile may be overwritten by a
        // newer one, whose bytes are as valid.
        unsafe { CLOSED.get(tuple) }
    }

    #[inline(always)]
    fn closed_scratch(&self) -> Option<&mut Closed> {
        let index = u32::from(!task::on_its_stack(self));
        // SAFETY: this CPU's value; of the programs that run at once on a CPU, one inside the other, each takes another
        // one (see the trait).
        CLOSED_SCRATCH.get_ptr_mut(index).and_then(|scratch| unsafe { scratch.as_mut() })
    }

    #[inline(always)]
    fn store_closed(&self, tuple: &Tuple, closed: &Closed) {
        if CLOSED.insert(tuple, closed, 0).is_err() {
            self.count(Counter::ClosedTableFailed);
        } else {
            self.count(Counter::ClosedRecorded);
        }
    }

    #[inline(always)]
    fn remove_closed(&self, tuple: &Tuple) {
        // Not there is the usual case.
        let _absent = CLOSED.remove(tuple);
    }

    #[inline(always)]
    fn learn_idle_limit(&self, server: &Server, ticks: u32) {
        match IDLE_LIMITS.get_ptr_mut(server) {
            // SAFETY: a map value stays mapped while the program runs. Two programs may write at once; any mixture of
            // two measurements is one that was made, and a lost count does not matter.
            Some(limit) => unsafe {
                (*limit).last = ticks;
                if ticks < (*limit).least {
                    (*limit).least = ticks;
                }
                (*limit).count = (*limit).count.saturating_add(1);
            },
            None => {
                let limit = IdleLimit { last: ticks, least: ticks, count: 1, padding: 0 };
                // Full cannot be: the oldest goes.
                let _stored = IDLE_LIMITS.insert(server, limit, 0);
            }
        }
    }

    #[inline(always)]
    fn note_failure(&self, tgid: u32, failure: &Failure) {
        // Full cannot be: the oldest goes.
        let _stored = FAILURES.insert(tgid, failure, 0);
    }

    #[inline(always)]
    fn failure(&self, tgid: u32) -> Option<Failure> {
        // SAFETY: a map value stays mapped while the program runs. Any mixture of two failures is as good as either.
        unsafe { FAILURES.get(tgid) }.copied()
    }

    #[inline(always)]
    fn emit(&self, fill: impl FnOnce(&mut Event)) {
        let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
            self.count(Counter::RingBufferFull);
            return log::no_room_for_event();
        };
        let event: &mut MaybeUninit<Event> = &mut entry;
        // SAFETY: the entry is as long as an `Event` and aligned to eight bytes; zeros are a valid `Event`.
        let event = unsafe {
            ptr::write_bytes(event.as_mut_ptr(), 0, 1);
            event.assume_init_mut()
        };
        fill(event);
        if event.flags & flag::READ_FAULT != 0 {
            log::unreadable(event.sk);
        }
        entry.submit(0);
        self.count(Counter::Emitted);
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
            // SAFETY: this CPU's value of a map that is never freed while the program runs.
            unsafe { *value += 1 };
        }
    }

    #[inline(always)]
    fn counted(&self, counter: Counter) -> u64 {
        COUNTERS.get(counter as u32).map_or(0, |value| *value)
    }
}

/// Its eBPF object is "Dual MIT/GPL": several helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
