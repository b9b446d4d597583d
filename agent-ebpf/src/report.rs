//! The event: filters first, then the record, written in place in the ring buffer.

use agent_common::{
    connection::{Connection, Tuple},
    counter::Counter,
    event::{Event, flag, socket as socket_kind},
    layout::Member,
};

use crate::{
    cgroup::{self, verdict},
    kernel::{Kernel, field},
    socket, task,
};

/// Emits an event about `tuple` unless a filter leaves it out. `judge` answers the cgroup filter and is asked only if
/// there is one; an end whose cgroup nobody knows is outside. `faults` is [what had failed](faults) when the hook began:
/// much of what an event says is read before it is known that there will be one.
#[inline(always)]
pub fn report<K: Kernel>(
    kernel: &K,
    faults: u64,
    tuple: &Tuple,
    judge: impl FnOnce() -> u8,
    fill: impl FnOnce(&mut Event),
) {
    if !asked_for(kernel, tuple, judge) {
        kernel.count(Counter::Filtered);
        return;
    }
    write(kernel, faults, tuple, fill);
}

/// Whether the filters let an event about `tuple` through.
#[inline(always)]
pub fn asked_for<K: Kernel>(kernel: &K, tuple: &Tuple, judge: impl FnOnce() -> u8) -> bool {
    wanted(kernel, tuple) && (kernel.settings().cgroup_count == 0 || judge() == verdict::INSIDE)
}

/// Writes the record of an event, whatever the filters say.
#[inline(always)]
pub fn write<K: Kernel>(kernel: &K, faults: u64, tuple: &Tuple, fill: impl FnOnce(&mut Event)) {
    kernel.emit(|event| {
        event.boot_ns = kernel.boot_ns();
        event.monotonic_ns = kernel.monotonic_ns();
        event.jiffies = kernel.jiffies();
        event.cpu = kernel.cpu();
        event.tuple = *tuple;
        fill(event);
        if self::faults(kernel) != faults {
            event.flags |= flag::READ_FAULT;
        }
    });
}

/// How many reads have failed so far on this CPU.
#[inline(always)]
pub fn faults<K: Kernel>(kernel: &K) -> u64 {
    kernel.counted(Counter::ReadFault)
}

/// Whether the filters by port and address let a connection through.
#[inline(always)]
pub fn wanted<K: Kernel>(kernel: &K, tuple: &Tuple) -> bool {
    let settings = kernel.settings();
    settings.wants_ports(tuple) && settings.wants_addresses(tuple)
}

/// Writes what a connection's own socket shows; `state` is the one before the event.
#[inline(always)]
pub fn fill_full<K: Kernel>(kernel: &K, sk: u64, state: u8, event: &mut Event) {
    event.sk = sk;
    event.socket = socket_kind::FULL;
    event.state = state;
    event.family = field(kernel, sk, Member::Family);
    event.flags |= flag::FACTS;
    socket::read_facts(kernel, sk, &mut event.facts);
    event.cgroups = cgroup::of_socket(kernel, sk);
}

/// Writes who did it, in process context.
#[inline(always)]
pub fn fill_actor<K: Kernel>(kernel: &K, event: &mut Event) {
    if !task::in_process_context(kernel) {
        return;
    }
    task::read_current(kernel, &mut event.actor);
    event.flags |= flag::ACTOR;
    if let Some(code) = task::exiting(kernel) {
        event.flags |= flag::ACTOR_EXITING;
        event.exit_code = code;
    }
}

/// Writes what is known of the connection.
#[inline(always)]
pub fn fill_connection(connection: Option<&Connection>, event: &mut Event) {
    if let Some(connection) = connection {
        // An assignment becomes a memmove: all of it is loaded before any of it is stored, by way of a stack of 512 bytes that
        // has no room for it.
        // SAFETY: the event lies in the ring buffer and the connection in another map, so they do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(connection, &raw mut event.connection, 1) };
        event.flags |= flag::CONNECTION;
    }
}

#[cfg(test)]
mod tests {
    use agent_common::settings::{CgroupSubtree, Network};

    use super::*;
    use crate::{
        cgroup,
        fake::{Fake, v4},
        kernel::field,
        reset::{on_receive_reset, on_send_reset},
        socket,
    };

    fn tell(kernel: &Fake, sk: u64, judge: impl FnOnce() -> u8) {
        report(kernel, faults(kernel), &socket::tuple(kernel, sk), judge, |event| event.sk = sk);
    }

