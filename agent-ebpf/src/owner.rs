//! Whose a connection is: learned from whoever is seen to use it, and held against what that process has become since.
//!
//! A record is of the moment of a connect, an accept or a read. Until a reset the same process may execute another program
//! or move to another cgroup, and a socket may be handed on (fork, SCM_RIGHTS) and outlive the process on record.

use agent_common::connection::{Connection, Task, connection_flag, owner_from};
use agent_common::layout::Member;

use crate::{
    cgroup,
    kernel::{Kernel, field},
    socket, task,
};

/// Notes the current process as the owner; the caller knows how it shows that.
#[inline(always)]
pub fn learn<K: Kernel>(kernel: &K, connection: &mut Connection, how: u8) {
    connection.owner_leader = field(kernel, kernel.current_task(), Member::TaskGroupLeader);
    task::read_current(kernel, &mut connection.owner);
    connection.owner_from = how;
    connection.owner_in_cgroup = cgroup::judge_current(kernel);
}

/// Notes the process of a task that has the connection open. A second process makes it unknown which of them uses it;
/// the cgroup stays if it is the same one. True if this is the first.
#[inline(always)]
pub fn learn_holder<K: Kernel>(kernel: &K, connection: &mut Connection, holder: u64) -> Holder {
    if connection.owner_from == owner_from::NONE {
        connection.owner_leader = field(kernel, holder, Member::TaskGroupLeader);
        task::read(kernel, holder, &mut connection.owner);
        connection.owner_from = owner_from::OPEN;
        connection.owner_in_cgroup = cgroup::judge_task(kernel, holder);
        return Holder::First;
    }
    let tgid: u32 = field(kernel, holder, Member::TaskTgid);
    if connection.owner_from != owner_from::OPEN || connection.owner.tgid == tgid {
        return Holder::Known;
    }
    if connection.owner.cgroup_id != cgroup::id_of_task(kernel, holder) {
        connection.owner.cgroup_id = 0;
        connection.owner_in_cgroup = cgroup::verdict::UNTESTED;
    }
    if connection.owner.tgid == 0 {
        return Holder::Known;
    }
    connection.owner_leader = 0;
    connection.owner = Task { cgroup_id: connection.owner.cgroup_id, ..Task::NOBODY };
    Holder::Second
}

/// What a process that has a connection open adds to what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It is the first.
    First,
    /// It is another one than the first.
    Second,
    /// Nothing: it is one of several, or a hook knows better.
    Known,
}

