//! What the kernel side says of itself to whoever looks for a fault in rstscope: in a build with the feature `log`, and if the
//! agent asked for it before loading. What is lost is counted in any build; this says where.

#[cfg(feature = "log")]
use aya_log_ebpf::debug;

/// The ring buffer has no room for an event.
#[inline(always)]
pub fn no_room_for_event() {
    #[cfg(feature = "log")]
    debug!((), "no room in the ring buffer for an event");
}

/// The table of living connections has no room for this socket's.
#[inline(always)]
pub fn no_room_for_connection(_sk: u64) {
    #[cfg(feature = "log")]
    debug!((), "no room in the table for the connection of the socket {:x}", _sk);
}

/// Something that an event about this socket says could not be read.
#[inline(always)]
pub fn unreadable(_sk: u64) {
    #[cfg(feature = "log")]
    debug!((), "a member of the socket {:x}, or of what it leads to, cannot be read", _sk);
}
