//! What the agent tells the kernel side before it is loaded: member locations and filters.

use crate::{
    connection::Tuple,
    layout::{Location, Locations, MEMBER_COUNT},
};

/// How many ports can be asked for.
pub const MAX_PORTS: usize = 16;
/// How many networks can be asked for.
pub const MAX_NETWORKS: usize = 8;
/// How many cgroups can be asked for.
pub const MAX_CGROUPS: usize = 4;

/// A network in the form addresses have in a [`Tuple`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// The network's address, bits outside the mask 0.
    pub address: [u32; 4],
    /// The mask, network byte order.
    pub mask: [u32; 4],
}

impl Network {
    /// Whether `address` lies in the network.
    #[inline(always)]
    #[must_use]
    pub const fn contains(&self, address: &[u32; 4]) -> bool {
        (address[0] & self.mask[0]) == self.address[0]
            && (address[1] & self.mask[1]) == self.address[1]
            && (address[2] & self.mask[2]) == self.address[2]
            && (address[3] & self.mask[3]) == self.address[3]
    }
}

/// A cgroup v2 subtree.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupSubtree {
    /// Id of its top.
    pub id: u64,
    /// Depth of its top below the root, the root being 0 (`cgroup.level`).
    pub level: u64,
}

/// The read-only global `SETTINGS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where each member lies.
    pub locations: Locations,
    /// How many of `ports` are used; 0: every port.
    pub port_count: u32,
    /// How many of `networks` are used; 0: every address.
    pub network_count: u32,
    /// How many of `cgroups` are used; 0: every cgroup.
    pub cgroup_count: u32,
    /// Bytes of a kernel stack (THREAD_SIZE), to tell process context from softirq.
    pub thread_size: u32,
    /// Ports asked for, host byte order; either end may have it.
    pub ports: [u16; MAX_PORTS],
    /// Networks asked for; either end may lie in it.
    pub networks: [Network; MAX_NETWORKS],
    /// Cgroup subtrees asked for.
    pub cgroups: [CgroupSubtree; MAX_CGROUPS],
}

// No padding: the agent hands the record over as bytes.
const _: () = assert!(
    size_of::<Settings>() == size_of::<Locations>() + 4 * 4 + MAX_PORTS * 2 + MAX_NETWORKS * 32 + MAX_CGROUPS * 16
);

impl Default for Settings {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Settings {
    /// No member known, no filter.
    pub const EMPTY: Self = Self {
        locations: [Location::ABSENT; MEMBER_COUNT.next_multiple_of(2)],
        port_count: 0,
        network_count: 0,
        cgroup_count: 0,
        thread_size: 16 * 1024,
        ports: [0; MAX_PORTS],
        networks: [Network { address: [0; 4], mask: [0; 4] }; MAX_NETWORKS],
        cgroups: [CgroupSubtree { id: 0, level: 0 }; MAX_CGROUPS],
    };

    /// The record's bytes, as the loader wants them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        // SAFETY: `Settings` is `repr(C)`, made of integers, and the assertion above proves there is no padding.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }

    /// Whether the port filter lets a connection through.
    #[inline(always)]
    #[must_use]
    pub fn wants_ports(&self, tuple: &Tuple) -> bool {
        let mut wanted = self.port_count == 0;
        for (index, port) in self.ports.iter().enumerate() {
            if (index as u32) < self.port_count && (*port == tuple.local_port || *port == tuple.peer_port) {
                wanted = true;
            }
        }
        wanted
    }

    /// Whether the address filter lets a connection through.
    #[inline(always)]
    #[must_use]
    pub fn wants_addresses(&self, tuple: &Tuple) -> bool {
        let mut wanted = self.network_count == 0;
        for (index, network) in self.networks.iter().enumerate() {
            if (index as u32) < self.network_count && (network.contains(&tuple.local) || network.contains(&tuple.peer))
            {
                wanted = true;
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::mapped;

    fn v4(a: u8, b: u8, c: u8, d: u8) -> [u32; 4] {
        mapped(u32::from_ne_bytes([a, b, c, d]))
    }

    fn tuple() -> Tuple {
        Tuple { local: v4(10, 1, 2, 3), peer: v4(192, 0, 2, 9), local_port: 40000, peer_port: 443, netns: 1 }
    }

    #[test]
    fn no_filter_lets_everything_through() {
        assert!(Settings::EMPTY.wants_ports(&tuple()) && Settings::EMPTY.wants_addresses(&tuple()));
    }

    #[test]
    fn a_port_matches_at_either_end_and_only_the_ones_in_use_count() {
        let mut settings = Settings { port_count: 1, ..Settings::EMPTY };
        settings.ports[0] = 443;
        settings.ports[1] = 40000;
        assert!(settings.wants_ports(&tuple()));
        settings.ports[0] = 80;
        assert!(!settings.wants_ports(&tuple()), "ports[1] is beyond port_count");
    }

    #[test]
    fn a_network_matches_at_either_end() {
        let mask = [u32::MAX, u32::MAX, u32::MAX, u32::from_ne_bytes([255, 0, 0, 0])];
        let mut settings = Settings { network_count: 1, ..Settings::EMPTY };
        settings.networks[0] = Network { address: v4(10, 0, 0, 0), mask };
        assert!(settings.wants_addresses(&tuple()));
        settings.networks[0] = Network { address: v4(11, 0, 0, 0), mask };
        assert!(!settings.wants_addresses(&tuple()));
    }
}
