//! The kernel stage: loads and attaches the programs, and hands out records and losses.
//!
//! * [`preflight`]: can this node be traced, and if not, what to do about it;
//! * [`btf`] and [`members`]: where the running kernel keeps what the programs read;
//! * [`plan`]: by which hooks a kernel with these prototypes can show what; [`attach`]: the best that it lets in;
//! * [`older`]: whose the connections are that began before the agent, by the kernel's iterator or by `/proc`;
//! * [`tracer`]: load, attach, read; [`refusal`]: what the kernel does not take; [`hz`]: the length of a tick, measured;
//! * [`privileges`]: what it may still do once that is done;
//! * [`settle`]: whether a RST really arrived; [`losses`]: what was lost;
//! * [`clock`], [`instance`]: CLOCK_BOOTTIME as wall time; one agent per node.

pub mod attach;
pub mod btf;
pub mod clock;
#[cfg(feature = "ebpf-log")]
mod ebpf_log;
pub mod hz;
pub mod instance;
pub mod losses;
pub mod members;
pub mod older;
pub mod plan;
pub mod preflight;
pub mod privileges;
pub mod refusal;
pub mod settle;
#[cfg(test)]
mod stack;
pub mod tracer;
