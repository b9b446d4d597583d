//! The members of kernel structures that the kernel side reads, in one table.
//!
//! rustc emits no CO-RE relocations, so nothing patches offsets into the program at load time. The agent looks every
//! member up in the running kernel's BTF instead and hands the result over in [`Settings`](crate::settings::Settings),
//! a read-only global that the verifier treats as constants.

/// Where a member lies: bit offset in the low 24 bits, bit width in the high 8 (0: a whole number of bytes).
///
/// That is how BTF itself stores a member of a structure with bit-fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Location(pub u32);

impl Location {
    /// The running kernel has no such member.
    pub const ABSENT: Self = Self(u32::MAX);

    /// A member at `bit_offset`, `width` bits wide if it is a bit-field, else 0. `None` if that cannot be encoded.
    #[must_use]
    pub const fn new(bit_offset: u32, width: u32) -> Option<Self> {
        if bit_offset >= 1 << 24 || width >= 64 || (width == 0 && !bit_offset.is_multiple_of(8)) {
            return None;
        }
        Some(Self(bit_offset | width << 24))
    }

    /// Whether the running kernel has the member.
    #[inline(always)]
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 != Self::ABSENT.0
    }

    /// Byte offset of the byte in which it begins.
    #[inline(always)]
    #[must_use]
    pub const fn byte(self) -> u64 {
        ((self.0 & 0x00ff_ffff) / 8) as u64
    }

    /// First bit inside that byte, counted from the least significant as the kernel's compilers do on little-endian.
    #[inline(always)]
    #[must_use]
    pub const fn shift(self) -> u32 {
        self.0 & 7
    }

    /// Width of a bit-field, 0 for an ordinary member.
    #[inline(always)]
    #[must_use]
    pub const fn width(self) -> u32 {
        self.0 >> 24
    }
}

/// Whether rstscope can work without a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// No line could be right without it: a kernel without it is refused by name.
    Required,
    /// What depends on it is left out of the line.
    Optional,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which member this is on our side.
    pub member: Member,
    /// The kernel's structure.
    pub structure: &'static str,
    /// The member's path in it; unnamed members on the way are not spelled.
    pub path: &'static str,
    /// Whether it may be missing.
    pub need: Need,
}

macro_rules! members {
    ($($name:ident: $structure:literal . $path:literal $need:ident;)+) => {
        /// A member of a kernel structure; the index into [`Locations`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Member {
            $(#[doc = concat!("`", $structure, ".", $path, "`")] $name,)+
        }

        /// Every member, in the order of [`Member`].
        pub const MEMBERS: &[Row] = &[
            $(Row { member: Member::$name, structure: $structure, path: $path, need: Need::$need },)+
        ];
    };
}

