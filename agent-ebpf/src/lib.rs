//! The logic of the kernel side: what to read at which hook and what it means.
//!
//! Everything here works through the [`Kernel`](kernel::Kernel) trait. In the eBPF program (`main.rs`) that is the
//! real kernel; on the host it is a table of bytes, so that the rules which decide what a line says are ordinary
//! unit-tested Rust.
//!
//! | module | one idea |
//! |---|---|
//! | [`kernel`] | what the logic asks of the kernel: memory, clocks, the current task, the tables |
//! | [`socket`] | reading a `struct sock` of any kind |
//! | [`cgroup`] | from a socket to its cgroups, and whether those were asked for |
//! | [`segment`] | reading the segment that a RST answers |
//! | [`task`] | who is running |
//! | [`owner`] | whose a connection is, and whether that is still true |
//! | [`lifecycle`] | a connection from birth to CLOSE (`inet_sock_set_state` or the functions around it, `tcp_destroy_sock`), and whose it is (accept, `tcp_rcv_space_adjust`) |
//! | [`open`] | connections older than the agent (`task_file` iterator) |
//! | [`reset`] | received and sent resets (`tcp_receive_reset` or `tcp_reset`, `tcp_send_reset`, the functions that answer) |
//! | [`proxy`] | what a process closes quietly right after another of its connections failed |
//! | [`report`] | the event: filters, then the record |
//!
//! # Rules that prevent wrong output
//!
//! Each was a wrong line once, somewhere. Where it is obeyed, and what holds it:
//!
//! | rule | obeyed in | held by |
//! |---|---|---|
//! | `tcp_receive_reset` does not mean a RST arrived | [`reset::may_be_data`], the segment where `tcp_reset` is given it, the agent's `kernel::settle` | kernel test `data_for_a_shut_down_reader_is_sent_not_received` |
//! | `tcp_send_reset` does not mean this connection died; its socket may be none, a listener, a mini-socket | [`reset::on_send_reset`] | kernel tests of `after_close` |
//! | before about 6.10 that tracepoint misses resets without a full socket | the agent's `kernel::plan` adds probes on the functions, or says so | kernel tests on 5.10 and 6.1 (`cargo xtask vm`) |
//! | `tcp_v4_send_reset` also runs for RSTs that arrive | [`reset::on_send_reset_function`] | unit tests of `reset` |
//! | `skc_num` is 0 once a port is given back | [`socket::tuple`] reads `inet_sport` | every kernel test that looks for a local port |
//! | at a reset after close the state is CLOSE already | `last_state` of the connection | kernel tests `linger_zero_close`, `close_with_unread_data` |
//! | `tcp_destroy_sock` can come before the reset | [`lifecycle`], the closed-connection table | kernel test `births_survive_a_destroy_that_comes_before_the_reset` |
//! | `sk_err` is not set yet at `tcp_receive_reset` | the agent's `event::decode` derives it from the state | its unit tests |
//! | idle stamps mean nothing before ESTABLISHED | the agent's `event::idle` | its unit tests, kernel tests of `connects` |
//! | an accepted socket's cgroup is that of the listener's creator | [`cgroup`], marked `creator` | unit tests of `event::decode` |
//! | what is recorded of an owner is of its moment | [`owner::bring_up_to_date`] at a reset and at a close; the last reader counts | kernel tests of `handed_on` |
//! | `current` at a reset is almost never the owner | [`task::in_process_context`]; owners are learned elsewhere | kernel tests `the_process_is_named_…`, `destroyed_by_an_administrator` |
//! | `skc_cookie` is 0 for nearly every socket | tables are keyed by address and by both ends; the cookie is read for those that the agent has asked sock_diag about | kernel tests of `older` |
//! | a program that reads an argument its hook lacks is refused | an entry for each prototype; the agent's `kernel::plan` chooses by BTF | `plan` unit tests |
//! | where neither kprobes nor trampolines work, raw tracepoints must do | the base; function probes only add, and each is tried before it is counted on (the agent's `kernel::attach`) | every kernel test on 6.18, and with `--hooks tracepoint` |
//! | before 6.1 a tracepoint's program can run inside itself, in a softirq that interrupts a process | [`kernel::Kernel::closed_scratch`] | – |
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod cgroup;
#[cfg(test)]
mod fake;
pub mod kernel;
pub mod lifecycle;
pub mod open;
pub mod owner;
pub mod proxy;
pub mod report;
pub mod reset;
pub mod segment;
pub mod socket;
pub mod task;