    /// How many events there are, and how many were left out.
    fn outcome(kernel: &Fake) -> (usize, u64) {
        (kernel.take_events().len(), kernel.counted(Counter::Filtered))
    }

    fn ask_for_cgroup(kernel: &mut Fake, id: u64, level: u64) {
        kernel.settings.cgroup_count = 1;
        kernel.settings.cgroups[0] = CgroupSubtree { id, level };
    }

    #[test]
    fn an_event_carries_all_three_clocks() {
        let mut kernel = Fake::new();
        let sk = kernel.established();
        tell(&kernel, sk, || verdict::UNTESTED);
        let event = kernel.take_event();
        assert_eq!((event.boot_ns, event.monotonic_ns), (kernel.boot_ns, kernel.monotonic_ns));
        assert_eq!((event.jiffies, event.cpu, event.flags), (kernel.jiffies, 3, 0));
        assert_eq!(kernel.counted(Counter::Emitted), 1);
    }

    #[test]
    fn a_port_nobody_asked_for_is_counted_and_not_told() {
        let mut kernel = Fake::new();
        let sk = kernel.established();
        kernel.settings.port_count = 1;
        kernel.settings.ports[0] = 443;
        tell(&kernel, sk, || verdict::INSIDE);
        assert_eq!(outcome(&kernel), (0, 1));
        kernel.settings.ports[0] = 40000;
        tell(&kernel, sk, || verdict::UNTESTED);
        assert_eq!(outcome(&kernel), (1, 1));
    }

    #[test]
    fn a_network_nobody_asked_for_is_counted_and_not_told() {
        let mut kernel = Fake::new();
        let sk = kernel.established();
        kernel.settings.network_count = 1;
        let mask = [u32::MAX, u32::MAX, u32::MAX, u32::from_ne_bytes([255, 255, 0, 0])];
        kernel.settings.networks[0] = Network { address: v4(10, 1, 0, 0), mask };
        tell(&kernel, sk, || verdict::INSIDE);
        assert_eq!(outcome(&kernel), (0, 1));
        kernel.settings.networks[0] = Network { address: v4(10, 0, 0, 0), mask };
        tell(&kernel, sk, || verdict::UNTESTED);
        assert_eq!(outcome(&kernel), (1, 1));
    }

    #[test]
    fn only_what_is_known_to_be_inside_passes_the_cgroup_filter() {
        let mut kernel = Fake::new();
        let sk = kernel.established();
        ask_for_cgroup(&mut kernel, 700, 1);
        tell(&kernel, sk, || verdict::OUTSIDE);
        tell(&kernel, sk, || verdict::UNTESTED);
        assert_eq!(outcome(&kernel), (0, 2));
        tell(&kernel, sk, || verdict::INSIDE);
        assert_eq!(outcome(&kernel), (1, 2));
    }

    #[test]
    fn without_a_cgroup_filter_nobody_is_judged() {
        let mut kernel = Fake::new();
        let sk = kernel.established();
        tell(&kernel, sk, || panic!("asked"));
        assert_eq!(outcome(&kernel), (1, 0));
    }

    /// `sk_cgrp_data` of an accepted socket is the listener's creator: a process that was seen goes first.
    #[test]
    fn the_owners_cgroup_goes_before_the_sockets() {
        for (wanted, told) in [(700, 1), (800, 0)] {
            let mut kernel = Fake::new();
            ask_for_cgroup(&mut kernel, wanted, 1);
            let creator = kernel.cgroup(800, &[1, 800]);
            let sk = kernel.connected();
            kernel.set(sk, Member::SkCgroup, creator);
            on_receive_reset(&kernel, sk, 0);
            assert_eq!(kernel.take_events().len(), told, "cgroup {wanted}");
        }
    }

    /// `accept()` charges the socket's memory anew.
    #[test]
    fn without_an_owner_the_acceptors_cgroup_goes_before_the_creators() {
        let mut kernel = Fake::new();
        ask_for_cgroup(&mut kernel, 20, 1);
        let (creator, acceptor) = (kernel.cgroup(800, &[1, 800]), kernel.cgroup(900, &[1, 20, 900]));
        let sk = kernel.accepted();
        kernel.set(sk, Member::SkCgroup, creator);
        on_receive_reset(&kernel, sk, 0);
        assert_eq!(outcome(&kernel), (0, 1));
        kernel.charge_memory(sk, acceptor, 0);
        on_receive_reset(&kernel, sk, 0);
        assert_eq!(outcome(&kernel), (1, 1));
    }