members! {
    // struct sock_common: safe on every kind of socket, mini-sockets included.
    Daddr: "sock_common"."skc_daddr" Required;
    RcvSaddr: "sock_common"."skc_rcv_saddr" Required;
    Dport: "sock_common"."skc_dport" Required;
    Family: "sock_common"."skc_family" Required;
    State: "sock_common"."skc_state" Required;
    Net: "sock_common"."skc_net.net" Optional;
    V6Daddr: "sock_common"."skc_v6_daddr" Optional;
    V6RcvSaddr: "sock_common"."skc_v6_rcv_saddr" Optional;
    // On every kind of socket; a TIME_WAIT socket inherits it.
    Cookie: "sock_common"."skc_cookie" Optional;
    // Shares its place with a request's listener pointer and a TIME_WAIT socket's death row: full sockets only.
    SkFlags: "sock_common"."skc_flags" Required;

    Protocol: "sock"."sk_protocol" Required;
    Error: "sock"."sk_err" Required;
    SoftError: "sock"."sk_err_soft" Optional;
    Shutdown: "sock"."sk_shutdown" Required;
    LingerTime: "sock"."sk_lingertime" Optional;
    Socket: "sock"."sk_socket" Optional;
    SkType: "sock"."sk_type" Optional;
    // `cgroup` from 5.15 on, `val` with flags in its low bits before.
    SkCgroup: "sock"."sk_cgrp_data.cgroup" Optional;
    SkCgroupVal: "sock"."sk_cgrp_data.val" Optional;
    SkMemcg: "sock"."sk_memcg" Optional;

    // Not skc_num: that is 0 once a closing socket has given its port back, which includes every accepted socket.
    Sport: "inet_sock"."inet_sport" Required;

    Retransmits: "inet_connection_sock"."icsk_retransmits" Optional;
    ProbesOut: "inet_connection_sock"."icsk_probes_out" Optional;
    UserTimeout: "inet_connection_sock"."icsk_user_timeout" Optional;
    LastReceived: "inet_connection_sock"."icsk_ack.lrcvtime" Required;

    LastSent: "tcp_sock"."lsndtime" Required;
    LastAck: "tcp_sock"."rcv_tstamp" Optional;
    CwndStamp: "tcp_sock"."snd_cwnd_stamp" Optional;
    RcvqTime: "tcp_sock"."rcvq_space.time" Optional;
    DeliveredStamp: "tcp_sock"."delivered_mstamp" Optional;
    BytesSent: "tcp_sock"."bytes_sent" Optional;
    BytesAcked: "tcp_sock"."bytes_acked" Optional;
    BytesReceived: "tcp_sock"."bytes_received" Optional;
    SegsIn: "tcp_sock"."segs_in" Optional;
    SegsOut: "tcp_sock"."segs_out" Optional;
    Srtt: "tcp_sock"."srtt_us" Optional;
    TotalRetrans: "tcp_sock"."total_retrans" Optional;
    RcvNxt: "tcp_sock"."rcv_nxt" Optional;
    CopiedSeq: "tcp_sock"."copied_seq" Optional;
    SndUna: "tcp_sock"."snd_una" Optional;
    SndNxt: "tcp_sock"."snd_nxt" Optional;
    WriteSeq: "tcp_sock"."write_seq" Optional;
    SndWnd: "tcp_sock"."snd_wnd" Optional;
    PacketsOut: "tcp_sock"."packets_out" Optional;
    RetransOut: "tcp_sock"."retrans_out" Optional;
    SawTstamp: "tcp_sock"."rx_opt.saw_tstamp" Optional;
    TstampOk: "tcp_sock"."rx_opt.tstamp_ok" Optional;

    TwSubstate: "inet_timewait_sock"."tw_substate" Optional;

    SkbHead: "sk_buff"."head" Required;
    SkbNetworkHeader: "sk_buff"."network_header" Required;
    SkbTransportHeader: "sk_buff"."transport_header" Required;
    SkbDev: "sk_buff"."dev" Optional;
    SkbRefdst: "sk_buff"."_skb_refdst" Optional;
    RouteType: "rtable"."rt_type" Optional;
    RouteFlagsV6: "rt6_info"."rt6i_flags" Optional;
    DevNet: "net_device"."nd_net.net" Optional;
    NetInum: "net"."ns.inum" Optional;

    FileInode: "file"."f_inode" Optional;
    FilePrivate: "file"."private_data" Optional;
    InodeMode: "inode"."i_mode" Optional;
    SocketSk: "socket"."sk" Optional;

    TaskFlags: "task_struct"."flags" Required;
    TaskPid: "task_struct"."pid" Optional;
    TaskTgid: "task_struct"."tgid" Optional;
    TaskStack: "task_struct"."stack" Required;
    TaskGroupLeader: "task_struct"."group_leader" Required;
    TaskComm: "task_struct"."comm" Required;
    TaskStartBoottime: "task_struct"."start_boottime" Optional;
    TaskExitCode: "task_struct"."exit_code" Optional;
    TaskExitState: "task_struct"."exit_state" Optional;
    TaskSignal: "task_struct"."signal" Optional;
    // How many of its threads have not begun to exit.
    SignalLive: "signal_struct"."live" Optional;
    TaskCgroups: "task_struct"."cgroups" Optional;

    CssSetDefault: "css_set"."dfl_cgrp" Optional;
    MemcgCgroup: "mem_cgroup"."css.cgroup" Optional;
    CgroupKn: "cgroup"."kn" Optional;
    CgroupLevel: "cgroup"."level" Optional;
    CgroupRoot: "cgroup"."root" Optional;
    // Pointers from 6.1 on, ids before.
    CgroupAncestors: "cgroup"."ancestors" Optional;
    CgroupAncestorIds: "cgroup"."ancestor_ids" Optional;
    CgroupRootHierarchy: "cgroup_root"."hierarchy_id" Optional;
    KernfsId: "kernfs_node"."id" Optional;
}

/// How many members the table has.
pub const MEMBER_COUNT: usize = MEMBERS.len();

/// Where each member lies in the running kernel, indexed by [`Member`]. One more than needed if that is odd, so that
/// eight-byte fields may follow without padding.
pub type Locations = [Location; MEMBER_COUNT.next_multiple_of(2)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_rows_stand_at_their_members_index() {
        for (index, row) in MEMBERS.iter().enumerate() {
            assert_eq!(row.member as usize, index, "{}.{}", row.structure, row.path);
        }
    }

    #[test]
    fn location_keeps_offset_and_width() {
        let field = Location::new(1744 * 8 + 1, 1).unwrap();
        assert_eq!((field.byte(), field.shift(), field.width()), (1744, 1, 1));
        let whole = Location::new(1584 * 8, 0).unwrap();
        assert_eq!((whole.byte(), whole.shift(), whole.width()), (1584, 0, 0));
        assert!(whole.is_present() && !Location::ABSENT.is_present());
    }

    #[test]
    fn location_refuses_what_it_cannot_hold() {
        assert_eq!(Location::new(1 << 24, 0), None);
        assert_eq!(Location::new(0, 64), None);
        assert_eq!(Location::new(3, 0), None, "an ordinary member begins at a byte");
    }
}
