//! Idle limits of servers, learned from connections they closed with nothing outstanding.

use std::net::IpAddr;

use crate::event::Millis;

/// What was learned of one server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Idleness at the last such close.
    pub last: Millis,
    /// The least seen.
    pub least: Millis,
    /// How many closes were seen.
    pub count: u32,
}

impl Limit {
    /// When the timer comes due. It fires late, never early, so that is the least seen; but a close for another reason
    /// (the server ends) can come much earlier, and is none.
    #[must_use]
    pub fn due(&self) -> Millis {
        if self.least.0 >= 0.9 * self.last.0 { self.least } else { self.last }
    }
}

/// Where learned limits come from: the kernel side's table.
pub trait Limits {
    /// The limit of the server at this address and port, as seen from this network namespace.
    fn of(&self, server: IpAddr, port: u16, netns: u32) -> Option<Limit>;
}

/// Nothing was learned.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLimits;

impl Limits for NoLimits {
    fn of(&self, _: IpAddr, _: u16, _: u32) -> Option<Limit> {
        None
    }
}
