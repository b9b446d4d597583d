//! The eBPF programs: one thin entry per hook, the tables, and the real kernel behind the logic's `Kernel` trait.
//!
//! Raw tracepoints are the base: they load on every kernel from 5.10 on, need no mount and never run the trace event's
//! own assignment code. Function probes (fentry by a trampoline, kprobe by a breakpoint or ftrace) show what they do not;
//! an entry differs from its twins of another flavour only in where it finds its arguments. Where a prototype differs
//! between kernels there is an entry for each, because a program that reads an argument its hook lacks is refused.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("rstscope-ebpf runs in the kernel; `cargo xtask build` compiles it for there");
}

#[cfg(target_arch = "bpf")]
mod log;
#[cfg(target_arch = "bpf")]
mod program;
