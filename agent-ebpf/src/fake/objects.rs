//! What the fake kernel's memory holds: sockets, cgroups and packets.

use agent_common::{
    layout::Member,
    tcp::{AF_INET, AF_INET6, IPPROTO_TCP, state},
};

use super::{CGROUP_DEPTH, Fake, v4, v6_bytes};
use crate::kernel::field;

/// What a full TCP socket is made of.
const FULL_SOCKET: &[&str] = &["sock_common", "sock", "inet_sock", "inet_connection_sock", "tcp_sock"];

impl Fake {
    // Sockets.

    /// A new network namespace.
    pub fn namespace(&mut self, inum: u32) -> u64 {
        let net = self.object(&["net"]);
        self.set(net, Member::NetInum, inum);
        net
    }

    fn socket(&mut self, structures: &[&str], state: u8) -> u64 {
        let sk = self.object(structures);
        self.set(sk, Member::Family, AF_INET);
        self.set(sk, Member::State, state);
        self.set(sk, Member::Net, self.net);
        self.set(sk, Member::RcvSaddr, v4(10, 0, 0, 2)[3]);
        sk
    }

    /// A new full TCP socket that a file refers to, in CLOSE, local 10.0.0.2 and no port.
    pub fn unconnected(&mut self) -> u64 {
        let sk = self.socket(FULL_SOCKET, state::CLOSE);
        let socket = self.object(&["socket"]);
        self.set(sk, Member::Protocol, IPPROTO_TCP);
        self.set(sk, Member::SkType, 1_u16);
        self.set(sk, Member::Socket, socket);
        self.set(socket, Member::SocketSk, sk);
        sk
    }

    /// A new `struct file` that stands for a socket.
    pub fn file_of(&mut self, sk: u64) -> u64 {
        let (file, inode) = (self.object(&["file"]), self.object(&["inode"]));
        let socket: u64 = field(self, sk, Member::Socket);
        self.set(inode, Member::InodeMode, 0o140_777_u16);
        self.set(file, Member::FileInode, inode);
        self.set(file, Member::FilePrivate, socket);
        file
    }

    /// A new `struct file` of a regular file, whose private data is none of anybody's business.
    pub fn plain_file(&mut self) -> u64 {
        let (file, inode) = (self.object(&["file"]), self.object(&["inode"]));
        self.set(inode, Member::InodeMode, 0o100_644_u16);
        self.set(file, Member::FileInode, inode);
        self.set(file, Member::FilePrivate, 0x1234_u64);
        file
    }

    /// A new process that is not the current one, in a cgroup of this id below the root.
    pub fn process_in_cgroup(&mut self, tgid: u32, comm: &str, cgroup: u64) -> u64 {
        let (task, css_set) = (self.leader(tgid), self.object(&["css_set"]));
        let cgroup = self.cgroup(cgroup, &[1, cgroup]);
        let mut name = [0; 16];
        name[..comm.len()].copy_from_slice(comm.as_bytes());
        self.set(css_set, Member::CssSetDefault, cgroup);
        self.set(task, Member::TaskCgroups, css_set);
        self.set(task, Member::TaskComm, name);
        task
    }

    /// A new full TCP socket, established between 10.0.0.2:80 and its peer 10.0.0.1:40000, of which no hook has told.
    pub fn established(&mut self) -> u64 {
        let sk = self.unconnected();
        self.set_peer(sk);
        self.set(sk, Member::Sport, 80_u16.to_be());
        self.set(sk, Member::State, state::ESTABLISHED);
        sk
    }

    /// The peer is 10.0.0.1:40000.
    pub fn set_peer(&mut self, sk: u64) {
        self.set(sk, Member::Daddr, v4(10, 0, 0, 1)[3]);
        self.set(sk, Member::Dport, 40000_u16.to_be());
    }

    /// The same ends as an AF_INET6 socket with mapped addresses has them.
    pub fn make_mapped(&mut self, sk: u64) {
        self.set(sk, Member::Family, AF_INET6);
        self.set(sk, Member::V6RcvSaddr, v4(10, 0, 0, 2));
        self.set(sk, Member::V6Daddr, v4(10, 0, 0, 1));
    }

    /// A new listener on 10.0.0.2:80.
    pub fn listener(&mut self) -> u64 {
        let sk = self.unconnected();
        self.set(sk, Member::Sport, 80_u16.to_be());
        self.set(sk, Member::State, state::LISTEN);
        sk
    }

