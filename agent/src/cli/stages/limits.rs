//! The kernel side's idle limits, as the diagnosis asks for them.

use std::net::IpAddr;

use agent_common::connection::Server;

use crate::{
    diagnosis::limits::{Limit, Limits},
    event::{Millis, address::to_words},
    kernel::tracer::IdleLimits,
};

/// Limits in the kernel's table, in ticks of `hz`.
pub struct KernelLimits {
    /// The table.
    pub table: IdleLimits,
    /// Ticks per second.
    pub hz: u32,
}

impl Limits for KernelLimits {
    fn of(&self, server: IpAddr, port: u16, netns: u32) -> Option<Limit> {
        let found = self.table.of(&Server { address: to_words(server), port: port.into(), netns })?;
        Some(Limit {
            last: Millis::from_ticks(found.last, self.hz),
            least: Millis::from_ticks(found.least, self.hz),
            count: found.count,
        })
    }
}
