//! The kernel's tick counter, of which sockets keep the low 32 bits (`tcp_jiffies32`).

/// Ticks from `stamp` to `now`; `None` if the stamp was never set.
///
/// Subtraction, never comparison: the 32 bits wrap five minutes after boot, because jiffies start at −300 · HZ
/// (`INITIAL_JIFFIES`). A stamp from the future is another CPU's newer one: 0.
#[inline(always)]
#[must_use]
pub const fn since(now: u32, stamp: u32) -> Option<u32> {
    if stamp == 0 {
        return None;
    }
    let ticks = now.wrapping_sub(stamp);
    Some(if ticks.cast_signed() < 0 { 0 } else { ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_right_on_both_sides_of_the_wrap() {
        assert_eq!(since(1000, 900), Some(100));
        assert_eq!(since(50, u32::MAX - 49), Some(100), "stamp before the wrap, now after it");
        assert_eq!(since(u32::MAX, u32::MAX - 99), Some(99));
        assert_eq!(since(900, 901), Some(0), "another CPU stored a newer stamp");
        assert_eq!(since(u32::MAX, 1), Some(0), "newer stamp just across the wrap");
        assert_eq!(since(900, 0), None, "never set is not idle for weeks");
    }
}
