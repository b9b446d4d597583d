//! The eBPF programs: one thin entry per hook, the tables, and the real kernel behind the logic's `Kernel` trait.
//!
//! Raw tracepoints are the base: they load on every kernel from 5.10 on, need no mount and never run the trace event's
//! own assignment code. `tcp_send_reset` has two entries because a program that reads a third argument is refused
//! where the tracepoint has two.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("rstscope-ebpf runs in the kernel; `cargo xtask build` compiles it for there");
}

#[cfg(target_arch = "bpf")]
mod program;