/// Makes what is known of the owner true of now, while a file refers to the socket; what used a socket before it was
/// closed does not become untrue by what that process does later.
#[inline(always)]
pub fn bring_up_to_date<K: Kernel>(kernel: &K, sk: u64, connection: &mut Connection) {
    if connection.owner.tgid == 0 || !socket::has_file(kernel, sk) {
        return;
    }
    match task::life(kernel, connection.owner_leader, &connection.owner) {
        task::Life::Running => {
            connection.owner.comm = field(kernel, connection.owner_leader, Member::TaskComm);
            connection.owner.cgroup_id = cgroup::id_of_task(kernel, connection.owner_leader);
            connection.owner_in_cgroup = cgroup::judge_task(kernel, connection.owner_leader);
        }
        // A file is left, so it is somebody else's.
        task::Life::Ended if connection.owner.tgid != (kernel.current_pid_tgid() >> 32) as u32 => {
            connection.owner_leader = 0;
            connection.owner = Task::NOBODY;
            connection.owner_from = owner_from::NONE;
            connection.owner_in_cgroup = cgroup::verdict::UNTESTED;
            connection.flags |= connection_flag::HANDED_ON;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use agent_common::event::kind;
    use agent_common::tcp::{shutdown, state};

    use super::*;
    use crate::{fake::Fake, lifecycle, reset};

    fn name(connection: &Connection) -> &str {
        std::str::from_utf8(&connection.owner.comm).unwrap().trim_end_matches('\0')
    }

    /// A RST arrives, and the event tells of this connection.
    fn at_the_reset(kernel: &mut Fake, sk: u64) -> Connection {
        kernel.receive_rst(sk, 104);
        kernel.take_event().connection
    }

    #[test]
    fn a_process_is_what_it_has_executed_and_where_it_has_moved() {
        let mut kernel = Fake::new();
        let sk = kernel.connected();
        kernel.run(100, "curl");
        let moved = kernel.cgroup(800, &[1, 800]);
        kernel.run_in_cgroup(moved, 800);
        kernel.run(200, "other");
        let connection = at_the_reset(&mut kernel, sk);
        assert_eq!((name(&connection), connection.owner.cgroup_id, connection.owner.tgid), ("curl", 800, 100));
        assert_eq!(connection.owner_from, owner_from::CONNECT);
    }

    #[test]
    fn the_cgroup_filter_follows_a_process_that_moves() {
        let mut kernel = Fake::new();
        kernel.settings.cgroup_count = 1;
        kernel.settings.cgroups[0] = agent_common::settings::CgroupSubtree { id: 800, level: 1 };
        let sk = kernel.connected();
        reset::on_receive_reset(&kernel, sk, 0);
        assert_eq!(kernel.take_events().len(), 0);
        let moved = kernel.cgroup(800, &[1, 800]);
        kernel.run_in_cgroup(moved, 800);
        reset::on_receive_reset(&kernel, sk, 0);
        assert_eq!(kernel.take_events().len(), 1);
    }

    /// fork and exit, or SCM_RIGHTS and exit.
    #[test]
    fn a_process_that_has_ended_owns_no_open_socket() {
        let mut kernel = Fake::new();
        let sk = kernel.connected();
        kernel.exit(100, true);
        kernel.run(200, "heir");
        let connection = at_the_reset(&mut kernel, sk);
        assert_eq!((connection.owner, connection.owner_from), (Task::NOBODY, owner_from::NONE));
        assert_ne!(connection.flags & connection_flag::HANDED_ON, 0);
    }

    #[test]
    fn a_task_struct_given_to_another_process_is_not_the_owners() {
        let mut kernel = Fake::new();
        let sk = kernel.connected();
        let leader = kernel.leader(100);
        kernel.set(leader, Member::TaskStartBoottime, 77_u64);
        kernel.run(200, "heir");
        assert_eq!(at_the_reset(&mut kernel, sk).owner, Task::NOBODY);
    }

    #[test]
    fn a_process_that_is_exiting_still_owns_what_it_has_open() {
        let mut kernel = Fake::new();
        let sk = kernel.connected();
        kernel.exit(100, false);
        assert_eq!(at_the_reset(&mut kernel, sk).owner.tgid, 100);
    }

    /// `main` has returned into `pthread_exit`: the leader is a zombie, its threads work.
    #[test]
    fn a_leader_that_ended_before_its_threads_is_no_end_of_the_process() {
        let mut kernel = Fake::new();
        let sk = kernel.connected();
        kernel.exit(100, true);
        let leader = kernel.leader(100);
        let signal: u64 = field(&kernel, leader, Member::TaskSignal);
        kernel.set(signal, Member::SignalLive, 3_u32);
        let connection = at_the_reset(&mut kernel, sk);
        assert_eq!((connection.owner.tgid, name(&connection)), (100, "envoy"));
    }

    /// The last thread closes the files while its leader is a zombie already.
    #[test]
    fn whoever_closes_as_it_exits_is_there() {
        let mut kernel = Fake::new();
        let sk = kernel.connected();
        kernel.exit(100, true);
        kernel.set(sk, Member::Shutdown, shutdown::BOTH);
        kernel.go(sk, state::CLOSE);
        assert_eq!(kernel.followed(sk).unwrap().owner.tgid, 100);
    }

    #[test]
    fn what_a_process_does_after_the_close_changes_nothing() {
        let mut kernel = Fake::new();
        let sk = kernel.connected();
        kernel.set(sk, Member::Shutdown, shutdown::BOTH);
        kernel.go(sk, state::FIN_WAIT1);
        kernel.set(sk, Member::Socket, 0_u64);
        kernel.run(100, "next");
        kernel.exit(100, true);
        let connection = at_the_reset(&mut kernel, sk);
        assert_eq!((connection.owner.tgid, name(&connection)), (100, "envoy"));
    }

    #[test]
    fn whoever_closes_what_its_owner_left_behind_owned_it() {
        let mut kernel = Fake::new();
        let sk = kernel.connected();
        kernel.exit(100, true);
        kernel.run(200, "heir");
        kernel.set(sk, Member::Shutdown, shutdown::BOTH);
        kernel.go(sk, state::CLOSE);
        reset::on_send_reset(&kernel, sk, 0, None);
        let event = kernel.take_event();
        assert_eq!(event.kind, kind::RESET_SENT);
        assert_eq!((event.connection.owner.tgid, event.connection.owner_from), (200, owner_from::CLOSE));
    }

    /// Keepalive gives up a connection that its owner has left to somebody else.
    #[test]
    fn a_timer_resets_nothing_of_a_process_that_has_ended() {
        let mut kernel = Fake::new();
        let sk = kernel.connected();
        kernel.exit(100, true);
        kernel.run(200, "heir");
        kernel.softirq();
        reset::on_send_reset(&kernel, sk, 0, None);
        let event = kernel.take_event();
        assert_eq!((event.kind, event.connection.owner), (kind::RESET_SENT, Task::NOBODY));
    }

    #[test]
    fn a_kernel_that_shows_too_little_of_a_process_changes_nothing() {
        for absent in [Member::TaskTgid, Member::TaskStartBoottime, Member::SignalLive] {
            let mut kernel = Fake::new();
            let sk = kernel.connected();
            kernel.exit(100, true);
            kernel.settings.locations[absent as usize] = agent_common::layout::Location::ABSENT;
            assert_eq!(at_the_reset(&mut kernel, sk).owner.tgid, 100, "{absent:?}");
        }
    }

    #[test]
    fn an_accepted_connection_of_nobody_stays_nobodys() {
        let mut kernel = Fake::new();
        let sk = kernel.accepted();
        let connection = at_the_reset(&mut kernel, sk);
        assert_eq!((connection.owner.tgid, connection.flags & connection_flag::HANDED_ON), (0, 0));
        lifecycle::on_destroy(&kernel, sk);
    }
}
