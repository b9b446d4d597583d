//! Connections older than the agent: which process has them open, told by the `task_file` iterator, which walks over every
//! open file of every process once.

use agent_common::{
    counter::Counter,
    layout::Member,
    tcp::{AF_INET, AF_INET6, state},
};

use crate::{
    kernel::{Kernel, field},
    lifecycle::follow,
    owner::{self, Holder},
    socket,
};

/// `S_IFMT` and `S_IFSOCK`, `include/uapi/linux/stat.h`.
const FILE_TYPE: u16 = 0o170_000;
/// A socket's file.
const SOCKET_FILE: u16 = 0o140_000;
/// `SOCK_STREAM`, `include/linux/net.h`.
const STREAM: u16 = 1;

/// A process (`struct task_struct`) has a file (`struct file`) open.
///
/// The iterator holds the file, so the socket behind it is neither closed nor destroyed meanwhile. What a hook has learned
/// of its owner is better: a process that holds a descriptor need not be one that uses it.
#[inline(always)]
pub fn on_open_file<K: Kernel>(kernel: &K, holder: u64, file: u64) {
    let Some(sk) = tcp_socket(kernel, file) else { return };
    let Some(connection) = follow(kernel, sk) else { return };
    match owner::learn_holder(kernel, connection, holder) {
        Holder::First => kernel.count(Counter::FoundOpen),
        Holder::Second => kernel.count(Counter::FoundShared),
        Holder::Known => {}
    }
}

/// The connection that a file stands for.
#[inline(always)]
fn tcp_socket<K: Kernel>(kernel: &K, file: u64) -> Option<u64> {
    let inode: u64 = field(kernel, file, Member::FileInode);
    let mode: u16 = field(kernel, inode, Member::InodeMode);
    if mode & FILE_TYPE != SOCKET_FILE {
        return None;
    }
    // Null for a path to a Unix socket opened with O_PATH.
    let socket: u64 = field(kernel, file, Member::FilePrivate);
    let sk: u64 = field(kernel, socket, Member::SocketSk);
    let family: u16 = field(kernel, sk, Member::Family);
    let kind: u16 = field(kernel, sk, Member::SkType);
    // Before the protocol: 6 also numbers a netlink protocol, and raw sockets may ask for TCP.
    if !matches!(family, AF_INET | AF_INET6) || kind != STREAM || !socket::is_tcp(kernel, sk) {
        return None;
    }
    let now: u8 = field(kernel, sk, Member::State);
    (!matches!(now, state::CLOSE | state::LISTEN)).then_some(sk)
}

#[cfg(test)]
mod tests {
    use agent_common::connection::{Task, owner_from};

    use super::*;
    use crate::{cgroup, fake::Fake, lifecycle, reset};

    #[test]
    fn the_holder_of_an_old_connection_becomes_its_owner() {
        let mut kernel = Fake::new();
        let sk = kernel.established();
        let file = kernel.file_of(sk);
        let holder = kernel.process_in_cgroup(300, "java", 900);
        kernel.run(1, "rstscope");
        on_open_file(&kernel, holder, file);
        let connection = kernel.followed(sk).unwrap();
        assert_eq!((connection.owner.tgid, connection.owner.cgroup_id), (300, 900));
        assert_eq!((&connection.owner.comm[..5], connection.owner_from), (&b"java\0"[..], owner_from::OPEN));
        assert_eq!((connection.birth_ns, kernel.counted(Counter::FoundOpen)), (0, 1));
        // Whose it is, is known at the reset.
        reset::on_receive_reset(&kernel, sk, 0);
        assert_eq!(kernel.take_event().connection.owner.tgid, 300);
    }

    #[test]
    fn what_a_hook_has_learned_is_kept_and_goes_before_it_later() {
        let mut kernel = Fake::new();
        let sk = kernel.connected();
        let file = kernel.file_of(sk);
        let holder = kernel.process_in_cgroup(300, "java", 900);
        on_open_file(&kernel, holder, file);
        assert_eq!(kernel.followed(sk).unwrap().owner.tgid, 100);

        let old = kernel.established();
        let file = kernel.file_of(old);
        on_open_file(&kernel, holder, file);
        lifecycle::on_read(&kernel, old);
        let connection = kernel.followed(old).unwrap();
        assert_eq!((connection.owner.tgid, connection.owner_from), (100, owner_from::READ));
    }

    /// Any of them may be the one that uses it: sshd's monitor and its child both have the connection.
    #[test]
    fn of_several_holders_none_is_named_but_the_cgroup_they_share() {
        for (cgroups, told) in [([900, 900, 900], 900), ([900, 900, 901], 0), ([900, 901, 901], 0)] {
            let mut kernel = Fake::new();
            let sk = kernel.established();
            let file = kernel.file_of(sk);
            for (tgid, cgroup) in (300..).zip(cgroups) {
                let holder = kernel.process_in_cgroup(tgid, "sshd", cgroup);
                on_open_file(&kernel, holder, file);
                // Its other threads, and a second descriptor of the same process.
                on_open_file(&kernel, holder, file);
            }
            let connection = kernel.followed(sk).unwrap();
            let nobody = Task { cgroup_id: told, ..Task::NOBODY };
            assert_eq!((connection.owner, connection.owner_from), (nobody, owner_from::OPEN), "{cgroups:?}");
            assert_eq!((kernel.counted(Counter::FoundOpen), kernel.counted(Counter::FoundShared)), (1, 1));
            kernel.run(301, "sshd");
            lifecycle::on_read(&kernel, sk);
            assert_eq!(kernel.followed(sk).unwrap().owner.tgid, 301, "who reads is seen to use it");
        }
    }

    #[test]
    fn only_connections_of_tcp_are_taken() {
        let mut kernel = Fake::new();
        let holder = kernel.process_in_cgroup(300, "java", 900);
        let (listener, unconnected, raw) = (kernel.listener(), kernel.unconnected(), kernel.established());
        kernel.set(raw, Member::SkType, 3_u16);
        let netlink = kernel.established();
        kernel.set(netlink, Member::Family, 16_u16);
        for sk in [listener, unconnected, raw, netlink] {
            let file = kernel.file_of(sk);
            on_open_file(&kernel, holder, file);
        }
        let plain = kernel.plain_file();
        on_open_file(&kernel, holder, plain);
        on_open_file(&kernel, holder, 0);
        assert_eq!((kernel.followed_count(), kernel.counted(Counter::ReadFault)), (0, 0));
    }

    #[test]
    fn the_holders_cgroup_is_judged() {
        use agent_common::settings::CgroupSubtree;
        for (id, told) in [(900, cgroup::verdict::INSIDE), (901, cgroup::verdict::OUTSIDE)] {
            let mut kernel = Fake::new();
            kernel.settings.cgroup_count = 1;
            kernel.settings.cgroups[0] = CgroupSubtree { id, level: 1 };
            let sk = kernel.established();
            let file = kernel.file_of(sk);
            let holder = kernel.process_in_cgroup(300, "java", 900);
            on_open_file(&kernel, holder, file);
            assert_eq!(kernel.followed(sk).unwrap().owner_in_cgroup, told);
        }
    }

    #[test]
    fn nobody_is_named_where_tasks_cannot_be_read() {
        let mut kernel = Fake::new();
        let sk = kernel.established();
        let file = kernel.file_of(sk);
        on_open_file(&kernel, 0, file);
        assert_eq!(kernel.followed(sk).unwrap().owner, Task::NOBODY);
    }
}
