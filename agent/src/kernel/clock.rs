//! The kernel side stamps events with CLOCK_BOOTTIME, which no adjustment of the time of day can turn back.

/// CLOCK_REALTIME − CLOCK_BOOTTIME in nanoseconds: what to add to an event's stamp. Changes when the time of day is
/// set, so it is asked again and again.
#[must_use]
pub fn realtime_offset_ns() -> i128 {
    now_ns(libc::CLOCK_REALTIME) - now_ns(libc::CLOCK_BOOTTIME)
}

/// CLOCK_BOOTTIME in nanoseconds.
#[must_use]
pub fn boot_ns() -> u64 {
    u64::try_from(now_ns(libc::CLOCK_BOOTTIME)).unwrap_or(0)
}

fn now_ns(clock: libc::clockid_t) -> i128 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result. The call cannot fail for these two clocks.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}
