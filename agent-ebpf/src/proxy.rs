//! What a process closes quietly, with a FIN, right after another of its connections failed: a proxy that passes an end on.
//!
//! A close is no event by itself, and there are far too many to tell of each. So a failure allows a few closes of the same
//! process to be told, for a moment; which of them belongs to it the agent finds out.

use agent_common::{
    connection::{Connection, Failure},
    event::kind,
    tcp::state,
};

use crate::{
    cgroup,
    kernel::Kernel,
    report::{asked_for, faults, fill_actor, fill_connection, fill_full, write},
    socket, task,
};

/// How long a close can be the consequence of a failure; the agent's `diagnosis::chain::fit` is stricter.
const WINDOW_NS: u64 = 50_000_000;
/// How many closes of a process are told of after each failure. The one that is meant is one of the first.
const TOLD: u32 = 4;

/// A connection failed, and whoever uses it will learn of that.
#[inline(always)]
pub fn failed<K: Kernel>(kernel: &K, connection: &Connection) {
    if connection.owner.tgid != 0 {
        let failure = Failure { boot_ns: kernel.boot_ns(), role: connection.role.into(), left: TOLD };
        kernel.note_failure(connection.owner.tgid, &failure);
    }
}

/// The current process sends its FIN on `sk`, which was established.
#[inline(always)]
pub fn closes<K: Kernel>(kernel: &K, sk: u64) {
    if !task::in_process_context(kernel) {
        return;
    }
    let tgid = (kernel.current_pid_tgid() >> 32) as u32;
    let Some(failure) = kernel.failure(tgid) else { return };
    let is_over = failure.left == 0 || kernel.boot_ns().wrapping_sub(failure.boot_ns) > WINDOW_NS;
    let Some(connection) = kernel.connection(sk).filter(|_| !is_over) else { return };
    // A proxy accepts one connection and opens the other; a process that exits closes everything.
    let is_alike = connection.role != 0 && u32::from(connection.role) == failure.role;
    if is_alike || task::exiting(kernel).is_some() {
        return;
    }
    let (faults, tuple) = (faults(kernel), socket::tuple(kernel, sk));
    if !asked_for(kernel, &tuple, || cgroup::judge_current(kernel)) {
        return;
    }
    kernel.note_failure(tgid, &Failure { left: failure.left - 1, ..failure });
    write(kernel, faults, &tuple, |event| {
        event.kind = kind::CLOSED;
        fill_full(kernel, sk, state::ESTABLISHED, event);
        fill_connection(Some(connection), event);
        fill_actor(kernel, event);
    });
}

#[cfg(test)]
mod tests {
    use agent_common::{
        connection::role,
        event::{Event, flag},
        layout::Member,
    };

    use super::*;
    use crate::{fake::Fake, lifecycle::on_destroy, reset::on_send_reset};

    /// The current process, a proxy, has these two connections.
    fn proxy() -> (Fake, u64, u64) {
        let mut kernel = Fake::new();
        let (accepted, opened) = (kernel.accepted(), kernel.connected());
        kernel.process();
        (kernel, accepted, opened)
    }

    /// What was told of closes.
    fn closes_told(kernel: &Fake) -> Vec<Event> {
        kernel.take_events().into_iter().filter(|event| event.kind == kind::CLOSED).collect()
    }

    #[test]
    fn the_close_of_a_client_after_the_upstreams_reset_is_told() {
        let (mut kernel, accepted, opened) = proxy();
        kernel.receive_rst(opened, 104);
        kernel.go(accepted, state::FIN_WAIT1);
        let told = closes_told(&kernel);
        let [close] = &told[..] else { panic!("{told:?}") };
        assert_eq!((close.state, close.connection.role), (state::ESTABLISHED, role::SERVER));
        assert_eq!((close.actor.tgid, close.actor.tid), (100, 101));
        assert!(close.flags & (flag::FACTS | flag::CONNECTION | flag::ACTOR) == close.flags);
        // Closed after it was shut down: told once.
        kernel.go(accepted, state::FIN_WAIT1);
        assert!(closes_told(&kernel).is_empty());
    }

    #[test]
    fn the_close_of_a_client_after_a_connect_was_given_up_is_told() {
        let (mut kernel, accepted, _) = proxy();
        let connecting = kernel.connecting();
        kernel.go(connecting, state::CLOSE);
        kernel.go(accepted, state::FIN_WAIT1);
        assert_eq!(closes_told(&kernel).len(), 1);
    }