    /// A new TIME_WAIT mini-socket in this sub-state. It ends where `struct sock` has only begun.
    pub fn time_wait(&mut self, substate: u8) -> u64 {
        let sk = self.socket(&["sock_common", "inet_timewait_sock"], state::TIME_WAIT);
        self.set(sk, Member::TwSubstate, substate);
        sk
    }

    /// A new IPv4 route of this kind (`RTN_*`).
    pub fn route(&mut self, kind: u16) -> u64 {
        let route = self.object(&["rtable"]);
        self.set(route, Member::RouteType, kind);
        route
    }

    // Cgroups.

    /// A new cgroup of the v2 hierarchy; its ancestors' ids from the root's to its own.
    pub fn cgroup(&mut self, id: u64, ancestors: &[u64]) -> u64 {
        assert!(ancestors.last() == Some(&id) && ancestors.len() <= CGROUP_DEPTH);
        let cgroup = self.bare_cgroup(id);
        let root = self.object(&["cgroup_root"]);
        self.set(cgroup, Member::CgroupRoot, root);
        self.set(cgroup, Member::CgroupLevel, ancestors.len() as u32 - 1);
        for (level, ancestor) in ancestors.iter().enumerate() {
            let offset = level as u64 * 8;
            let pointers = self.settings.locations[Member::CgroupAncestors as usize];
            if pointers.is_present() {
                let ancestor = if *ancestor == id { cgroup } else { self.bare_cgroup(*ancestor) };
                self.write(cgroup + pointers.byte() + offset, ancestor);
            } else {
                let ids = self.settings.locations[Member::CgroupAncestorIds as usize];
                self.write(cgroup + ids.byte() + offset, *ancestor);
            }
        }
        cgroup
    }

    fn bare_cgroup(&mut self, id: u64) -> u64 {
        let cgroup = self.object(&["cgroup"]);
        let node = self.object(&["kernfs_node"]);
        self.set(cgroup, Member::CgroupKn, node);
        self.set(node, Member::KernfsId, id);
        cgroup
    }

    /// Charges the socket's memory to `cgroup`, which is moved to that hierarchy (0: cgroup v2).
    pub fn charge_memory(&mut self, sk: u64, cgroup: u64, hierarchy_id: u32) {
        let root = self.object(&["cgroup_root"]);
        let memcg = self.object(&["mem_cgroup"]);
        self.set(root, Member::CgroupRootHierarchy, hierarchy_id);
        self.set(cgroup, Member::CgroupRoot, root);
        self.set(memcg, Member::MemcgCgroup, cgroup);
        self.set(sk, Member::SkMemcg, memcg);
    }

    // Packets.

    /// A received segment: sequence number 1000, acknowledgement 2000.
    pub fn packet_v4(&mut self, src: [u8; 4], sport: u16, dst: [u8; 4], dport: u16, flags: u8, payload: u16) -> u64 {
        let mut ip = vec![0x45, 0];
        ip.extend((40 + payload).to_be_bytes());
        ip.extend([0, 0, 0, 0, 64, 6, 0, 0]);
        ip.extend(src);
        ip.extend(dst);
        self.packet(&ip, sport, dport, flags)
    }

    /// A received segment between fd00::`src` and fd00::`dst`.
    pub fn packet_v6(&mut self, src: u8, sport: u16, dst: u8, dport: u16, flags: u8, payload: u16) -> u64 {
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend((20 + payload).to_be_bytes());
        ip.extend([6, 64]);
        ip.extend(v6_bytes(src));
        ip.extend(v6_bytes(dst));
        self.packet(&ip, sport, dport, flags)
    }

    fn packet(&mut self, ip: &[u8], sport: u16, dport: u16, flags: u8) -> u64 {
        let mut tcp = Vec::new();
        tcp.extend(sport.to_be_bytes());
        tcp.extend(dport.to_be_bytes());
        tcp.extend(1000_u32.to_be_bytes());
        tcp.extend(2000_u32.to_be_bytes());
        tcp.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);

        // Some headroom and a link-layer header before.
        let network = 78;
        let head = self.object(&[]);
        let headers = ip.iter().chain(&tcp);
        self.memory.extend((head + u64::from(network)..).zip(headers.copied()));
        let device = self.object(&["net_device"]);
        self.set(device, Member::DevNet, self.net);
        let skb = self.object(&["sk_buff"]);
        self.set(skb, Member::SkbHead, head);
        self.set(skb, Member::SkbNetworkHeader, network);
        self.set(skb, Member::SkbTransportHeader, network + ip.len() as u16);
        self.set(skb, Member::SkbDev, device);
        skb
    }
}
