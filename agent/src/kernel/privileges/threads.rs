//! Giving up capabilities in every thread of this process.
//!
//! They are a thread's own (capabilities(7)), a thread hands its to those that it starts, and no system call concerns
//! another thread's. Some threads have to run before everything is attached. So each is interrupted by a signal and gives
//! them up itself, as the C library has all threads change their user (nptl(7)), and libcap's psx their capabilities. What `/proc` says of each is the proof; whatever starts meanwhile is asked as well.

use std::{
    collections::BTreeSet,
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use procfs::process::Process;
use rustix::{
    io::Result as SystemResult,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_capabilities, set_no_new_privs,
    },
};

/// How long is waited for them. A thread that waits for a dead disk answers when that does.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the signal leaves; there is no other way to tell a handler.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// Has every thread give up all but `kept`. Returns the names of those that have not yet.
pub(super) fn reduce_all(kept: CapabilitySet) -> io::Result<Vec<String>> {
    KEPT.store(kept.bits(), Ordering::SeqCst);
    listen()?;
    reduce_this(kept)?;
    let deadline = Instant::now() + PATIENCE;
    let mut asked = BTreeSet::new();
    loop {
        let left = with_more_than(kept)?;
        if left.is_empty() || Instant::now() >= deadline {
            return Ok(left.into_iter().map(|thread| thread.name).collect());
        }
        for thread in left {
            // Once is enough: a signal waits for its thread.
            if asked.insert(thread.id) {
                interrupt(thread.id)?;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Has this thread give up all but `kept`. Makes system calls and nothing else, as a signal's handler has to.
pub(super) fn reduce_this(kept: CapabilitySet) -> SystemResult<()> {
    set_no_new_privs(true)?;
    let own = capabilities(None)?;
    if own.effective.contains(CapabilitySet::SETPCAP) {
        // Without that right the set stays, and what was set just now is why it gives nobody anything (execve(2)).
        for bit in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            // An error means that the kernel knows no capability of that number.
            if !kept.contains(one) && remove_capability_from_bounding_set(one).is_err() {
                break;
            }
        }
    }
    clear_ambient_capability_set()?;
    let rest = kept & own.permitted;
    set_capabilities(None, CapabilitySets { effective: rest, permitted: rest, inheritable: CapabilitySet::empty() })
}

/// A thread of this process.
struct Thread {
    /// In this process's own pid namespace, which is not that of a `/proc` from elsewhere.
    id: i32,
    name: String,
}

fn with_more_than(kept: CapabilitySet) -> io::Result<Vec<Thread>> {
    let tasks = Process::myself().and_then(|process| process.tasks()).map_err(io::Error::other)?;
    // One that ends meanwhile has nothing left.
    let running = tasks.flatten().filter_map(|task| task.status().ok());
    let has_more = running.filter(|status| {
        let rights = status.capprm | status.capeff | status.capinh | status.capamb.unwrap_or(0);
        rights & !kept.bits() != 0 || status.nonewprivs != Some(1)
    });
    let threads = has_more.map(|status| Thread {
        id: status.nspid.and_then(|ids| ids.last().copied()).unwrap_or(status.pid),
        name: status.name,
    });
    Ok(threads.collect())
}

/// One of those for a process's own use. Whoever else sends it has the threads give up what they gave up already.
fn number() -> libc::c_int {
    libc::SIGRTMIN() + 5
}

extern "C" fn on_signal(_number: libc::c_int) {
    // SAFETY: every thread has one; whatever it was doing may be about to look at it.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    // It went well in the thread that asked; that it did here as well is seen in `/proc`.
    let _seen = reduce_this(CapabilitySet::from_bits_retain(KEPT.load(Ordering::SeqCst)));
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// From now on the signal is answered; what a thread waits for goes on where the kernel can go on with it (SA_RESTART).
fn listen() -> io::Result<()> {
    // SAFETY: all zeros is an empty mask, no flags and no handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is valid, and its handler keeps to what a handler may do.
    if unsafe { libc::sigaction(number(), &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn interrupt(thread: i32) -> io::Result<()> {
    let process = std::process::id();
    // SAFETY: tgkill has no memory arguments; nobody but a thread of this process gets it.
    if unsafe { libc::syscall(libc::SYS_tgkill, process, thread, number()) } != 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ESRCH) {
            return Err(error);
        }
    }
    Ok(())
}