    /// A timer of the kernel's ends it, with a RST (keepalive) or without.
    #[test]
    fn the_close_of_a_client_after_the_upstream_died_is_told() {
        let (mut kernel, accepted, opened) = proxy();
        kernel.softirq();
        on_send_reset(&kernel, opened, 0, None);
        kernel.process();
        kernel.go(accepted, state::FIN_WAIT1);
        assert_eq!(closes_told(&kernel).len(), 1);
        let (mut kernel, accepted, opened) = proxy();
        kernel.softirq();
        kernel.set(opened, Member::Error, 110_u32);
        kernel.go(opened, state::CLOSE);
        kernel.process();
        kernel.go(accepted, state::FIN_WAIT1);
        assert_eq!(closes_told(&kernel).len(), 1);
    }

    #[test]
    fn a_close_after_nothing_is_not_told() {
        let (mut kernel, accepted, opened) = proxy();
        kernel.go(accepted, state::FIN_WAIT1);
        kernel.go(opened, state::FIN_WAIT1);
        assert!(kernel.take_events().is_empty());
    }

    #[test]
    fn a_close_is_told_for_a_moment_only() {
        for (ticks, told) in [(12, 1), (13, 0)] {
            let (mut kernel, accepted, opened) = proxy();
            kernel.receive_rst(opened, 104);
            kernel.wait(ticks);
            kernel.go(accepted, state::FIN_WAIT1);
            assert_eq!(closes_told(&kernel).len(), told, "{ticks}");
        }
    }

    #[test]
    fn a_failure_tells_of_a_few_closes_and_not_of_every_one() {
        let (mut kernel, _, opened) = proxy();
        let clients: Vec<u64> = (0..20).map(|_| kernel.accepted()).collect();
        kernel.process();
        kernel.receive_rst(opened, 104);
        for client in clients {
            kernel.go(client, state::FIN_WAIT1);
            on_destroy(&kernel, client);
        }
        assert_eq!(closes_told(&kernel).len(), TOLD as usize);
    }

    #[test]
    fn a_close_by_another_process_by_nobody_or_at_its_end_is_not_told() {
        let (mut kernel, accepted, opened) = proxy();
        kernel.receive_rst(opened, 104);
        kernel.run(200, "nginx");
        kernel.go(accepted, state::FIN_WAIT1);
        let (mut exits, accepted, opened) = proxy();
        exits.receive_rst(opened, 104);
        exits.set_task_flags(4);
        exits.go(accepted, state::FIN_WAIT1);
        let (mut softirq, accepted, opened) = proxy();
        softirq.receive_rst(opened, 104);
        softirq.softirq();
        softirq.go(accepted, state::FIN_WAIT1);
        for kernel in [kernel, exits, softirq] {
            assert!(closes_told(&kernel).is_empty());
        }
    }

    #[test]
    fn what_a_process_opened_itself_is_not_closed_for_what_else_it_opened() {
        let (mut kernel, _, opened) = proxy();
        let other = kernel.connected();
        kernel.process();
        kernel.receive_rst(opened, 104);
        kernel.go(other, state::FIN_WAIT1);
        assert!(closes_told(&kernel).is_empty());
    }

    #[test]
    fn a_close_after_the_client_has_left_is_not_told() {
        let (mut kernel, accepted, opened) = proxy();
        kernel.receive_rst(opened, 104);
        kernel.softirq();
        kernel.go(accepted, state::CLOSE_WAIT);
        kernel.process();
        kernel.go(accepted, state::LAST_ACK);
        assert!(closes_told(&kernel).is_empty());
    }

    /// It is no line that a filter leaves out.
    #[test]
    fn a_close_that_nobody_asked_for_is_neither_told_nor_counted() {
        use agent_common::counter::Counter;
        let (mut kernel, accepted, opened) = proxy();
        kernel.receive_rst(opened, 104);
        kernel.settings.port_count = 1;
        kernel.settings.ports[0] = 443;
        kernel.go(accepted, state::FIN_WAIT1);
        assert!(closes_told(&kernel).is_empty());
        assert_eq!(kernel.counted(Counter::Filtered), 0);
    }
}