    #[test]
    fn a_task_in_another_cgroup_is_outside_by_ids_as_by_pointers() {
        for ids in [false, true] {
            let mut kernel = Fake::new();
            if ids {
                kernel.swap(Member::CgroupAncestors, Member::CgroupAncestorIds);
            }
            ask_for_cgroup(&mut kernel, 20, 1);
            let inside = kernel.cgroup(300, &[1, 20, 300]);
            let outside = kernel.cgroup(301, &[1, 21, 301]);
            kernel.run_in_cgroup(inside, 300);
            assert_eq!(cgroup::judge_current(&kernel), verdict::INSIDE);
            kernel.run_in_cgroup(outside, 301);
            assert_eq!(cgroup::judge_current(&kernel), verdict::OUTSIDE);
        }
    }

    /// A late segment has no process and no socket: the closed connection remembers the verdict.
    #[test]
    fn an_answer_for_nobody_is_judged_by_the_closed_connection() {
        for (wanted, told) in [(700, 1), (800, 0)] {
            let mut kernel = Fake::new();
            ask_for_cgroup(&mut kernel, wanted, 1);
            let sk = kernel.connected();
            kernel.go(sk, agent_common::tcp::state::CLOSE);
            let skb = kernel.packet_v4([10, 0, 0, 1], 40000, [10, 0, 0, 2], 80, 0x18, 1);
            on_send_reset(&kernel, 0, skb, None);
            assert_eq!(kernel.take_events().len(), told, "cgroup {wanted}");
        }
        let mut kernel = Fake::new();
        ask_for_cgroup(&mut kernel, 700, 1);
        let skb = kernel.packet_v4([10, 0, 0, 1], 40000, [10, 0, 0, 2], 80, 0x18, 1);
        on_send_reset(&kernel, 0, skb, None);
        assert_eq!(outcome(&kernel), (0, 1), "nobody knows whose it was");
    }

    #[test]
    fn a_connection_nobody_owned_is_judged_by_its_socket_when_it_closes() {
        let mut kernel = Fake::new();
        ask_for_cgroup(&mut kernel, 800, 1);
        let creator = kernel.cgroup(800, &[1, 800]);
        let sk = kernel.accepted();
        kernel.set(sk, Member::SkCgroup, creator);
        kernel.softirq();
        kernel.go(sk, agent_common::tcp::state::CLOSE);
        let skb = kernel.packet_v4([10, 0, 0, 1], 40000, [10, 0, 0, 2], 80, 0x18, 1);
        on_send_reset(&kernel, 0, skb, None);
        assert_eq!(outcome(&kernel), (1, 0));
    }

    #[test]
    fn an_answer_by_a_listener_is_judged_by_the_listener() {
        for (wanted, told) in [(800, 1), (900, 0)] {
            let mut kernel = Fake::new();
            ask_for_cgroup(&mut kernel, wanted, 1);
            let creator = kernel.cgroup(800, &[1, 800]);
            let sk = kernel.listener();
            kernel.set(sk, Member::SkCgroup, creator);
            let skb = kernel.packet_v4([10, 0, 0, 1], 40000, [10, 0, 0, 2], 80, 0x10, 0);
            on_send_reset(&kernel, sk, skb, None);
            assert_eq!(kernel.take_events().len(), told, "cgroup {wanted}");
        }
    }

    #[test]
    fn a_read_fault_marks_the_event_it_happened_in_and_no_other() {
        let mut kernel = Fake::new();
        let (good, bad) = (kernel.established(), kernel.established());
        kernel.unmap(bad, Member::Srtt);
        for sk in [bad, good] {
            on_receive_reset(&kernel, sk, 0);
        }
        let marked: Vec<_> = kernel.take_events().iter().map(|event| event.flags & flag::READ_FAULT != 0).collect();
        assert_eq!((marked, kernel.counted(Counter::ReadFault)), (vec![true, false], 1));
        assert_eq!(field::<_, u32>(&kernel, bad, Member::Srtt), 0);
    }

    #[test]
    fn a_softirq_has_no_actor() {
        let mut kernel = Fake::new();
        let mut event = Event::default();
        kernel.softirq();
        fill_actor(&kernel, &mut event);
        assert_eq!(event, Event::default());
        kernel.process();
        fill_actor(&kernel, &mut event);
        assert_eq!((event.actor.tgid, event.flags), (100, flag::ACTOR));
    }
}
