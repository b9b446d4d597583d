//! What the kernel side and the userspace side of rstscope both have to agree on.
//!
//! * [`layout`]: which members of kernel structures the kernel side reads. The agent finds each in the running
//!   kernel's BTF and hands the result over as a read-only global.
//! * [`settings`]: that global, with the filters that are cheap enough to apply in the kernel.
//! * [`event`]: the record that travels through the ring buffer.
//! * [`connection`]: what is remembered about a connection while it lives, and for a while after.
//! * [`jiffies`]: the kernel's ticks, which both sides subtract;
//! * [`counter`]: the per-CPU counters; everything lost is in one of them.
//!
//! The crate is `no_std` and has no dependency, so that it means the same on both sides.
#![cfg_attr(not(test), no_std)]

pub mod connection;
pub mod counter;
pub mod event;
pub mod jiffies;
pub mod layout;
pub mod settings;
pub mod tcp;
