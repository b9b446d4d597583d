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
//! | [`lifecycle`] | a connection from birth to CLOSE (`inet_sock_set_state`, `tcp_destroy_sock`) |
//! | [`reset`] | received and sent resets (`tcp_receive_reset`, `tcp_send_reset`) |
//! | [`report`] | the event: filters, then the record |
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod cgroup;
#[cfg(test)]
mod fake;
pub mod kernel;
pub mod lifecycle;
pub mod report;
pub mod reset;
pub mod segment;
pub mod socket;
pub mod task;
